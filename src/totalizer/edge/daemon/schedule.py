"""Running the daemon's jobs at their intervals, in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.edge.daemon.needs import need

#: Seconds between two looks whether the clock was set back.
GUARD_S = 5.0
#: How much later than an interval from now a run may be planned before that is put down to the clock.
_SLACK = timedelta(seconds=2)


class Job(NamedTuple):
    """Something done again and again.

    Attributes:
        name: what it is called in the log.
        every_ms: from one start to the next, milliseconds.
        run: does it once; in a `Schedule` it must not raise.
        first_ms: when the first run begins after the start, milliseconds.
    """

    name: str
    every_ms: int
    run: Callable[[], object]
    first_ms: int = 0


class Schedule:
    """A scheduler with a few jobs: each is begun at its interval, never twice at the same time.

    Runs that were missed, since an earlier one took long or the machine slept, are made up for by one. The scheduler
    plans by the wall clock; a thread of ours moves its plans when that is set back, which would keep it still until the
    clock is where it was.

    Args:
        jobs: what to run.
        guard_s: seconds between two looks at the clock.

    Raises:
        ConfigurationError: APScheduler is not installed.
    """

    def __init__(self, jobs: Sequence[Job], guard_s: float = GUARD_S) -> None:
        self._guard_s, self._stopping = guard_s, threading.Event()
        self._workers = {job.name: _Worker(job, self._stopping) for job in jobs}
        # What it runs only rings a worker's bell, so that it may do that in its own thread. Its pools of threads would
        # hold up the end of the program until a job is through.
        executor = need("apscheduler.executors.debug").DebugExecutor()
        scheduler = need("apscheduler.schedulers.background").BackgroundScheduler
        self._scheduler: Any = scheduler(timezone=UTC, executors={"default": executor})
        self._guard = threading.Thread(target=self._watch_clock, name="totalizer clock guard", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        for name, worker in self._workers.items():
            first = _now() + timedelta(milliseconds=worker.job.first_ms)
            self._scheduler.add_job(
                worker.ring, "interval", seconds=worker.job.every_ms / 1000, id=name, name=name, next_run_time=first,
                coalesce=True, misfire_grace_time=None,
            )  # fmt: skip
            worker.start()
        self._guard.start()
        self._scheduler.start()

    def stop(self) -> None:
        """End, and wait for jobs that run, unless one of them is the caller. Nothing happens the second time."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._scheduler.shutdown()
        for worker in self._workers.values():
            worker.ring()
        for thread in (self._guard, *self._workers.values()):
            if thread is not threading.current_thread():
                thread.join()

    def catch_up(self) -> None:
        """Plan at once what is planned for later than an interval from now."""
        for planned in self._scheduler.get_jobs():
            job = self._workers[planned.id].job
            latest = _now() + timedelta(milliseconds=max(job.every_ms, job.first_ms)) + _SLACK
            if planned.next_run_time is not None and planned.next_run_time > latest:
                planned.modify(next_run_time=_now())

    def _watch_clock(self) -> None:
        while not self._stopping.wait(self._guard_s):
            if self._scheduler.running:
                self.catch_up()


class _Worker(threading.Thread):
    """Runs one job each time its bell was rung; rings while it runs count as one."""

    def __init__(self, job: Job, stopping: threading.Event) -> None:
        super().__init__(name=f"totalizer {job.name}", daemon=True)
        self.job, self._stopping, self._bell = job, stopping, threading.Event()

    def ring(self) -> None:
        """Have the job run."""
        self._bell.set()

    def run(self) -> None:
        """Until the schedule stops."""
        while self._bell.wait() and not self._stopping.is_set():
            self._bell.clear()
            self.job.run()


def _now() -> datetime:
    """The scheduler reads this clock, whatever clock others were given."""
    return utc_datetime(SYSTEM_CLOCK.now_ns())
