"""Keeping rollups up: a backfill beside plain statements, buckets dirtied at random, and the lag while events come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC

import psycopg

from benchmarks.progress import note
from benchmarks.result import Result, less_is_better, more_is_better
from benchmarks.rollup_data import Books, books
from totalizer.catalog.levels import BASE, LEVELS, MINUTE
from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.errors import OperationError
from totalizer.rollup.refresh import refresh

BENCH = "rollup"
GRAINS = tuple(level for level in LEVELS if level is not MINUTE)
#: Commits a second while the lag is measured, and events of each.
COMMITS_A_SECOND, COMMIT_EVENTS = 10, 200
#: Seconds between two looks for marks, as the server has it unless set otherwise.
PAUSE = 0.25

_COMMIT = """
    WITH stored AS (
        INSERT INTO events.calls (organization_id, called_at, id, received_at, caller, route, ms, cost)
        SELECT o.id, now() - random() * interval '10 minutes' - (random() < 0.02)::int * interval '5 days',
               gen_random_uuid(), now(), 'c', 'r' || n % 5, n, n
        FROM generate_series(1, {events}) AS n
        JOIN (SELECT id, row_number() OVER (ORDER BY random()) AS place FROM totalizer.organizations) AS o
          ON o.place = 1 + n % 20
        RETURNING organization_id, called_at
    ) INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket)
    SELECT DISTINCT organization_id, 'calls', date_bin('15 minutes', called_at, 'epoch'::timestamptz) FROM stored"""


def run(quick: bool) -> Iterator[Result]:
    """All cases."""
    events, rounds = (100_000, 1) if quick else (1_000_000, 3)
    with books() as opened:
        # Ten events a bucket and two a row, in either size.
        opened.fill(events, days=events / 100_000)
        yield from _backfill(opened, events, rounds)
        yield _random(opened, 2_000 if quick else 20_000)
        yield _lag(opened, 10.0 if quick else 60.0)


def _backfill(opened: Books, events: int, rounds: int) -> Iterator[Result]:
    ours, base, all_grains = [], [], []
    for number in range(rounds):
        base.append(events / opened.plainly((BASE,)))
        all_grains.append(events / opened.plainly(GRAINS))
        opened.empty_rollup()
        ours.append(events / refreshed(opened)[1])
        _check(opened, events)
        note(f"backfill, round {number + 1} of {rounds}: {ours[-1]:,.0f}, plain {base[-1]:,.0f}, {all_grains[-1]:,.0f}")
    case = f"backfill of {events:,} events, all grains"
    yield more_is_better(BENCH, case, "events/s", ours, "INSERT … SELECT … GROUP BY a grain", all_grains)
    yield more_is_better(BENCH, case, "events/s", ours, "the same of 15 minutes alone", base)


def refreshed(opened: Books) -> tuple[int, float]:
    """Refresh until nothing is marked; how many buckets, and the seconds."""
    started, buckets = SYSTEM_CLOCK.monotonic(), 0
    while done := refresh(opened.refresher).buckets:
        buckets += done
    return buckets, SYSTEM_CLOCK.monotonic() - started


def _check(opened: Books, events: int) -> None:
    for level in GRAINS:
        counted = opened.value(f"SELECT sum(calls)::bigint FROM analytics.traffic_{level.suffix}")
        if counted != events:
            raise OperationError(f"{events} events are stored, and traffic_{level.suffix} counts {counted}")


def _random(opened: Books, count: int) -> Result:
    """Buckets of any organisation and time, all at once, beside one by one."""
    mark = (
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
        "SELECT organization_id, 'calls', bucket "
        "FROM (SELECT DISTINCT organization_id, bucket FROM analytics.traffic_15m) AS b ORDER BY random() LIMIT {count}"
    )
    opened.administrator.execute(mark.format(count=count).encode())
    buckets, seconds = refreshed(opened)
    singly = 0.0
    for _ in range(50):
        opened.administrator.execute(mark.format(count=1).encode())
        singly += refreshed(opened)[1]
    return more_is_better(
        BENCH,
        f"{buckets:,} buckets dirtied at random",
        "buckets/s",
        [buckets / seconds],
        "one at a time",
        [50 / singly],
    )


def _lag(opened: Books, seconds: float) -> Result:
    """From a commit until its rollups are committed, while events come; beside the pause between two looks."""
    today = utc_datetime(SYSTEM_CLOCK.now_ns()).astimezone(UTC).date()
    opened.administrator.execute(
        "SELECT totalizer.ensure_partition('calls', %s::date - n) FROM generate_series(-1, 6) AS n", [today]
    )
    done, looks = threading.Event(), list[tuple[float, float]]()

    def look() -> None:
        with psycopg.connect(opened.dsn, autocommit=True) as connection:
            while not done.is_set():
                started = SYSTEM_CLOCK.monotonic()
                refresh(connection)
                looks.append((started, SYSTEM_CLOCK.monotonic()))
                done.wait(PAUSE)
            looks.append((SYSTEM_CLOCK.monotonic(), 0.0))
            refresh(connection)
            looks[-1] = (looks[-1][0], SYSTEM_CLOCK.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        commits = _commit(opened, seconds)
    finally:
        done.set()
        thread.join()
    lags = sorted(next(ended for started, ended in looks if started >= at) - at for at in commits)
    p50, p99 = (lags[min(len(lags) - 1, int(len(lags) * share))] * 1000 for share in (0.5, 0.99))
    note(f"lag of {len(lags)} commits: p50 {p50:,.0f} ms, p99 {p99:,.0f} ms")
    case = f"lag p99 at {COMMITS_A_SECOND * COMMIT_EVENTS:,} events/s"
    return less_is_better(BENCH, case, "ms", [p99], "the pause between two looks", [PAUSE * 1000])


def _commit(opened: Books, seconds: float) -> list[float]:
    """When each commit was done."""
    commits: list[float] = []
    started = SYSTEM_CLOCK.monotonic()
    while (now := SYSTEM_CLOCK.monotonic()) < started + seconds:
        opened.administrator.execute(_COMMIT.format(events=COMMIT_EVENTS).encode())
        commits.append(SYSTEM_CLOCK.monotonic())
        SYSTEM_CLOCK.sleep(max(0.0, now + 1 / COMMITS_A_SECOND - commits[-1]))
    return commits
