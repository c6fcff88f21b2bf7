"""Journals of processes that are gone: whoever lives delivers what waits in them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.audit import audit
from totalizer.edge.batch_flush import BatchFlush
from totalizer.edge.courier import Courier
from totalizer.edge.folder import Folders
from totalizer.edge.log import EntryLog
from totalizer.edge.metrics import Counts, Metrics
from totalizer.edge.options import Options
from totalizer.edge.sinks.sink import Sink
from totalizer.edge.status import JournalStatus, Report, edge_journals, journal_status, owner_pid
from totalizer.errors import JournalBusy, JournalError, JournalFailed
from totalizer.journal import recover_idle
from totalizer.journal.watermark import WATERMARK_NAME

LOGGER = logging.getLogger("totalizer.edge")


@dataclass(frozen=True)
class Adopted:
    """What became of the journals of dead processes.

    Attributes:
        journals: how many had something waiting.
        delivered: entries that the target has taken.
        failed: entries that went to recovery, or were refused.
        waiting: entries that wait still.
        errors: why, in sentences.
    """

    journals: int
    delivered: int
    failed: int
    waiting: int
    errors: tuple[str, ...]


def idle_journals(folders: Folders) -> list[JournalStatus]:
    """The journals that no living process has and in which something waits; those that cannot be read too.

    Raises:
        JournalFailed: the folder cannot be listed.
    """
    found = []
    for folder in edge_journals(folders):
        status = idle_status(folder)
        if status is not None and (status.waiting or status.error):
            found.append(status)
    return found


def idle_status(folder: Path) -> JournalStatus | None:
    """A journal that no process has, put in order; None if one has it, or is just putting it in order."""
    if owner_pid(folder) is not None:
        return None
    try:
        if not recover_idle(folder):
            return None
    except JournalError as error:
        return JournalStatus(folder, None, 0, None, None, error=str(error))
    return journal_status(folder)


def adopt(
    folders: Folders, sink: Sink, *, due: Callable[[JournalStatus], bool] = lambda status: True,
    clock: Clock = SYSTEM_CLOCK, pause: Callable[[float], bool] | None = None,
) -> Adopted:  # fmt: skip
    """Deliver what waits in the journals of dead processes. Blocks until all is tried.

    Args:
        folders: of the journals.
        sink: where to; it is not closed.
        due: which journals to take; all by default.
        clock: for dates, and for pauses between attempts.
        pause: sleeps for so many seconds; False to end after the present attempt.

    Raises:
        JournalFailed: the folder of the journals cannot be listed.
    """
    options = Options(data_path=folders.data, sink=sink, clock=clock)
    courier, trail = Courier(sink, folders, clock, options.disk), audit(folders, "aggregation", clock)
    rest = pause or _sleeper(clock)
    journals, waiting, errors, counts = 0, 0, [], Counts()
    for status in idle_journals(folders):
        if status.error is not None:
            errors.append(status.error)
        elif due(status):
            journals += 1
            metrics = Metrics(options.target_time_ms, options.max_time_ms)
            # The journal's own figures go on where its process left them.
            report = Report(folders, status.folder, metrics, clock)
            left, problems = _drain(status.folder, options, BatchFlush(courier, options, metrics, trail), rest)
            report.write(added=0)
            waiting += left
            errors += problems
            counts += metrics.counts()
    return Adopted(journals, counts.delivered, counts.failed + counts.refused, waiting, tuple(errors))


def _sleeper(clock: Clock) -> Callable[[float], bool]:
    def sleep(seconds: float) -> bool:
        clock.sleep(seconds)
        return True

    return sleep


def _drain(
    folder: Path, options: Options, flush: BatchFlush, pause: Callable[[float], bool]
) -> tuple[int, list[str]]:  # fmt: skip
    """Flush all of a journal; what waits in it still, and why."""
    errors: list[str] = []
    try:
        log = EntryLog.open(folder, options)
    except JournalBusy:
        return 0, []
    except JournalError as error:
        return 0, [str(error)]
    try:
        while (flushed := flush.run(log, "adopted", pause)) is not None:
            errors += [str(flushed.error)] if flushed.error is not None else []
            if not flushed.entries or not pause(0):
                break
    except JournalError as error:
        errors.append(str(error))
    finally:
        left = log.waiting
        try:
            log.close()
        except JournalFailed as error:
            errors.append(str(error))
    return left, errors


class Adoption:
    """Adopts beside a process' own work, a batch at a time. For one thread.

    Args:
        folders: of the journals.
        options, flush: of the aggregator.
    """

    def __init__(self, folders: Folders, options: Options, flush: BatchFlush) -> None:
        self._folders, self._options, self._flush = folders, options, flush
        self._found: list[Path] = []
        self._log: EntryLog | None = None
        # Journals that had nothing waiting, by how far they were then: they need not be read again.
        self._empty: dict[Path, bytes] = {}

    @property
    def has_work(self) -> bool:
        """True if `go_on` has begun something."""
        return self._log is not None or bool(self._found)

    def go_on(self, pause: Callable[[float], bool]) -> None:
        """Flush one batch of a journal that was found, or look for some. Never raises for a journal."""
        try:
            if self._log is None and not self._open_next():
                self._found = self._look()
            elif self._log is not None:
                flushed = self._flush.run(self._log, "adopted", pause)
                if flushed is None or not flushed.entries:
                    self.close()
        except JournalError as error:
            LOGGER.error("a journal of a dead process cannot be adopted: %s", error)
            self.close()

    def close(self) -> None:
        """Give back what was begun."""
        log, self._log = self._log, None
        if log is not None:
            try:
                log.close()
            except JournalFailed as error:
                LOGGER.error("%s", error)

    def forget(self) -> None:
        """In a forked child: leave it to the parent."""
        if self._log is not None:
            self._log.forget()

    def _open_next(self) -> bool:
        if not self._found:
            return False
        folder = self._found.pop()
        try:
            self._log = EntryLog.open(folder, self._options)
        except JournalBusy:
            return True
        LOGGER.warning("%s: %d entries of a dead process are delivered now", folder, self._log.waiting)
        return True

    def _look(self) -> list[Path]:
        found = []
        for folder in edge_journals(self._folders):
            if owner_pid(folder) is not None or self._empty.get(folder) == (mark := _mark(folder)):
                continue
            status = idle_status(folder)
            if status is not None and status.waiting:
                found.append(folder)
            elif status is not None:
                self._empty[folder] = mark if status.error else _mark(folder)
        return found


def _mark(folder: Path) -> bytes:
    """How far a journal is: it changes with every record."""
    try:
        return (folder / WATERMARK_NAME).read_bytes()
    except OSError:
        return b""
