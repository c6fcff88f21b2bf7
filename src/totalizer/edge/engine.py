"""What an aggregator has running in one process: its journal, its thread, what it shows to others."""

from __future__ import annotations

import logging
import threading

from totalizer.clock import Clock
from totalizer.edge.adopt import Adoption
from totalizer.edge.audit import Audit
from totalizer.edge.batch_flush import BatchFlush
from totalizer.edge.courier import Courier
from totalizer.edge.exit import at_exit, close_unowned, not_at_exit
from totalizer.edge.flusher import Flusher, Ticket
from totalizer.edge.folder import Folders
from totalizer.edge.log import EntryLog
from totalizer.edge.metrics import Metrics
from totalizer.edge.options import Options
from totalizer.edge.status import Report
from totalizer.errors import FlushError, JournalFailed, JournalFull

LOGGER = logging.getLogger("totalizer.edge")
#: Seconds between two looks for journals that dead processes have left.
ADOPT_INTERVAL_S = 30.0
#: Seconds between two looks whether there is room again.
_ROOM_POLL_S = 0.02


class Engine:
    """Runs from its making to `close`.

    Args:
        folders, options, courier, metrics, audit: of the aggregator.

    Raises:
        JournalFailed, JournalBusy: no journal can be opened.
    """

    def __init__(
        self, folders: Folders, options: Options, courier: Courier, metrics: Metrics, audit: Audit
    ) -> None:  # fmt: skip
        self._options, self._metrics, self._audit = options, metrics, audit
        self._clock: Clock = options.clock
        self.log = EntryLog.claim(folders, options)
        flush = BatchFlush(courier, options, metrics, audit)
        self._report = Report(folders, self.log.folder, metrics, self._clock)
        self._adoption = Adoption(folders, options, flush)
        self._adopt_at = self._clock.monotonic()
        self._stopping = threading.Event()
        self.flusher = Flusher(self.log, flush, self._look_around, options, metrics)
        if self.log.waiting:
            LOGGER.warning("%s: %d entries of an earlier process wait", self.log.folder, self.log.waiting)
            audit.record("resume", journal=self.log.folder.name, entries=self.log.waiting)
        self.flusher.start()
        at_exit(self, options)

    def append(self, payload: bytes) -> None:
        """Take one entry's record. JournalFull if there is no room in time, JournalFailed if the disk refuses."""
        try:
            self.log.append(payload)
        except JournalFull as full:
            self._append_when_there_is_room(payload, full)
        self.flusher.notice()

    def flush(self, trigger: str, timeout_s: float | None, *, hurry: bool = False) -> FlushError | None:
        """Flush what waits now, and wait for it; what went wrong, also if the time was too short."""
        try:
            self.log.sync()
        except JournalFailed as error:
            return self.flusher.kept(str(error))
        ticket = self.flusher.request(trigger, hurry=hurry)
        if not ticket.settled.wait(timeout_s):
            late = self.flusher.kept(f"they were not delivered within {timeout_s or 0.0:g} s")
            return _one([*ticket.errors, late])
        return _one(ticket.errors)

    def ask(self, trigger: str) -> Ticket:
        """Ask for a flush of what waits now, without waiting for it."""
        return self.flusher.request(trigger)

    def close(self, timeout_s: float | None) -> FlushError | None:
        """Flush, end the thread, give the journal back; what could not be delivered stays in it. What went wrong."""
        not_at_exit(self)
        deadline = None if timeout_s is None else self._clock.monotonic() + timeout_s
        failed = self.flush("shutdown", timeout_s, hurry=True) if timeout_s != 0 else None
        self._stopping.set()
        left_s = 10.0 if deadline is None else max(deadline - self._clock.monotonic(), 0.1)
        if not self.flusher.stop(left_s):
            LOGGER.warning("a delivery is still under way; its batch stays in the journal")
        self._tell()
        self._adoption.close()
        self._close_log()
        # Again, if entries were lost at the very end. Another process may have the journal by now, and its figures win.
        self._tell()
        return failed

    def close_unowned(self) -> None:
        """Nobody holds the aggregator any more: close in a thread, within `exit_timeout_ms`."""
        close_unowned(self)

    def forget(self) -> None:
        """In a forked child: leave everything to the parent."""
        self.log.forget()
        self._adoption.forget()

    def _close_log(self) -> None:
        try:
            self.log.close()
        except JournalFailed as error:
            LOGGER.error("%s", error)
        waiting = self.log.waiting
        if self.log.lost:
            LOGGER.error("%d entries never became durable: the disk refused them", self.log.lost)
        if waiting:
            LOGGER.warning("%d entries stay in %s; the next process delivers them", waiting, self.log.folder)
        self._audit.record("close", journal=self.log.folder.name, waiting=waiting, lost=self.log.lost)

    def _append_when_there_is_room(self, payload: bytes, full: JournalFull) -> None:
        deadline = self._clock.monotonic() + self._options.full_timeout_ms / 1000
        while True:
            self.flusher.want_room()
            if self._options.on_full == "raise" or self._clock.monotonic() >= deadline or self._stopping.is_set():
                raise full
            self._clock.sleep(_ROOM_POLL_S)
            try:
                self.log.append(payload)
            except JournalFull:
                continue
            return

    def _look_around(self) -> None:
        """In the flusher's thread, about once a second."""
        self._tell()
        if self._report.flush_requested():
            self.ask("manual")
        if self._adoption.has_work or self._clock.monotonic() >= self._adopt_at:
            self._adopt_at = self._clock.monotonic() + ADOPT_INTERVAL_S
            self._adoption.go_on(self._pause)

    def _tell(self) -> None:
        self._report.write(self.log.added, self.log.lost)

    def _pause(self, seconds: float) -> bool:
        return not self._stopping.wait(seconds)


def _one(errors: list[FlushError]) -> FlushError | None:
    """The first of the errors, with the sums of all."""
    if len(errors) < 2:
        return errors[0] if errors else None
    first = errors[0]
    return FlushError(
        f"{first} (and {len(errors) - 1} more)", batch_size=sum(error.batch_size for error in errors),
        retryable=any(error.retryable for error in errors), timestamp=first.timestamp,
    )  # fmt: skip
