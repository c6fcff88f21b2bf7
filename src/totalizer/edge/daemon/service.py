"""The daemon's life: begun once, for one folder, in one process; ended with that process at the latest."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from totalizer.clock import Clock
from totalizer.edge.daemon.lock import FileLock, holder
from totalizer.edge.daemon.log import Log
from totalizer.edge.daemon.metrics import Counters
from totalizer.edge.daemon.schedule import Job, Schedule
from totalizer.errors import DaemonError

LOGGER = logging.getLogger("totalizer.edge.daemon")


class Service:
    """Runs jobs between `start` and `stop`, if no other process does so for the same folder.

    Args:
        lock_path: the file whose lock says who has the folder.
        counters: counts runs of jobs.
        clock: for the uptime.
        log: is told of jobs that raise.

    Attributes:
        stopping: set from the beginning of `stop` to its end: jobs end soon then.
        started_at: seconds of the monotonic clock.
    """

    def __init__(self, lock_path: Path, counters: Counters, clock: Clock, log: Log) -> None:
        self._path, self._lock = lock_path, FileLock(lock_path, clock)
        self._counters, self._clock, self._log = counters, clock, log
        self._mutex = threading.Lock()
        self._schedule: Schedule | None = None
        self.stopping, self.started_at = threading.Event(), 0.0

    @property
    def running(self) -> bool:
        """True between `start` and `stop`, in the process that started it."""
        return self._schedule is not None

    @property
    def uptime_ms(self) -> float:
        """Milliseconds since it was started; 0 if it is not running."""
        return 1000 * (self._clock.monotonic() - self.started_at) if self.running else 0.0

    def start(self, prepare: Callable[[], None], jobs: Sequence[Job]) -> None:
        """Take the folder and begin.

        Args:
            prepare: makes the folder.
            jobs: what to run.

        Raises:
            DaemonError: running already, here or in another process, or the disk refuses.
            ConfigurationError: a package is missing.
        """
        with self._mutex:
            if self._schedule is not None:
                raise DaemonError("the recovery daemon is running already, in this process")
            prepare()
            self._take_folder()
            try:
                schedule = Schedule([job._replace(run=self._safely(job)) for job in jobs])
                self.started_at = self._clock.monotonic()
                schedule.start()
            except BaseException:
                self._lock.release()
                raise
            self._schedule = schedule
            _RUNNING.add(self)
        self._log.info("daemon_started", folder=str(self._path.parent))

    def stop(self) -> None:
        """End, and wait for the jobs that run. Nothing happens if it is not running."""
        with self._mutex:
            schedule, self._schedule = self._schedule, None
        if schedule is None:
            return
        self.stopping.set()
        schedule.stop()
        self.stopping.clear()  # what is asked for by hand goes on working
        self._lock.release()
        _RUNNING.discard(self)
        self._log.info("daemon_stopped", **self._counters.recovery().to_document())

    def _take_folder(self) -> None:
        try:
            if self._lock.acquire():
                return
            pid = holder(self._path) or "?"
        except OSError as error:
            raise DaemonError(f"{self._path} cannot be locked: {error}") from error
        raise DaemonError(
            f"the recovery daemon of process {pid} works on {self._path.parent} already: stop it, or use another folder"
        )

    def _safely(self, job: Job) -> Callable[[], None]:
        """An error of a job is told, and the job has its next turn."""

        def run() -> None:
            try:
                job.run()
            except Exception as error:
                LOGGER.exception("the daemon's job %s failed; it has its next turn", job.name)
                self._log.failed(job.name, error)
            self._counters.task_executed()

        return run

    def _forget(self) -> None:
        """In a forked child: the threads are not here, and the mutex may have been held by one of them."""
        self._schedule, self._mutex, self.stopping = None, threading.Lock(), threading.Event()


_RUNNING: weakref.WeakSet[Service] = weakref.WeakSet()


def _forget_all() -> None:
    for service in list(_RUNNING):
        service._forget()
    _RUNNING.clear()


def _stop_all() -> None:
    for service in list(_RUNNING):
        service.stop()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_stop_all)
