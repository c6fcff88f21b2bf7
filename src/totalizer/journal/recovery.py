"""Bringing a folder left by any earlier process into order, under its lock, before anyone writes or reads on.

Only the newest segment can be unfinished: every other one's end is in the header of the one after it. After
recovery the newest has an end too, the watermark says so, and nothing is ever appended to it again.
"""

from __future__ import annotations

import itertools
import os
import sys
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from totalizer import failpoint
from totalizer.failpoint import Failpoint
from totalizer.journal.disk import Disk, read_file
from totalizer.journal.folder import IDENTITY_NAME, Identity, load_identity, store_identity
from totalizer.journal.format import (
    NO_SEGMENT,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    segment_numbers,
    segment_path,
)
from totalizer.journal.quarantine import Damage, keep, move_segment
from totalizer.journal.segment_view import SegmentView
from totalizer.journal.watermark import DurableEnd, Watermark

#: Payload bytes looked at in one step of a scan.
_STEP_BYTES = 4 << 20


@dataclass
class Recovery:
    """What recovery found, and left.

    Attributes:
        identity: id of the journal, highest segment number ever used, next sequence.
        end: end of the newest segment kept; segment NO_SEGMENT if none is.
        torn_bytes: bytes cut from the newest segment's end, where a write was interrupted; nobody was told of
            them.
        damage: what could not be read, each with its copy in the quarantine.
    """

    identity: Identity
    end: DurableEnd
    torn_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)


def recover(folder: Path, disk: Disk) -> Recovery:
    """Put the journal in `folder` in order. The caller holds its lock; calling again changes nothing more.

    Raises:
        OSError: the disk refuses.
        JournalFailed: the folder was written by a later version.
    """
    _remove_drafts(folder, disk)
    if failpoint.ARMED:
        failpoint.hit(Failpoint.RECOVERY_CLEARED)
    numbers = segment_numbers(folder)
    stored, identity = _identity(folder, numbers, disk)
    identity = replace(identity, floor=max([identity.floor, *numbers]))
    recovery = Recovery(identity, DurableEnd(NO_SEGMENT, 0, identity.sequence, 1))
    headers = _own_headers(folder, numbers, recovery, disk)
    _note_missing(folder, headers, recovery, disk)
    if failpoint.ARMED:
        failpoint.hit(Failpoint.RECOVERY_SORTED)
    watermark = Watermark(folder, identity.id_bytes, disk)
    try:
        mark = watermark.read()
        if mark is not None:
            # The segment it names may have been deleted by others; a reader's position may be behind it all the same.
            identity = replace(identity, floor=max(identity.floor, mark.segment))
            recovery.identity = identity
        _end_newest(folder, headers, mark, recovery, disk)
        recovery.identity = replace(identity, sequence=recovery.end.sequence)
        if stored != recovery.identity and (stored is None or recovery.end.segment < identity.floor):
            # The files no longer tell the highest number or the sequence, or soon will not: say it here
            # first.
            store_identity(folder, recovery.identity, disk)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.RECOVERY_IDENTIFIED)
        _remove_empty(folder, headers, recovery, disk)
        if mark != recovery.end:
            watermark.reset(recovery.end)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.RECOVERY_PUBLISHED)
    finally:
        watermark.close()
    return recovery


def _remove_drafts(folder: Path, disk: Disk) -> None:
    with os.scandir(folder) as entries:
        # A folder by such a name is nobody's draft; the number it stands in the way of is used up, no more.
        names = [each.name for each in entries if not each.is_dir(follow_symlinks=False)]
    for name in names:
        if name.endswith(".new"):
            disk.unlink(folder / name)


def _identity(folder: Path, numbers: list[int], disk: Disk) -> tuple[Identity | None, Identity]:
    """The identity as stored, if it is, and the one to go by: from the newest readable segment, or a new one."""
    try:
        stored = load_identity(folder)
    except ValueError as error:
        damage = Damage(NO_SEGMENT, 0, 0, 0, f"{IDENTITY_NAME} cannot be read: {error}")
        keep(folder, damage, read_file(folder / IDENTITY_NAME), disk)
        stored = None
    if stored is not None:
        return stored, stored
    for number in reversed(numbers):
        header = _header(folder, number, disk)
        if header is not None and header.number == number:
            return None, Identity(str(uuid.UUID(bytes=header.journal_id)))
    return None, Identity(str(uuid.uuid4()))


def _header(folder: Path, number: int, disk: Disk) -> SegmentHeader | None:
    view = SegmentView(folder, number, disk)
    view.close()
    return view.header


def _own_headers(folder: Path, numbers: list[int], recovery: Recovery, disk: Disk) -> dict[int, SegmentHeader]:
    """Headers of the segments that belong here, ascending; the others go to the quarantine."""
    headers = {}
    for number in numbers:
        view = SegmentView(folder, number, disk)
        view.close()
        reason = view.belongs_to(recovery.identity.id_bytes)
        if reason is None and view.header is not None:
            headers[number] = view.header
        else:
            damage = Damage(number, 0, view.size, None, reason or "")
            recovery.damage.append(move_segment(folder, segment_path(folder, number), damage, disk))
    return headers


def _note_missing(folder: Path, headers: dict[int, SegmentHeader], recovery: Recovery, disk: Disk) -> None:
    """Note each gap: a segment names as its previous one that is not there, though an older one is."""
    numbers = list(headers)
    for older, newer in itertools.pairwise(numbers):
        previous = headers[newer].previous
        if previous > older:
            damage = Damage(previous, 0, 0, None, f"segments are missing between {older} and {newer}")
            recovery.damage.append(keep(folder, damage, b"", disk))


def _end_newest(
    folder: Path, headers: dict[int, SegmentHeader], mark: DurableEnd | None, recovery: Recovery, disk: Disk
) -> None:
    """Find, cut and sync the end of the newest segment."""
    sequence = max(recovery.identity.sequence, mark.sequence if mark is not None else 1)
    if headers:
        number = max(headers)
        if mark is not None and mark.segment == number and mark.ended:
            recovery.end = mark
        else:
            recovery.end = _scanned_end(folder, number, mark, recovery, disk)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.RECOVERY_SCANNED)
        _cut(folder, recovery.end, mark, disk)
    # Records known to have been there are not numbered again, even if they cannot be found.
    recovery.end = recovery.end._replace(sequence=max(sequence, recovery.end.sequence))


def _scanned_end(folder: Path, number: int, mark: DurableEnd | None, recovery: Recovery, disk: Disk) -> DurableEnd:
    """Where the good records of an unfinished segment end; damage before that is kept and counted."""
    known = mark if mark is not None and mark.segment == number else None
    view = SegmentView(folder, number, disk)
    try:
        end, found, group_offset = _scan(view)
        for damage in found:
            damage = _judge(damage, end, known, group_offset)
            recovery.damage.append(keep(folder, damage, view.bytes_at(damage.offset, damage.length), disk))
        if known is not None and known.offset > end.offset:
            # The watermark says that these bytes were acknowledged, so this is no interrupted write.
            lost = known.sequence - end.sequence
            damage = Damage(number, end.offset, known.offset - end.offset, lost, "acknowledged records cannot be read")
            recovery.damage.append(keep(folder, damage, view.bytes_at(damage.offset, damage.length), disk))
        recovery.torn_bytes = _length_torn(view, end.offset)
    finally:
        view.close()
    return end


def _scan(view: SegmentView) -> tuple[DurableEnd, list[Damage], int]:
    """End of the last good record, the damage before it, and the offset of the last group's first record."""
    assert view.header is not None
    end = DurableEnd(view.number, SEGMENT_HEADER_BYTES, view.header.first_sequence, 1)
    offset, group_offset = SEGMENT_HEADER_BYTES, -1
    found: list[Damage] = []
    while offset < view.size:
        piece = view.read(offset, view.size, end.sequence, None, sys.maxsize, _STEP_BYTES)
        offset = piece.offset
        if piece.records:
            if piece.damage is not None:
                found.append(piece.damage)
            end = end._replace(offset=offset, sequence=piece.records[-1].sequence + 1)
            group_offset = max(group_offset, piece.group_offset)
    return end, found, group_offset


def _judge(damage: Damage, end: DurableEnd, known: DurableEnd | None, group_offset: int) -> Damage:
    """Say so if the damage lies in the last group, which a power loss may have interrupted before it was answered."""
    acknowledged = group_offset > damage.offset or (known is not None and known.offset > damage.offset)
    if acknowledged:
        return damage
    return replace(damage, reason="a hole in the last group written, which may never have been acknowledged")


def _length_torn(view: SegmentView, end: int) -> int:
    """Bytes behind `end` up to the last that is not zero."""
    length = 0
    zeros = bytes(_STEP_BYTES)
    for start in range(end, view.size, _STEP_BYTES):
        data = view.bytes_at(start, min(_STEP_BYTES, view.size - start))
        # Nearly all are zeros, of which comparing is told many times sooner than stripping.
        if not zeros.startswith(data):
            length = start + len(data.rstrip(b"\0")) - end
    return length


def _cut(folder: Path, end: DurableEnd, mark: DurableEnd | None, disk: Disk) -> None:
    """Shorten a segment to its end and sync it: a killed writer's last group may not be on the disk yet.

    Nothing is left to do if the watermark, `mark`, says the same end and the file has it: it is set only
    after that.
    """
    if mark == end and segment_path(folder, end.segment).stat().st_size <= end.offset:
        return
    descriptor = disk.open(segment_path(folder, end.segment), writable=True)
    try:
        if os.fstat(descriptor).st_size > end.offset:
            disk.truncate(descriptor, end.offset)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.RECOVERY_CUT)
        disk.fsync(descriptor)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.RECOVERY_SYNCED)
    finally:
        disk.close(descriptor)
    disk.sync_folder(folder)


def _remove_empty(folder: Path, headers: dict[int, SegmentHeader], recovery: Recovery, disk: Disk) -> None:
    """Remove the newest segment if no record is in it, so that starts without work leave nothing behind."""
    end = recovery.end
    if end.segment == NO_SEGMENT or end.offset > SEGMENT_HEADER_BYTES:
        return
    header = headers[end.segment]
    if recovery.identity.floor == end.segment:  # else it was stored already
        # Its number is about to vanish from the folder; never use it again.
        store_identity(folder, recovery.identity, disk)
    if header.previous in headers:
        recovery.end = DurableEnd(header.previous, header.previous_end, end.sequence, 1)
        # The end of the previous one was said in the header that goes now: let its length say it.
        _cut(folder, recovery.end, None, disk)
    else:
        recovery.end = DurableEnd(NO_SEGMENT, 0, end.sequence, 1)
    disk.unlink(segment_path(folder, end.segment))
    if failpoint.ARMED:
        failpoint.hit(Failpoint.RECOVERY_EMPTIED)
    disk.sync_folder(folder)
