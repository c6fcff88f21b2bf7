"""Usage: the aggregation beside a loop of one key at a time, and how many records can be tracked in a second."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import Connection
from redis import Redis

from benchmarks.progress import note
from benchmarks.result import Result, more_is_better
from benchmarks.sending import send
from benchmarks.stack import Stack, fresh_stack
from benchmarks.workload import make_requests, write_requests
from totalizer.app import dsn_of, usage_tracker
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError
from totalizer.ops.state import read_state
from totalizer.settings import Settings, load_settings
from totalizer.store.connect import connect as connect_database
from totalizer.store.roles import Role
from totalizer.store.usage_counters import connect
from totalizer.usage.job import UsageAggregationJob

#: The first of the days whose counters are aggregated: a day for each round.
DAY = date(2025, 11, 1)
METRICS = ("queries", "tokens", "storage", "seats", "calls")
#: Counters written in one command while a round is prepared.
WRITE_KEYS = 10_000
LOOP = "one key at a time, each in a transaction"
LOOP_STATEMENT = """
INSERT INTO totalizer.merchant_usage (organization_id, merchant_id, date, metric_type, metric_value)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT (organization_id, date, merchant_id, metric_type)
DO UPDATE SET metric_value = excluded.metric_value, updated_at = now()"""


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        keys: counters of a round, for each case.
        rounds: of each case; one for the largest.
        loop_keys: counters that the loop of the same round does.
        tracks: records tracked in a round over HTTP, and in process by 16 threads; by one, a sixteenth.
    """

    keys: tuple[int, ...]
    rounds: int
    loop_keys: int
    tracks: int


FULL = Size(keys=(1000, 100_000, 1_000_000), rounds=3, loop_keys=1000, tracks=30_000)
QUICK = Size(keys=(1000, 100_000), rounds=2, loop_keys=500, tracks=6000)


def run(quick: bool) -> Iterator[Result]:
    """Every case, each as soon as it is known."""
    size = QUICK if quick else FULL
    with fresh_stack() as stack, tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name:
        settings = _settings(stack)
        days = (DAY + timedelta(days=number) for number in range(1000))
        with (
            closing(connect(str(settings.redis_url))) as redis,
            connect_database(dsn_of(settings, Role.REFRESHER), autocommit=True) as connection,
        ):
            bench = Aggregation(settings, redis, connection)
            for keys in size.keys:
                rounds = 1 if keys >= 1_000_000 else size.rounds
                done = [bench.round(next(days), keys, size.loop_keys) for _ in range(rounds)]
                yield more_is_better(
                    "usage", f"aggregation of {keys:,} counters", "keys/s", [each[0] for each in done], LOOP,
                    [each[1] for each in done],
                )  # fmt: skip
            yield from _in_process(settings, redis, size)
        yield from _over_http(stack, Path(name), size)


class Aggregation:
    """Rounds of the job and of the loop, on counters of days of their own.

    Args:
        settings: of the stack.
        redis: its counters.
        connection: as the refresher.
    """

    def __init__(self, settings: Settings, redis: Redis, connection: Connection[Any]) -> None:
        self._redis, self._connection = redis, connection
        self._job = UsageAggregationJob(dsn_of(settings, Role.REFRESHER), redis)
        self._redis.flushall()
        self._job.run(DAY - timedelta(days=1))  # the first run on an empty server rebuilds the counters of today
        row = connection.execute("SELECT totalizer.default_organization()").fetchone()
        assert row is not None
        self._organization_id = row[0]

    def round(self, day: date, keys: int, loop_keys: int) -> tuple[float, float]:
        """Keys a second of the job, which does all, and of the loop, which does some of the same again.

        Raises:
            OperationError: the table does not have what the counters held.
        """
        values = {_key(day, number): number % 10_000 + 1 for number in range(keys)}
        names = list(values)
        for start in range(0, keys, WRITE_KEYS):
            self._redis.mset({name: values[name] for name in names[start : start + WRITE_KEYS]})
        result = self._job.run(day)
        self._check(day, keys, sum(values.values()))
        if not result.success:
            raise OperationError(f"the job failed: {result.errors}")
        looped = random.sample(names, min(loop_keys, keys))
        job, loop = keys / (result.duration_ms / 1000), len(looped) / self._loop(looped)
        for start in range(0, keys, WRITE_KEYS):
            self._redis.unlink(*names[start : start + WRITE_KEYS])
        note(f"{keys:,} counters: {job:,.0f}/s, {job * 60:,.0f} a minute; one at a time {loop:,.0f}/s")
        return job, loop

    def _loop(self, names: Sequence[str]) -> float:
        """Seconds that the loop takes for some counters of another day, whose rows are new as well."""
        started = SYSTEM_CLOCK.monotonic()
        for name in names:
            _, merchant, day, metric = name.split(":")
            value = self._redis.get(name)
            assert isinstance(value, bytes)
            with self._connection.transaction():
                self._connection.execute(
                    LOOP_STATEMENT, [self._organization_id, f"{merchant} loop", day, metric, int(value)]
                )
        return SYSTEM_CLOCK.monotonic() - started

    def _check(self, day: date, rows: int, total: int) -> None:
        found = self._connection.execute(
            "SELECT count(*), sum(metric_value) FROM totalizer.merchant_usage WHERE date = %s", [day]
        ).fetchone()
        if found != (rows, total):
            raise OperationError(f"{rows} counters of {total} in all were written, the table has {found}")


def _key(day: date, number: int) -> str:
    return f"usage:merchant_{number // len(METRICS):07}:{day}:{METRICS[number % len(METRICS)]}"


def _in_process(settings: Settings, redis: Redis, size: Size) -> Iterator[Result]:
    """Tracks a second from threads of this process, beside a counter that is only incremented."""
    with usage_tracker(settings=settings) as tracker:
        for threads in (1, 16):
            ours, bare = [], []
            for _ in range(size.rounds):
                count = size.tracks * threads // 16
                ours.append(_rate(lambda n: tracker.track(f"m{n % 50}", "queries"), threads, count))
                bare.append(_rate(lambda n: redis.incrby(f"bare:{n % 50}", 1), threads, count))
            case = f"track in process, {threads} thread{'s' * (threads > 1)}"
            yield more_is_better("usage", case, "records/s", ours, "INCRBY alone, nothing on disk", bare)


def _rate(call: Callable[[int], object], threads: int, count: int) -> float:
    def work() -> None:
        for number in range(count // threads):
            call(number)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    started = SYSTEM_CLOCK.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return count // threads * threads / (SYSTEM_CLOCK.monotonic() - started)


def _over_http(stack: Stack, folder: Path, size: Size) -> Iterator[Result]:
    """Tracks a second over HTTP, beside the same record sent as an event that no counter is told of."""
    records = [
        b'{"merchant_id":"m%d","metric_type":"queries","amount":1}' % (number % 50) for number in range(size.tracks)
    ]
    for path, name in (("/api/usage/track", "track"), ("/api/metrics/usage", "event")):
        write_requests(folder / name, make_requests(path, records, stack.port, stack.api_key()))
    ours, events = [], []
    for _ in range(size.rounds):
        ours.append(send(stack.port, 64, folder / "track").rate)
        events.append(send(stack.port, 64, folder / "event").rate)
    yield more_is_better("usage", "track over HTTP, 64 connections", "records/s", ours, "an event, not counted", events)


def _settings(stack: Stack) -> Settings:
    state = read_state(stack.home)
    assert state is not None
    found = stack.settings()
    return load_settings(
        TOTALIZER_HOME=found.home, DATABASE_URL=found.database_url, TOTALIZER_SECRET=found.secret,
        TOTALIZER_CATALOG="", REDIS_URL=state.redis_url,
    )  # fmt: skip
