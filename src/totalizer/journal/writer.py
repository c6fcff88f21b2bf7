"""The one thread that writes: it takes a group, writes it, syncs it, says so, and never answers before that."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from totalizer import failpoint
from totalizer.clock import Clock
from totalizer.errors import JournalFailed
from totalizer.failpoint import Failpoint
from totalizer.journal.disk import Disk
from totalizer.journal.format import (
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_group,
    new_marker,
    segment_numbers,
    segment_path,
)
from totalizer.journal.pending import Group, Pending
from totalizer.journal.segment import Segment
from totalizer.journal.watermark import DurableEnd, Watermark

#: How often a group is written before it is refused, each time into a segment of its own.
COMMIT_TRIES_MAX = 2
#: Seconds between two tries to make a segment while the disk refuses.
PROBE_INTERVAL_S = 0.5
#: Seconds between two looks at what readers have discarded; the shorter one while appends are refused for the
#: quota.
_LOOK_INTERVAL_S, _LOOK_INTERVAL_FULL_S = 1.0, 0.02

OnCommit = Callable[[list[object], JournalFailed | None], None]


class Writer:
    """State and loop of the writer thread. After `start`, only that thread calls the rest.

    Args:
        end: where the journal ended when it was opened.
        floor: the highest segment number ever used in it.
    """

    def __init__(
        self, folder: Path, journal_id: bytes, end: DurableEnd, floor: int, pending: Pending, *, segment_bytes: int,
        quota_bytes: int, on_commit: OnCommit | None, clock: Clock, disk: Disk,
    ) -> None:  # fmt: skip
        self._folder, self._journal_id, self._pending = folder, journal_id, pending
        self._segment_bytes, self._quota_bytes = segment_bytes, quota_bytes
        self._on_commit, self._clock, self._disk = on_commit, clock, disk
        self._watermark = Watermark(folder, journal_id, disk)
        self._end, self._number = end, floor
        self._segment: Segment | None = None
        self._looked_at = self._probe_at = 0.0
        self._sealed_bytes = 0
        self.records = self.bytes = self.syncs = self.failures = self.segments = 0
        self._thread = threading.Thread(target=self._run, name=f"journal {folder.name}", daemon=True)

    def start(self) -> None:
        """Make the first segment, so that a disk that refuses shows here as OSError, and begin."""
        try:
            self._look()
            self._begin_segment(0)
            self._look()
        except BaseException:
            self.forget()
            raise
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; False if it has not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def bytes_on_disk(self) -> int:
        """Bytes the journal's records and headers take, as of the last look."""
        segment = self._segment
        return self._sealed_bytes + (segment.end if segment is not None else 0)

    @property
    def next_sequence(self) -> int:
        """Number of the record behind the last one that is durable."""
        return self._end.sequence

    def forget(self) -> None:
        """Close descriptors and leave the files alone: for a forked child, or a start that failed."""
        if self._segment is not None:
            self._segment.forget()
        self._watermark.close()

    def _run(self) -> None:
        group: Group | None = None
        try:
            while True:
                group = self._pending.take(self._nap_s())
                if group is not None:
                    self._answer(group, self._commit(group))
                    group = None
                elif self._pending.closed:
                    break
                self._keep_house()
            self._seal()
        except BaseException as error:
            self._give_up(group, f"the writer thread ended: {error!r}")
            raise
        finally:
            self._watermark.close()

    def _commit(self, group: Group) -> JournalFailed | None:
        """Write and sync one group; None when it is durable and readers can see it."""
        problem: OSError | None = None
        for _ in range(COMMIT_TRIES_MAX):
            try:
                segment = self._segment_for(group.size)
                segment.commit(encode_group(group.payloads, segment.marker, self._end.sequence))
                self._publish(segment.number, segment.end, self._end.sequence + len(group.payloads))
            except OSError as error:
                problem = error
                self.failures += 1
                self._abandon()
            else:
                self.syncs += 1
                self.records += len(group.payloads)
                self.bytes += group.size
                if failpoint.ARMED:
                    failpoint.hit(Failpoint.GROUP_PUBLISHED)
                return None
        return JournalFailed(f"{self._folder}: the disk refused: {problem}")

    def _answer(self, group: Group, error: JournalFailed | None) -> None:
        if error is None:
            self._pending.done(group)
            self._tell(group, None)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.GROUP_ANSWERED)
            return
        # Nothing may be accepted between the refusal and the answers, or nobody would answer it.
        refused = self._pending.refuse(str(error))
        self._probe_at = self._clock.monotonic() + PROBE_INTERVAL_S
        for each in (group, *refused):
            self._tell(each, error)

    def _tell(self, group: Group, error: JournalFailed | None) -> None:
        group.error = error
        if group.gate is not None:
            group.gate.release()
        if group.tokens and self._on_commit is not None:
            try:
                self._on_commit(group.tokens, error)
            except BaseException:  # noqa: BLE001 - the callback's fault is reported and must not stop others' answers
                kind, value, trace = sys.exc_info()
                assert kind is not None
                threading.excepthook(threading.ExceptHookArgs((kind, value, trace, self._thread)))

    def _give_up(self, group: Group | None, reason: str) -> None:
        """The thread ends unasked: whoever still waits is told that nothing was acknowledged."""
        self._abandon()
        waiting = self._pending.refuse(reason)
        for each in (group, *waiting):
            if each is not None:
                self._tell(each, JournalFailed(reason))

    def _segment_for(self, length: int) -> Segment:
        """The segment the next `length` bytes go into: the present one, or a new one if they do not fit."""
        if self._segment is None or not self._segment.fits(length):
            self._seal()
            return self._begin_segment(length)
        return self._segment

    def _begin_segment(self, length: int) -> Segment:
        """Make the next segment. Its number is used up even if that fails."""
        self._number += 1
        # A folder by the name of a segment, which somebody else has put there, is not written over.
        while os.path.isdir(path := segment_path(self._folder, self._number)) or os.path.isdir(f"{path}.new"):
            self._number += 1
        header = SegmentHeader(
            self._number, self._journal_id, new_marker(), self._end.sequence,
            self._end.segment, self._end.offset, self._clock.now_ns(),
        )  # fmt: skip
        room = self._quota_bytes - self._sealed_bytes
        size = max(SEGMENT_HEADER_BYTES + length, min(self._segment_bytes, room))
        self._segment = Segment.create(self._folder, header, size, self._disk)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.SEGMENT_BEGUN)
        self.segments += 1
        self._pending.spend(SEGMENT_HEADER_BYTES)
        self._publish(self._segment.number, self._segment.end, self._end.sequence)
        return self._segment

    def _seal(self) -> None:
        """End the present segment, if there is one. Its records are durable already, whatever happens here."""
        segment = self._segment
        if segment is not None:
            try:
                segment.seal()
            except OSError:
                self.failures += 1
            self._abandon()

    def _abandon(self) -> None:
        """Never touch the present segment again; what lies behind its durable end counts for nothing."""
        segment, self._segment = self._segment, None
        if segment is not None:
            if self._end.segment == segment.number:
                segment.end = self._end.offset  # a group that was synced and could not be published is refused
            left = segment.abandon()
            if failpoint.ARMED:
                failpoint.hit(Failpoint.SEGMENT_ENDED)
            self._sealed_bytes += left
            self._pending.spend(left - segment.end)
            self._end = DurableEnd(segment.number, segment.end, self._end.sequence, 1)
            # The next segment's header says it as well, and readers see no further in any case.
            with contextlib.suppress(OSError):
                self._watermark.publish(self._end)

    def _publish(self, number: int, offset: int, sequence: int) -> None:
        end = DurableEnd(number, offset, sequence, 0)
        self._watermark.publish(end)
        self._end = end

    def _nap_s(self) -> float:
        """Seconds the thread may sleep without missing something it has to look after; -1 for ever."""
        if self._pending.refusal is not None:
            return max(self._probe_at - self._clock.monotonic(), 0.0)
        if self._sealed_bytes or self._pending.short_of_room:
            return max(self._look_at() - self._clock.monotonic(), 0.0)
        return -1

    def _look_at(self) -> float:
        short = self._pending.short_of_room
        return self._looked_at + (_LOOK_INTERVAL_FULL_S if short else _LOOK_INTERVAL_S)

    def _keep_house(self) -> None:
        """Between groups: see what readers have discarded, and whether a disk that refused is back."""
        now = self._clock.monotonic()
        try:
            if self._pending.refusal is not None and now >= self._probe_at and not self._pending.closed:
                self._probe_at = now + PROBE_INTERVAL_S
                self._segment_for(0)
                self._pending.accept_again()
            if now >= self._look_at():
                self._look()
        except OSError:
            self.failures += 1

    def _look(self) -> None:
        """Count what is on the disk; if it is only the present segment and too much, let readers discard that too."""
        self._looked_at = self._clock.monotonic()
        self._sealed_bytes, self.segments = self._measure()
        short = self._pending.set_room(self._quota_bytes - self.bytes_on_disk)
        if short and not self._sealed_bytes and self._segment is not None and self._segment.end > SEGMENT_HEADER_BYTES:
            self._seal()
            self._begin_segment(0)

    def _measure(self) -> tuple[int, int]:
        """Bytes in segments other than the present one, and how many segments there are in all."""
        present = self._segment.number if self._segment is not None else -1
        numbers = segment_numbers(self._folder)
        total = 0
        for number in numbers:
            try:
                total += os.stat(segment_path(self._folder, number)).st_size if number != present else 0
            except FileNotFoundError:
                continue  # discarded while we looked
        return total, len(numbers)
