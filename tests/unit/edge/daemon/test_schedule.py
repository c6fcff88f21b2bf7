"""The daemon's jobs at their intervals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from support import wait_until
from totalizer.edge.daemon.schedule import Job, Schedule, _now

Make = Callable[..., Schedule]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Schedule] = []

    def schedule(*jobs: Job, guard_s: float = 60.0) -> Schedule:
        made.append(Schedule(jobs, guard_s))
        return made[-1]

    yield schedule
    for one in made:
        one.stop()


def test_jobs_run_again_and_again_and_not_after_the_end(make: Make) -> None:
    runs: list[str] = []
    schedule = make(Job("fast", 20, lambda: runs.append("fast")), Job("rare", 3_600_000, lambda: runs.append("rare")))
    schedule.start()
    wait_until(lambda: runs.count("fast") > 3, "the fourth run")
    schedule.stop()
    seen = list(runs)
    assert seen.count("rare") == 1
    threading.Event().wait(0.1)
    assert runs == seen


def test_a_first_run_may_be_later(make: Make) -> None:
    runs: list[str] = []
    schedule = make(
        Job("now", 3_600_000, lambda: runs.append("now")), Job("late", 10, lambda: runs.append("late"), 60_000)
    )
    schedule.start()
    wait_until(lambda: runs == ["now"], "the first run")


def test_a_job_never_runs_twice_at_once(make: Make) -> None:
    running, most, ended = 0, 0, threading.Event()

    def slow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        ended.wait(0.05)
        running -= 1

    others: list[int] = []
    schedule = make(Job("slow", 5, slow), Job("other", 5, lambda: others.append(1)))
    schedule.start()
    wait_until(lambda: len(others) > 20, "others beside it")
    schedule.stop()
    assert (most, running) == (1, 0)


def test_the_end_waits_for_a_job_that_runs(make: Make) -> None:
    begun, done = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        threading.Event().wait(0.2)
        done.set()

    schedule = make(Job("slow", 10_000, slow))
    schedule.start()
    assert begun.wait(60)
    schedule.stop()
    assert done.is_set()


def test_a_job_may_end_it(make: Make) -> None:
    ended = threading.Event()

    def end() -> None:
        schedule.stop()
        ended.set()

    schedule = make(Job("last", 10_000, end))
    schedule.start()
    assert ended.wait(60)


@pytest.mark.parametrize("guarded", [False, True])
def test_a_clock_that_was_set_back_does_not_keep_it_still(make: Make, guarded: bool) -> None:
    """Then every job is planned for a time that lies far in the future; here they are put there by hand."""
    runs: list[int] = []
    schedule = make(Job("job", 3_000, lambda: runs.append(1)), guard_s=0.02 if guarded else 60.0)
    schedule.start()
    wait_until(lambda: len(runs) == 1, "the first run")
    schedule._scheduler.modify_job("job", next_run_time=_now() + timedelta(days=1))
    if not guarded:
        schedule.catch_up()
    wait_until(lambda: len(runs) > 1, "the second run")
    before = schedule._scheduler.get_job("job").next_run_time
    schedule.catch_up()
    assert schedule._scheduler.get_job("job").next_run_time == before, "a plan that is right stays"
