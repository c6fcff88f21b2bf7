"""The way in: append from any thread or event loop, hear back when the record would survive a power loss."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import JournalFailed
from totalizer.journal.disk import DISK, Disk
from totalizer.journal.folder import FolderLock, check_folder, make_folder
from totalizer.journal.format import RECORD_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES
from totalizer.journal.pending import GROUP_BYTES_MAX, Pending
from totalizer.journal.recovery import Recovery, recover
from totalizer.journal.writer import OnCommit, Writer

#: The smallest segment and the smallest quota that leave room for records beside the headers, bytes.
SEGMENT_BYTES_MIN = 2 * SEGMENT_HEADER_BYTES
QUOTA_BYTES_MIN = 4 * SEGMENT_HEADER_BYTES


@dataclass(frozen=True)
class JournalStats:
    """Figures of one open journal; counts are since it was opened.

    Attributes:
        records: acknowledged.
        bytes: in the segments for these, payloads and record headers.
        syncs: successful groups; records / syncs is the mean size of a group.
        segments: files, as of the last look (at most a second ago while there is anything to discard).
        bytes_on_disk: taken by segments, as of the last look; the part of the quota in use.
        failures: system calls the disk refused.
        pending_bytes: accepted and not answered yet.
        refusal: why appends are refused at present with JournalFailed; None if they are accepted.
    """

    records: int
    bytes: int
    syncs: int
    segments: int
    bytes_on_disk: int
    failures: int
    pending_bytes: int
    refusal: str | None


class Journal:
    """Writer: one process, one folder. Make one with `Journal.open`; it is its own context manager.

    Attributes:
        folder: where it is.
        id: UUID of the journal, made with the folder; positions are good within one id.
        recovery: what opening it found and left.
    """

    def __init__(
        self, folder: Path, lock: FolderLock, recovery: Recovery, *, segment_bytes: int, quota_bytes: int,
        on_commit: OnCommit | None, clock: Clock, disk: Disk,
    ) -> None:  # fmt: skip
        self.folder, self.recovery = folder, recovery
        self.id = recovery.identity.id
        self._lock = lock
        self._pid = os.getpid()
        self._pending = Pending(
            min(GROUP_BYTES_MAX, segment_bytes - SEGMENT_HEADER_BYTES),
            # Beside it: the header of its segment, of the one before it, and of the one that lets it be
            # discarded.
            min(RECORD_BYTES_MAX, quota_bytes - 3 * SEGMENT_HEADER_BYTES - RECORD_HEADER_BYTES),
            quota_bytes,
        )
        self._writer = Writer(
            folder, recovery.identity.id_bytes, recovery.end, recovery.identity.floor, self._pending,
            segment_bytes=segment_bytes, quota_bytes=quota_bytes, on_commit=on_commit, clock=clock, disk=disk,
        )  # fmt: skip
        self._writer.start()
        _OPEN.add(self)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        segment_bytes: int,
        quota_bytes: int,
        on_commit: OnCommit | None = None,
        clock: Clock = SYSTEM_CLOCK,
        disk: Disk = DISK,
    ) -> Journal:
        """Make or adopt the journal in `folder`, put it in order, and start its writer thread.

        Blocks on the disk.

        Args:
            folder: made with its ancestors if missing, mode 0700.
            segment_bytes: size of a segment, reserved when it is begun; at least SEGMENT_BYTES_MIN.
            quota_bytes: what segments may take of the disk; at least QUOTA_BYTES_MIN. Above it appends are
                refused.
            on_commit: called in the writer thread, once a group, with the tokens of the group in the order of
                their appends, and None if they are durable or the error if they are not. Must not block.
            clock: for intervals and the segments' dates.
            disk: the system calls; tests pass one that fails.

        Raises:
            JournalBusy: another process, or this one, has it open.
            JournalFailed: the disk refuses, or the folder is not one to write into.
            ValueError: a size is too small.
        """
        if segment_bytes < SEGMENT_BYTES_MIN or quota_bytes < QUOTA_BYTES_MIN:
            raise ValueError(
                f"segment_bytes={segment_bytes} must be {SEGMENT_BYTES_MIN} or more,"
                f" quota_bytes={quota_bytes} {QUOTA_BYTES_MIN} or more"
            )
        try:
            make_folder(folder, disk)
            check_folder(folder)
            lock = FolderLock(folder)
            lock.acquire_for_writing(clock)
            try:
                return cls(
                    folder, lock, recover(folder, disk), segment_bytes=segment_bytes, quota_bytes=quota_bytes,
                    on_commit=on_commit, clock=clock, disk=disk,
                )  # fmt: skip
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise JournalFailed(f"the journal in {folder} cannot be opened: {error}") from error

    def append(self, payload: bytes, token: object) -> None:
        """Accept one record. Never blocks on the disk; for event loops and threads alike.

        Args:
            payload: at most RECORD_BYTES_MAX bytes, and less than the quota.
            token: given to `on_commit`, exactly once if this returns.

        Raises:
            JournalFull: the quota, or the bound on what waits for the disk, is reached. Nothing was accepted.
            JournalFailed: closed, opened before a fork, or the disk refuses at present. Nothing was accepted.
            ValueError: the payload is too long ever to be accepted.
        """
        self._pending.put(payload, token)

    def append_and_wait(self, payload: bytes, timeout_s: float | None = None) -> None:
        """Append one record and return when it would survive a power loss. Blocks; for threads.

        Args:
            payload: as in `append`.
            timeout_s: longest wait in seconds; None waits for the disk however long it takes.

        Raises:
            TimeoutError: not known to be durable in time. It may become so later.
            JournalFull, JournalFailed, ValueError: as in `append`; JournalFailed also if it was accepted but
                could not be made durable.
        """
        group = self._pending.put_and_hold(payload)
        gate = group.gate
        assert gate is not None
        if not gate.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise TimeoutError(f"the disk has not taken a record of {len(payload)} bytes within {timeout_s} s")
        # The writer opens the gate once; each thread that waits opens it for the next.
        gate.release()
        if group.error is not None:
            raise JournalFailed(str(group.error)) from group.error

    @property
    def records(self) -> int:
        """Records acknowledged since it was opened; as `stats().records`, for those who ask at every append."""
        return self._writer.records

    @property
    def next_sequence(self) -> int:
        """Number the next record to become durable gets; read in `on_commit`, the one behind the group's last."""
        return self._writer.next_sequence

    @property
    def bytes_on_disk(self) -> int:
        """As `stats().bytes_on_disk`, for those who ask at every append."""
        return self._writer.bytes_on_disk

    def stats(self) -> JournalStats:
        """Figures of this journal. Does not touch the disk."""
        writer = self._writer
        return JournalStats(
            writer.records, writer.bytes, writer.syncs, writer.segments, writer.bytes_on_disk, writer.failures,
            self._pending.size, self._pending.refusal,
        )  # fmt: skip

    def close(self, timeout_s: float = 10) -> None:
        """Make durable and answer what is pending, seal the segment, give the folder back; again, do nothing.

        Args:
            timeout_s: longest wait for the disk, seconds.

        Raises:
            JournalFailed: the disk has not finished in time. The folder stays locked while the writer is at
                it; call again to wait longer.
        """
        if self._pid != os.getpid():
            return
        self._pending.close()
        if not self._writer.join(timeout_s):
            raise JournalFailed(f"{self.folder}: the disk has not taken what is pending within {timeout_s} s")
        _OPEN.discard(self)
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forget(self) -> None:
        """In a forked child: this journal is the parent's. Refuse everything, hold none of its descriptors."""
        self._pending = Pending(0, RECORD_BYTES_MAX, 0)
        self._pending.refuse("the journal was opened before fork(); open one of this process' own")
        self._writer.forget()
        self._lock.forget()


#: The journals of this process, for `_forget_all`.
_OPEN: weakref.WeakSet[Journal] = weakref.WeakSet()


def _forget_all() -> None:
    for journal in list(_OPEN):
        journal._forget()
    _OPEN.clear()


os.register_at_fork(after_in_child=_forget_all)
