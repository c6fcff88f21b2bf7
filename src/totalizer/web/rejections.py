"""Counting what is refused: in memory, and every few seconds into the database.

A refused event was never acknowledged, so its count may be lost with the process: at most what came since the last
flush. While the database is away the counts wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.background import Background
from totalizer.clock import Clock, utc_text
from totalizer.collect.admission import Item
from totalizer.metrics import MEASURES
from totalizer.metrics.table import REJECTED
from totalizer.telemetry import logger

#: Pause between two flushes.
FLUSH_PAUSE_S = 2.0
#: Sums of different (organisation, hour, type, code) that may wait; beyond it new ones are not counted.
WAITING_MAX = 100_000
#: Longest wait for a connection.
_TIMEOUT_S = 2.0

#: (organisation, hour, event type or empty, code)
Key = tuple[str, str, str, str]


class Rejections:
    """Counts refused events.

    Args:
        pool: connections as the app role, which may add to the counts and no more.
        clock: for the hour.
        event_types: names that are counted by; events of any other type are counted without one.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], clock: Clock, event_types: Iterable[str]) -> None:
        self._pool, self._clock, self._event_types = pool, clock, frozenset(event_types)
        self._counts: dict[Key, int] = {}
        self._background = Background(self._run)
        self._failing = False

    def count(self, organization_id: str, items: Iterable[Item]) -> None:
        """Count refused events of one organisation, by type and reason."""
        hour = f"{utc_text(self._clock.now_ns())[:13]}:00:00Z"
        for item in items:
            MEASURES.count(REJECTED, item.code)
            event_type = item.event_type if item.event_type in self._event_types else ""
            key = organization_id, hour, event_type, item.code
            if key in self._counts or len(self._counts) < WAITING_MAX:
                self._counts[key] = self._counts.get(key, 0) + 1

    def start(self) -> None:
        """Flush from now on, on the running event loop."""
        self._background.start()

    async def stop(self) -> None:
        """Flush once more and end."""
        await self._background.stop()
        await self.flush()

    async def flush(self) -> None:
        """Add what was counted to the database; what it does not take now waits."""
        if not self._counts:
            return
        # Cancelled within, nobody knows whether it was done; then a count too many is worse than one too few.
        counts, self._counts = self._counts, {}
        try:
            await self._add(counts)
            self._failing = False
        except (psycopg.Error, PoolTimeout) as error:
            self._put_back(counts)
            if not self._failing:
                logger().warning("refused events are counted when the database is back", reason=str(error).strip())
            self._failing = True

    async def _add(self, counts: dict[Key, int]) -> None:
        columns: list[list[Any]] = [list(column) for column in zip(*counts, strict=True)]
        async with self._pool.connection(timeout=_TIMEOUT_S) as connection, connection.transaction():
            await connection.execute("SET TRANSACTION READ WRITE, ISOLATION LEVEL READ COMMITTED")
            await connection.execute(
                "SELECT totalizer.count_rejected(%s::uuid[], %s::timestamptz[], %s::text[], %s::text[], %s::bigint[])",
                [*columns, list(counts.values())],
            )

    def _put_back(self, counts: dict[Key, int]) -> None:
        for key, events in counts.items():
            self._counts[key] = self._counts.get(key, 0) + events

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_PAUSE_S)
            await self.flush()
