"""Runs of jobs: one at a time, each moment once, held to their limits, recorded whatever becomes of them."""

from __future__ import annotations

import time
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from scheduled import LONG_AGO, job, runs_of, settings_of
from support import wait_until
from totalizer.errors import JobStopped, StoreUnavailable
from totalizer.jobs.due import ATTEMPTS_MAX, due, find_lost
from totalizer.jobs.job import Context, PartlyDone
from totalizer.jobs.look import Wanted
from totalizer.jobs.run import Runner
from totalizer.jobs.schedule import Cron, Every
from totalizer.jobs.scheduler import Scheduler
from totalizer.store import runs
from totalizer.store.roles import Role


@pytest.fixture
def runner(database: Any) -> Runner:
    return Runner(settings_of(database), "test")


@pytest.fixture
def reader(database: Any) -> Any:
    return database.connect(Role.REFRESHER)


def nothing(context: Context) -> dict[str, Any]:
    return {"rows": 7}


def fails(context: Context) -> dict[str, Any]:
    raise RuntimeError("the disk is made of cheese")


def test_a_run_is_recorded_with_all_that_is_known(database: Any, runner: Runner) -> None:
    outcome = runner.run_now(job(nothing, arguments={"day": "any"}), {"day": "2026-01-09"})
    [(number, state, rows, result, host, name, attempt, arguments, ended)] = runs_of(
        database, "probe", "id, state, rows, result, host, runner, attempt, arguments, finished_at >= started_at"
    )
    assert (number, state, rows, result) == (outcome.run_id, "done", 7, {"rows": 7})
    assert host
    assert (name, attempt, arguments, ended) == ("test", 1, {"day": "2026-01-09"}, True)


def test_what_a_body_raises_is_recorded_and_ends_nothing_else(database: Any, runner: Runner) -> None:
    outcome = runner.run_now(job(fails))
    assert (outcome.state, outcome.error) == ("failed", "the disk is made of cheese")
    assert runs_of(database, "probe", "state, error") == [("failed", "the disk is made of cheese")]
    assert runner.run_now(job(nothing)).state == "done"


def test_what_was_done_in_part_failed_and_its_result_is_kept(database: Any, runner: Runner) -> None:
    def does_some(context: Context) -> dict[str, Any]:
        raise PartlyDone("1 of 8 failed", {"rows": 7, "alerts": ["errors"]})

    outcome = runner.run_now(job(does_some))
    assert (outcome.state, outcome.error, outcome.result) == (
        "failed", "1 of 8 failed", {"rows": 7, "alerts": ["errors"]},
    )  # fmt: skip
    assert runs_of(database, "probe", "state, error, rows, result") == [
        ("failed", "1 of 8 failed", 7, {"rows": 7, "alerts": ["errors"]})
    ]


def test_a_moment_is_kept_once_by_whoever_comes_first(database: Any, runner: Runner) -> None:
    probe = job(nothing)
    assert runner.run_due(probe).state == "done"
    assert runner.run_due(probe).state == "not_due"
    assert Runner(settings_of(database), "another").run_due(probe).state == "not_due"
    assert runs_of(database, "probe") == [("done",)]


def test_only_one_runs_a_job_at_a_time(database: Any, runner: Runner) -> None:
    began, go = Event(), Event()

    def waits(context: Context) -> dict[str, Any]:
        began.set()
        assert go.wait(30)
        return {}

    thread = Thread(target=runner.run_now, args=(job(waits),))
    thread.start()
    assert began.wait(30)
    assert Runner(settings_of(database), "another").run_now(job(nothing)).state == "busy"
    go.set()
    thread.join()
    assert runs_of(database, "probe") == [("done",)]


def test_many_that_come_at_once_do_a_moment_once(database: Any) -> None:
    done: list[str] = []
    start = Event()

    def come() -> None:
        start.wait()
        done.append(Runner(settings_of(database), "test").run_due(job(nothing)).state)

    threads = [Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.set()
    for thread in threads:
        thread.join()
    assert done.count("done") == 1
    assert set(done) <= {"done", "busy", "not_due"}
    assert runs_of(database, "probe") == [("done",)]


def test_a_job_that_is_switched_off_runs_by_hand_only(database: Any, runner: Runner) -> None:
    off = job(nothing, enabled=False)
    assert runner.run_due(off).state == "disabled"
    assert runner.run_now(off).state == "done"


#  moments   ●────●────●────●────●──now      Missed ones are made up for by one run, for the last of them.
#  runs     done                  run
def test_what_was_missed_is_made_up_for_once(database: Any, runner: Runner, reader: Any) -> None:
    seen: list[Any] = []

    def notes(context: Context) -> dict[str, Any]:
        seen.append((context.done_for, context.scheduled_for))
        return {}

    probe = job(notes, schedule=Cron(0, 1))
    now = runs.database_now(reader)
    last = probe.schedule.before(now) - timedelta(days=5)  # type: ignore[union-attr]
    database.connect().execute(
        "INSERT INTO totalizer.job_runs (job, state, scheduled_for, started_at, finished_at) "
        "VALUES ('probe', 'done', %(at)s, %(at)s, %(at)s)",
        {"at": last},
    )
    assert runner.run_due(probe).state == "done"
    assert runner.run_due(probe).state == "not_due"
    assert seen == [(last, probe.schedule.before(now))]  # type: ignore[union-attr]


def test_moments_before_a_job_was_known_were_not_missed(database: Any, runner: Runner, reader: Any) -> None:
    probe = job(nothing, schedule=Cron(0, 1))
    runs.announce(reader, [probe.known(runs.database_now(reader))])
    assert runner.run_due(probe).state == "not_due"
    database.connect().execute("UPDATE totalizer.jobs SET known_since = %s", [LONG_AGO])
    assert runner.run_due(probe).state == "done"


def test_what_failed_is_tried_again_after_growing_pauses_and_not_for_ever(
    database: Any, runner: Runner, reader: Any
) -> None:
    probe = job(fails)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        assert runner.run_due(probe).state == "failed"
        assert runner.run_due(probe).state == "not_due", "the pause is not over"
        database.connect().execute(
            "UPDATE totalizer.job_runs SET finished_at = finished_at - make_interval(secs => %s)",
            [29 * 2 ** (attempt - 1)],
        )
        assert due(reader, probe) is None
        database.connect().execute("UPDATE totalizer.job_runs SET finished_at = finished_at - interval '2 min'")
    assert due(reader, probe) is None, "the last attempt has failed"
    assert runs_of(database, "probe", "attempt") == [(1,), (2,), (3,)]


def test_a_run_past_its_time_is_told_to_stop_and_its_statement_is_cancelled(database: Any, runner: Runner) -> None:
    def sleeps(context: Context) -> dict[str, Any]:
        context.connection.execute("SELECT pg_sleep(60)")
        return {}

    outcome = runner.run_now(job(sleeps, limit_s=12 / 11))
    assert outcome.state == "timed_out"
    assert outcome.error == "it took longer than 1 s"
    assert runs_of(database, "probe") == [("timed_out",)]
    assert runner.run_due(job(nothing)).state == "done", "the lock is free"


def test_a_run_past_its_time_between_two_statements_is_stopped_too(database: Any, runner: Runner) -> None:
    def loops(context: Context) -> dict[str, Any]:
        while True:
            context.check()
            time.sleep(0.01)

    assert runner.run_now(job(loops, limit_s=0.5)).state == "timed_out"


def test_a_run_that_does_not_stop_loses_its_connections(database: Any, runner: Runner, reader: Any) -> None:
    seen = []

    def stubborn(context: Context) -> dict[str, Any]:
        other = context.open(Role.WRITER)
        while not other.closed and not context.connection.closed:
            try:
                context.connection.execute("SELECT pg_sleep(60)")
            except psycopg.errors.QueryCanceled:
                seen.append("told")
            except psycopg.OperationalError:
                break
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")
        with pytest.raises(JobStopped, match="its connections were ended"):
            context.open(Role.WRITER)
        seen.append("ended")
        time.sleep(0.5)
        return {}

    outcome = runner.run_now(job(stubborn, limit_s=1.5))
    assert seen[-1] == "ended"
    assert "told" in seen
    assert outcome.state == "timed_out", "whatever it says"
    [(state, error)] = runs_of(database, "probe", "state, error")
    assert (state, error) == ("timed_out", "it took longer than 1.5 s; its connections were ended")
    assert reader.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)'").fetchone() == (0,)


def test_a_run_whose_connection_was_ended_is_found_and_done_again(database: Any, runner: Runner, reader: Any) -> None:
    """As when its process is killed; but here it lives, and must not have the last word."""
    began, go = Event(), Event()

    def waits(context: Context) -> dict[str, Any]:
        began.set()
        assert go.wait(30)
        return {}

    thread = Thread(target=runner.run_due, args=(job(waits),))
    thread.start()
    assert began.wait(30)
    assert find_lost(reader) == [], "it is under way"
    administrator = database.connect()
    administrator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM "
        "pg_database WHERE datname = current_database())"
    )
    wait_until(lambda: find_lost(reader) == ["probe"], "the lock's end")
    assert runs_of(database, "probe") == [("lost",)]
    assert Runner(settings_of(database), "another").run_due(job(nothing)).state == "done"
    go.set()
    thread.join()
    assert runs_of(database, "probe", "state, attempt, runner") == [("lost", 1, "test"), ("done", 2, "another")]


def test_a_run_whose_connection_ends_under_it_is_lost_and_a_message_for_it_is_not_tried_for_ever(
    database: Any, runner: Runner
) -> None:
    def ends(context: Context) -> dict[str, Any]:
        pid = context.connection.info.backend_pid
        database.connect().execute("SELECT pg_terminate_backend(%s)", [pid])
        context.connection.execute("SELECT pg_sleep(60)")
        raise AssertionError("its connection was ended")

    outcomes = [runner.run_now(job(ends), ticket="message") for _ in range(ATTEMPTS_MAX + 1)]
    assert [outcome.state for outcome in outcomes] == ["lost"] * ATTEMPTS_MAX + ["failed"]
    assert outcomes[-1].error == "its process or its connection ended 3 times; not tried again"
    assert runs_of(database, "probe", "state, attempt") == [("lost", 1), ("lost", 2), ("lost", 3)]
    [(error,), *_] = runs_of(database, "probe", "error")
    assert "terminating connection" in error
    assert runner.run_now(job(nothing), ticket="another message").state == "done"


def test_a_request_is_one_until_it_is_taken_and_then_run_once(database: Any, runner: Runner, reader: Any) -> None:
    probe = job(nothing)
    runs.announce(reader, [probe.known(runs.database_now(reader))])
    app = database.connect(Role.APP)
    first, second = (app.execute("SELECT totalizer.request_job('probe')").fetchone() for _ in range(2))
    assert first == second
    assert app.execute("SELECT totalizer.request_job('nonsense')").fetchone() == (None,)
    [request] = runs.requested(reader)
    assert (request.job, (request.id,)) == ("probe", first)
    assert runner.run_now(probe, request_id=request.id).run_id == request.id
    assert runner.run_now(probe, request_id=request.id).state == "not_due"
    assert runs_of(database, "probe") == [("done",)]


def test_progress_is_in_the_record_while_it_runs(database: Any, runner: Runner) -> None:
    seen: list[Any] = []

    def counts(context: Context) -> dict[str, Any]:
        context.progress(1, 4)
        seen.extend(runs_of(database, "probe", "state, result"))
        return {}

    runner.run_now(job(counts))
    assert seen == [("running", {"done": 1, "of": 4})]


def test_readers_of_the_service_see_runs_but_not_what_they_said(database: Any, runner: Runner) -> None:
    runner.run_now(job(nothing))
    app = database.connect(Role.APP)
    assert app.execute("SELECT job, state FROM totalizer.job_runs").fetchall() == [("probe", "done")]
    for column in ("result", "error", "host", "arguments"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(f"SELECT {column} FROM totalizer.job_runs")


def test_a_database_that_is_away_is_told_to_who_asks(database: Any) -> None:
    settings = settings_of(database).model_copy(update={"database_url": "postgresql://127.0.0.1:1/none"})
    with pytest.raises(StoreUnavailable):
        Runner(settings, "test").run_now(job(nothing))


class Scheduled:
    """A scheduler on a thread of the test's own process."""

    def __init__(self, database: Any, **jobs: Any) -> None:
        self.stop = Event()
        self.scheduler = Scheduler(settings_of(database, TOTALIZER_JOB_LOOK_MS=100), jobs)
        self.thread = Thread(target=self.scheduler.run, args=(self.stop,))

    def __enter__(self) -> Scheduled:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_a_job_past_its_limit_does_not_keep_the_others(database: Any) -> None:
    def sleeps(context: Context) -> dict[str, Any]:
        context.connection.execute("SELECT pg_sleep(60)")
        return {}

    slow = job(sleeps, limit_s=1.2, schedule=Every(timedelta(days=300)))
    quick = job(nothing, schedule=Every(timedelta(milliseconds=200)))._replace(name="quick")
    with Scheduled(database, probe=slow, quick=quick):
        wait_until(lambda: runs_of(database, "probe") == [("timed_out",)], "the end of the slow one")
        wait_until(lambda: len(runs_of(database, "quick")) > 4, "the quick one's runs")
    assert {state for (state,) in runs_of(database, "quick")} == {"done"}
    moments = runs_of(database, "quick", "scheduled_for")
    assert len(set(moments)) == len(moments), "each moment once"


def test_a_look_that_finds_work_while_the_scheduler_stops_does_not_keep_it(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduled = Scheduled(database, probe=job(nothing))

    def find_late() -> list[Wanted]:
        scheduled.stop.set()
        time.sleep(0.3)  # meanwhile who waits for the stop begins to end everything
        return [Wanted(job(nothing))]

    monkeypatch.setattr(scheduled.scheduler._look, "now", find_late)
    with scheduled:
        scheduled.thread.join(20)


def test_a_scheduler_that_stops_stops_what_takes_long_and_it_is_done_again(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totalizer.jobs.scheduler.STOP_S", 0.2)

    def sleeps(context: Context) -> dict[str, Any]:
        context.connection.execute("SELECT pg_sleep(60)")
        return {}

    with Scheduled(database, probe=job(sleeps)):
        wait_until(lambda: runs_of(database, "probe") == [("running",)], "its begin")
    [(state, error)] = runs_of(database, "probe", "state, error")
    assert (state, error) == ("failed", "the process that ran it was stopped")
