"""The usage aggregation: what counters and events say of a day, moved into the table that bills are made from."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import Any, Final

import psycopg
import redis
from psycopg import Connection

from totalizer.clock import SYSTEM_CLOCK, Clock, utc_datetime
from totalizer.errors import JobStopped, OperationError, StoreUnavailable
from totalizer.store import merchant_usage, usage_runs
from totalizer.store.connect import connect
from totalizer.store.usage_counters import Counters
from totalizer.store.usage_keys import pattern
from totalizer.telemetry import logger
from totalizer.usage.backoff import Retries
from totalizer.usage.outcome import Outcome
from totalizer.usage.rebuilding import rebuild
from totalizer.usage.result import AggregationResult, AggregationStatus, KeyFailure, RangeResult
from totalizer.usage.workers import Connections, Owners, PageWriter, Superseded

#: What the job is called in logs.
NAME: Final = "UsageAggregationJob"
#: Database connections that write at once, counters in one statement, attempts at what fails.
PARALLEL, PAGE_KEYS, ATTEMPTS = 4, 5000, 5
#: Days of one backfill.
RANGE_DAYS_MAX: Final = 3660

#: Told of each day of a backfill: (days done, days in all, the day's result).
Progress = Callable[[int, int, AggregationResult], None]


class UsageAggregationJob:
    """Aggregates usage by merchant, metric and UTC day into `merchant_usage`.

    Several processes may run it: a day is aggregated by one at a time. Any run may be killed or repeated at any point;
    values are only raised, up to what was tracked.

    Args:
        dsn: connection string of the refresher role.
        client: from `usage_counters.connect`; None to aggregate from the events alone.
        parallel: database connections that write at once.
        page_keys: counters in one statement.
        attempts: at everything that fails for want of a server.
        clock: time source.
        opened: makes the connections it works over, from any thread; default: by the connection string.
        check: raises JobStopped if it shall stop.
    """

    def __init__(
        self, dsn: str, client: redis.Redis | None, *, parallel: int = PARALLEL, page_keys: int = PAGE_KEYS,
        attempts: int = ATTEMPTS, clock: Clock = SYSTEM_CLOCK, opened: Callable[[], Connection[Any]] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._dsn, self._counters = dsn, None if client is None else Counters(client)
        self._parallel, self._page_keys, self._clock = parallel, page_keys, clock
        self._opened = opened or partial(connect, dsn, autocommit=True)
        self._retries = Retries(clock, attempts, check, self._warn)

    def run(self, date: date | None = None) -> AggregationResult:
        """Aggregate a day, yesterday by default. What goes wrong is in the result.

        Raises:
            JobStopped: it was told to stop; what it did until then is recorded, and stays.
        """
        day = date or self._today() - timedelta(days=1)
        return self._timed(day, partial(self._run, day))

    def aggregate_merchant(self, merchant_id: str, date: date | None = None) -> AggregationResult:
        """Aggregate a day of one merchant, in every organisation that has one of this id; yesterday by default."""
        day = date or self._today() - timedelta(days=1)
        return self._timed(day, partial(self._run_merchant, day, merchant_id))

    def aggregate_date_range(
        self, start_date: date, end_date: date, progress: Progress = lambda _done, _days, _result: None
    ) -> RangeResult:
        """Aggregate the days from `start_date` to `end_date`, both included, oldest first.

        Raises:
            OperationError: the range is empty or longer than RANGE_DAYS_MAX days.
        """
        days = (end_date - start_date).days + 1
        if not 0 < days <= RANGE_DAYS_MAX:
            raise OperationError(
                f"{start_date} to {end_date} are {max(days, 0)} days; give 1 to {RANGE_DAYS_MAX}, oldest first"
            )
        results = []
        for number in range(days):
            results.append(self.run(start_date + timedelta(days=number)))
            progress(number + 1, days, results[-1])
        return RangeResult(tuple(results))

    def get_aggregation_status(self, date: date | None = None) -> AggregationStatus:
        """What is known of a day, yesterday by default.

        Raises:
            StoreUnavailable: the database is away.
        """
        day = date or self._today() - timedelta(days=1)
        with connect(self._dsn) as connection:
            last = usage_runs.last_run(connection, day)
            behind = merchant_usage.behind(connection, day)
            records, merchants = merchant_usage.totals_of(connection, day)
            failed = tuple(KeyFailure(*row) for row in usage_runs.failures_of(connection, day))
            running = usage_runs.running(connection, day)
        status = AggregationStatus(day, False, running, records, merchants, behind, failed_keys=failed)
        if last is None:
            return status
        return replace(
            status, aggregated=last.finished_at is not None and last.error is None and not behind,
            started_at=last.started_at, finished_at=last.finished_at, duration_ms=last.duration_ms,
            error_count=last.errors, failures_in_a_row=last.failures_in_a_row, error=last.error,
        )  # fmt: skip

    def close(self) -> None:
        """Give the connections to Redis back."""
        if self._counters is not None:
            self._counters.close()

    def _today(self) -> date:
        return utc_datetime(self._clock.now_ns()).date()

    def _timed(self, day: date, work: Callable[[Outcome], None]) -> AggregationResult:
        """Do the work, and tell how it went."""
        outcome = Outcome(day, self._clock)
        try:
            work(outcome)
        except (psycopg.Error, StoreUnavailable, Superseded, JobStopped) as error:
            outcome.fail("", str(error).strip())
        if not outcome.kept:
            outcome.finish()
        self._record(outcome)
        self._retries.check()
        return outcome.result

    def _run(self, day: date, outcome: Outcome) -> None:
        control = self._retries(self._opened)
        with control, usage_runs.claimed(control, day, socket.gethostname()) as epoch:
            if epoch is None:
                outcome.note(skipped="another process is aggregating this day")
                logger().info("skipped", job=NAME, date=str(day), reason=outcome.result.skipped)
                return
            outcome.epoch = epoch
            logger().info("starting aggregation", job=NAME, date=str(day))
            with closing(Connections(self._opened)) as connections:
                connections.adopt(control)
                self._move_counters(day, outcome, connections, pattern(day.isoformat()))
                self._settle(day, outcome, connections, None)
                self._rebuild(day, outcome, connections)
            with suppress(psycopg.Error):  # a connection that is lost; another one records it
                outcome.keep(control)

    def _run_merchant(self, day: date, merchant_id: str, outcome: Outcome) -> None:
        logger().info("starting aggregation", job=NAME, date=str(day), merchant=merchant_id)
        with closing(Connections(self._opened)) as connections:
            self._move_counters(day, outcome, connections, pattern(day.isoformat(), merchant_id))
            self._settle(day, outcome, connections, merchant_id)

    def _move_counters(self, day: date, outcome: Outcome, connections: Connections, names: str) -> None:
        if self._counters is None:
            outcome.note(redis="not configured")
            return
        owners = Owners(*self._retries(lambda: merchant_usage.organizations(connections.get())))
        writer = PageWriter(day, outcome.epoch, self._counters, connections, owners, self._retries)
        with ThreadPoolExecutor(self._parallel, "usage") as pool:
            under_way: set[Future[Any]] = set()
            last: list[bytes] = []
            for keys in self._pages(outcome, names):
                outcome.note(keys_scanned=outcome.result.keys_scanned + len(keys))
                if last:
                    under_way.add(pool.submit(writer.write, last))
                last = keys
                if len(under_way) > 2 * self._parallel:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    outcome.add_pages(future.result() for future in done)
            # On this thread: opening a connection for the only page takes longer than writing it.
            outcome.add_pages([writer.write(last)] if last else [])
            outcome.add_pages(future.result() for future in under_way)
        logger().info("found usage keys to process", job=NAME, date=str(day), keys=outcome.result.keys_scanned)

    def _pages(self, outcome: Outcome, names: str) -> Iterator[list[bytes]]:
        """The counters' names, found by a cursor, in pages; none or fewer while Redis is away."""
        assert self._counters is not None
        cursor, found = 0, list[bytes]()
        while True:
            try:
                self._retries.check()
                cursor, keys = self._retries(partial(self._counters.scan, names, cursor))
            except StoreUnavailable as error:
                outcome.note(redis="away")
                logger().warning(
                    "the counters cannot be read; aggregating from the events", job=NAME, reason=str(error)
                )
                break
            found += keys
            while len(found) >= self._page_keys:
                yield found[: self._page_keys]
                del found[: self._page_keys]
            if cursor == 0:
                break
        if found:
            yield found

    def _settle(self, day: date, outcome: Outcome, connections: Connections, merchant_id: str | None) -> None:
        settled = self._retries(partial(self._settle_once, day, outcome, connections, merchant_id))
        outcome.note(records_settled=settled.records)
        for usage in settled.too_great:
            outcome.fail(f"{usage.merchant_id} {usage.metric_type}", f"{usage.value} is more than the table can hold")

    def _settle_once(
        self, day: date, outcome: Outcome, connections: Connections, merchant_id: str | None
    ) -> merchant_usage.Settled:
        connection = connections.get()
        with connection.transaction():
            if outcome.epoch is not None and not usage_runs.still_ours(connection, day, outcome.epoch):
                raise Superseded
            return merchant_usage.settle(connection, day, merchant_id)

    def _rebuild(self, day: date, outcome: Outcome, connections: Connections) -> None:
        """Today's counters are compared with the table, by each run for today and by any that finds them forgotten."""
        if self._counters is None or outcome.result.redis != "ok":
            return
        today = self._today()
        try:
            lost = not self._counters.whole()
            if lost:
                logger().warning("the counters have lost their memory, or are new; rebuilding today's", job=NAME)
                self._counters.begin_whole()
            if lost and day != today:
                self._retries(partial(self._settle_once, today, Outcome(today, self._clock), connections, None))
            if lost or day == today:
                raised = rebuild(self._counters, connections, today, self._retries.check)
                outcome.note(counters_rebuilt=raised)
                self._counters.note_whole()
        except StoreUnavailable as error:
            logger().warning("the counters could not be rebuilt; the next run tries again", job=NAME, reason=str(error))

    def _record(self, outcome: Outcome) -> None:
        """Keep what the run did, and say it."""
        if outcome.result.skipped is not None:
            return
        try:
            if not outcome.kept:
                with connect(self._dsn, autocommit=True) as connection:
                    outcome.keep(connection)
        except (psycopg.Error, StoreUnavailable) as error:
            logger().warning(
                "the run could not be recorded", job=NAME, date=str(outcome.result.date), reason=str(error).strip()
            )
        outcome.log(NAME)

    def _warn(self, error: Exception) -> None:
        logger().warning("trying again", job=NAME, reason=str(error).strip())
