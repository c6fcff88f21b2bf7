"""What a query may cost: windows, events read, time, and how many run at once for one organisation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg import AsyncConnection

from totalizer.catalog import EventType
from totalizer.catalog.quoting import quoted
from totalizer.errors import Refusal, Refused
from totalizer.query.spans import Span, length_of
from totalizer.query.windows import Windows

#: Shorter spans of events are read without an estimate of how many there are.
UNESTIMATED = timedelta(hours=2)
#: Queries of an organisation that may wait for their turn, for each that may run.
WAITING_EACH = 4


class QueryLimits(msgspec.Struct, frozen=True):
    """The limits of every organisation's queries.

    Attributes:
        windows: of one range.
        events: read for one answer, by PostgreSQL's estimate.
        dirty_events: read in place of rollups that are behind; beyond it an answer is told from these.
        dirty_buckets: marked buckets that are told apart.
        timeout_ms: longest time of a statement, milliseconds.
        concurrency: queries of an organisation that run at once in one process.
    """

    windows: int = 100_000
    events: int = 5_000_000
    dirty_events: int = 500_000
    dirty_buckets: int = 20_000
    timeout_ms: int = 10_000
    concurrency: int = 8

    def check_windows(self, windows: Windows, start: datetime, end: datetime) -> None:
        """Refuse a range with too many windows.

        Raises:
            Refused: it has.
        """
        count = windows.count_max(start, end)
        if count > self.windows:
            raise Refused(
                Refusal.QUERY_TOO_LARGE,
                f"aggregation_window: the range has {count} windows, and a query may have {self.windows} "
                "(TOTALIZER_QUERY_WINDOWS_MAX); ask for longer windows or a shorter range",
            )

    def check_events(self, count: int) -> None:
        """Refuse to read too many events.

        Raises:
            Refused: there are too many.
        """
        if count > self.events:
            raise Refused(
                Refusal.QUERY_TOO_LARGE,
                f"about {count} events would have to be read, and a query may read {self.events} "
                "(TOTALIZER_QUERY_EVENTS_MAX); ask for windows of 15m or longer, or a shorter range",
            )


class Turns:
    """Who may ask now: so many queries of each organisation at once, and some more that wait.

    Args:
        limits: how many.
    """

    def __init__(self, limits: QueryLimits) -> None:
        self._limit = limits.concurrency
        self._turns: dict[str, tuple[asyncio.Semaphore, list[int]]] = {}

    @asynccontextmanager
    async def turn(self, organization_id: str) -> AsyncIterator[None]:
        """Hold one of the organisation's turns.

        Raises:
            Refused: all are taken, and enough wait already.
        """
        semaphore, there = self._turns.setdefault(organization_id, (asyncio.Semaphore(self._limit), [0]))
        if there[0] >= self._limit * (1 + WAITING_EACH):
            raise Refused(
                Refusal.TOO_MANY_QUERIES,
                f"{self._limit} queries of this organisation are running (TOTALIZER_QUERY_CONCURRENCY) and "
                f"{there[0] - self._limit} wait; send the next when one is answered",
                retry_after_s=1,
            )
        there[0] += 1
        try:
            async with semaphore:
                yield
        finally:
            there[0] -= 1
            if not there[0]:
                self._turns.pop(organization_id, None)


async def estimated_events(
    connection: AsyncConnection[Any], event_type: EventType, organization_id: str, spans: Sequence[Span]
) -> int:
    """How many events lie in spans, as PostgreSQL estimates it; 0 for short ones."""
    length = length_of(spans)
    if length <= UNESTIMATED:
        return 0
    extent = Span(spans[0].start, spans[-1].end)
    time = quoted(event_type.time_field)
    cursor = await connection.execute(
        (
            f"EXPLAIN (FORMAT JSON) SELECT FROM events.{quoted(event_type.name)} "
            f"WHERE organization_id = %s::uuid AND {time} >= %s::timestamptz AND {time} < %s::timestamptz"
        ).encode(),
        [organization_id, extent.start, extent.end],
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0][0]["Plan"]["Plan Rows"] * (length / (extent.end - extent.start)))
