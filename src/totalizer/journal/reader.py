"""The way out, for any process: reads behind the writer what is durable, steps over damage, discards what is done."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from totalizer import failpoint
from totalizer.errors import JournalFailed
from totalizer.failpoint import Failpoint
from totalizer.journal.disk import DISK, Disk
from totalizer.journal.folder import check_folder, load_identity
from totalizer.journal.format import SEGMENT_HEADER_BYTES, SegmentHeader, segment_numbers, segment_path
from totalizer.journal.position import BEGINNING, Position, Record
from totalizer.journal.quarantine import Damage, keep
from totalizer.journal.segment_view import SegmentView
from totalizer.journal.watermark import DurableEnd, WatermarkView

#: Damages a reader remembers to report; all are noted in the quarantine.
DAMAGE_KEPT_MAX = 1000


class Limit(NamedTuple):
    """Where reading a segment has to stop.

    Attributes:
        offset: end of its durable records.
        sequence: of the first record after them; None if not known.
        sealed: True if no more will come in this segment.
    """

    offset: int
    sequence: int | None
    sealed: bool


class JournalReader:
    """Reads records from any position and deletes segments that are dealt with. For one thread at a time.

    Args:
        folder: where the journal is.
        looking_on: True for who reads beside the one that discards: what it misses, it notes in no quarantine.

    Attributes:
        folder: where the journal is.
        id: its UUID; keep it beside every position.
        damage: what was stepped over while reading, in the order it was met, DAMAGE_KEPT_MAX at most.

    Raises:
        JournalFailed: there is no journal in the folder, it is a later version's, or it is not one to trust.
    """

    def __init__(self, folder: Path, *, disk: Disk = DISK, looking_on: bool = False) -> None:
        check_folder(folder)
        try:
            identity = load_identity(folder)
        except (OSError, ValueError) as error:
            raise JournalFailed(f"{folder}: journal.json cannot be read: {error}") from error
        if identity is None:
            raise JournalFailed(f"{folder} holds no journal")
        self.folder, self.id = folder, identity.id
        self.damage: list[Damage] = []
        self._id_bytes, self._disk, self._looking_on = identity.id_bytes, disk, looking_on
        self._watermark = WatermarkView(folder, identity.id_bytes)
        self._view: SegmentView | None = None
        self._sealed_limit: Limit | None = None
        self._met: set[tuple[int, int]] = set()
        # What the last read that found nothing saw, and the position and sequence the last one that did left
        # off at.
        self._idle: tuple[bytes, Position] | None = None
        self._expected: tuple[Position, int] = (BEGINNING, 1)

    def read(self, after: Position, *, records_max: int, bytes_max: int) -> list[Record]:
        """Durable records after a position, in order.

        Args:
            after: Position(0, 0), or the `position_after` of the last record dealt with.
            records_max: at most so many, ≥ 1.
            bytes_max: at most so many bytes of payload, ≥ 1; but one record if there is one, however long.

        Returns:
            Some of what there is, from one segment; [] only if nothing is there yet. Asking again while
            nothing has become durable since costs a comparison of 128 bytes.

        Raises:
            JournalFailed: the disk refuses. Unreadable pages are no refusal but damage.
        """
        try:
            raw = self._watermark.raw()
            if raw and self._idle == (raw, after):
                return []
            records = self._read(after, self._watermark.decode(raw), records_max, bytes_max)
        except OSError as error:
            raise JournalFailed(f"{self.folder} cannot be read: {error}") from error
        if records:
            last = records[-1]
            self._expected = (last.position_after, last.sequence + 1)
        else:
            self._idle = (raw, after)
        return records

    def durable_end(self) -> Position:
        """Where the durable records end, from the watermark; Position(0, 0) if there is none or it is not valid.

        Raises:
            JournalFailed: the disk refuses.
        """
        try:
            end = self._watermark.decode(self._watermark.raw())
        except OSError as error:
            raise JournalFailed(f"{self.folder} cannot be read: {error}") from error
        return Position(end.segment, end.offset) if end is not None else BEGINNING

    def discard(self, before: Position) -> int:
        """Delete the segments that lie wholly before a position, durably.

        The newest segment stays whatever the position: the writer may be in it, and its number and sequence
        are what the next one continues from.

        Returns:
            Bytes freed.

        Raises:
            JournalFailed: the disk refuses.
        """
        freed, count = 0, 0
        try:
            for number in self._discardable(before):
                path = segment_path(self.folder, number)
                try:
                    size = path.stat().st_size
                    self._disk.unlink(path)
                except FileNotFoundError:
                    continue  # another reader was faster
                freed, count = freed + size, count + 1
                if failpoint.ARMED:
                    failpoint.hit(Failpoint.SEGMENT_DISCARDED)
                if self._view is not None and self._view.number == number:
                    self._leave_view()
            if count:
                self._disk.sync_folder(self.folder)
                if failpoint.ARMED:
                    failpoint.hit(Failpoint.DISCARD_SYNCED)
        except OSError as error:
            raise JournalFailed(f"{self.folder}: segments cannot be discarded: {error}") from error
        return freed

    def close(self) -> None:
        """Give back descriptors and mapped memory. Reading again opens them again."""
        self._leave_view()
        self._watermark.close()
        self._idle = None

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, after: Position, end: DurableEnd | None, records_max: int, bytes_max: int) -> list[Record]:
        """Go through the segments from `after` on until one gives records. Each step goes forward, so it ends."""
        expected = self._expected[1] if after == self._expected[0] and after != BEGINNING else None
        number, offset = after.segment, after.offset
        while True:
            view = self._open_view(number, end)
            if view is None:
                return []
            if view.number != number or offset < SEGMENT_HEADER_BYTES:
                assert view.header is not None
                expected = self._check_join(view.header, expected)
                number, offset = view.number, SEGMENT_HEADER_BYTES
            limit = self._limit(view, end)
            while offset < limit.offset:
                piece = view.read(offset, limit.offset, expected, limit.sequence, records_max, bytes_max)
                if piece.damage is not None and not self._is_tail(view, piece.damage, limit):
                    self._meet(piece.damage, view)
                if piece.records:
                    return piece.records
                offset, expected = piece.offset, limit.sequence
            if not limit.sealed:
                return []
            number += 1
            offset = 0

    def _open_view(self, number: int, end: DurableEnd | None) -> SegmentView | None:
        """The first good segment numbered `number` or higher that may be read; None if there is none yet."""
        if self._view is not None and self._view.number == number:
            return self._view
        self._leave_view()
        numbers = segment_numbers(self.folder)
        # Without a watermark only what has a successor is known to be sealed.
        last = end.segment if end is not None else (numbers[-2] if len(numbers) > 1 else -1)
        for candidate in numbers:
            if number <= candidate <= last:
                view = self._try_view(candidate)
                if view is not None:
                    self._view = view
                    return view
        return None

    def _try_view(self, number: int) -> SegmentView | None:
        """A view of a segment; None if it has gone, or is no segment of this journal, which is reported."""
        try:
            view = SegmentView(self.folder, number, self._disk)
        except FileNotFoundError:
            return None
        reason = view.belongs_to(self._id_bytes)
        if reason is None:
            return view
        self._meet(Damage(number, 0, view.size, None, reason), None)
        view.close()
        return None

    def _leave_view(self) -> None:
        if self._view is not None:
            self._view.close()
        self._view = self._sealed_limit = None

    def _limit(self, view: SegmentView, end: DurableEnd | None) -> Limit:
        """Where the durable records of the viewed segment end at present."""
        if end is not None and end.segment == view.number:
            return Limit(end.offset, end.sequence, False)
        if self._sealed_limit is None:
            self._sealed_limit = self._limit_by_successor(view)
        return self._sealed_limit

    def _limit_by_successor(self, view: SegmentView) -> Limit:
        """The end of a sealed segment, as the next one's header says; the file's if that one cannot be read."""
        for number in segment_numbers(self.folder):
            if number <= view.number:
                continue
            successor = self._header(number)
            if successor is None:
                continue
            if successor.previous == view.number:
                return Limit(successor.previous_end, successor.first_sequence, True)
            if successor.previous < view.number:
                # The writer went on as if this one had never been made: nothing in it was acknowledged.
                return Limit(SEGMENT_HEADER_BYTES, None, True)
            break
        return Limit(view.size, None, True)

    def _header(self, number: int) -> SegmentHeader | None:
        try:
            view = SegmentView(self.folder, number, self._disk)
        except FileNotFoundError:
            return None
        view.close()
        return view.header if view.belongs_to(self._id_bytes) is None else None

    def _check_join(self, header: SegmentHeader, expected: int | None) -> int:
        """Report records that should lie between where reading was and this segment; gives its first sequence."""
        if expected is not None and header.first_sequence > expected:
            lost = header.first_sequence - expected
            reason = f"records {expected} to {header.first_sequence - 1} are in no segment"
            self._meet(Damage(header.number, 0, 0, lost, reason), None)
        return header.first_sequence

    def _is_tail(self, view: SegmentView, damage: Damage, limit: Limit) -> bool:
        """True for the zeros behind the records of a segment whose end nothing else tells."""
        if limit.sequence is not None or damage.offset + damage.length != limit.offset:
            return False
        return not view.bytes_at(damage.offset, damage.length).strip(b"\0")

    def _meet(self, damage: Damage, view: SegmentView | None) -> None:
        """Keep a copy of damaged bytes and report them, the first time they are met."""
        if (damage.segment, damage.offset) in self._met or len(self.damage) >= DAMAGE_KEPT_MAX:
            return
        self._met.add((damage.segment, damage.offset))
        if self._looking_on:
            self.damage.append(damage)
            return
        data = view.bytes_at(damage.offset, damage.length) if view is not None else b""
        self.damage.append(keep(self.folder, damage, data, self._disk))

    def _discardable(self, before: Position) -> list[int]:
        """Numbers of the segments wholly before `before`, ascending, so that a power loss leaves no gap."""
        numbers = segment_numbers(self.folder)
        end = self._watermark.decode(self._watermark.raw())
        present = end.segment if end is not None else 0
        numbers = [number for number in numbers[:-1] if number < present] if end is not None else numbers[:-1]
        chosen = [number for number in numbers if number < before.segment]
        if before.segment in numbers and self._ends_by(before):
            chosen.append(before.segment)
        return chosen

    def _ends_by(self, before: Position) -> bool:
        view = self._try_view(before.segment)
        if view is None:
            return False
        try:
            return self._limit_by_successor(view).offset <= before.offset
        finally:
            view.close()
