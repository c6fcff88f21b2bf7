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
        self._jobs = {job.name: job for job in jobs}
        self._guard_s, self._stop = guard_s, threading.Event()
        executor = need("apscheduler.executors.pool").ThreadPoolExecutor(len(jobs))
        scheduler = need("apscheduler.schedulers.background").BackgroundScheduler
        self._scheduler: Any = scheduler(timezone=UTC, executors={"default": executor})
        self._guard = threading.Thread(target=self._watch_clock, name="totalizer-clock-guard", daemon=True)
        self._threads: set[int] = set()

    def start(self) -> None:
        """Begin. Returns at once."""
        for job in self._jobs.values():
            self._scheduler.add_job(
                self._run, "interval", args=[job], seconds=job.every_ms / 1000, id=job.name, name=job.name,
                next_run_time=_now() + timedelta(milliseconds=job.first_ms), max_instances=1, coalesce=True,
                misfire_grace_time=None,
            )  # fmt: skip
        # Paused, so that a job which stops everything finds everything begun.
        self._scheduler.start(paused=True)
        self._guard.start()
        self._scheduler.resume()

    def stop(self) -> None:
        """End, and wait for jobs that run, unless one of them is the caller. Nothing happens the second time."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._scheduler.shutdown(wait=threading.get_ident() not in self._threads)
        self._guard.join()

    def catch_up(self) -> None:
        """Plan at once what is planned for later than an interval from now."""
        for planned in self._scheduler.get_jobs():
            every = timedelta(milliseconds=self._jobs[planned.id].every_ms)
            if planned.next_run_time is not None and planned.next_run_time > _now() + every + _SLACK:
                planned.modify(next_run_time=_now())

    def _watch_clock(self) -> None:
        while not self._stop.wait(self._guard_s):
            self.catch_up()

    def _run(self, job: Job) -> None:
        self._threads.add(threading.get_ident())
        try:
            job.run()
        finally:
            self._threads.discard(threading.get_ident())


def _now() -> datetime:
    """The scheduler reads this clock, whatever clock others were given."""
    return utc_datetime(SYSTEM_CLOCK.now_ns())
