"""Numbers of the moment that one API process tells: of its journal, its connections, its last minute."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import psutil  # type: ignore[import-untyped]
from psycopg_pool import AsyncConnectionPool

from totalizer.background import Background
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.journal import Journal
from totalizer.live import LiveWindows
from totalizer.metrics import MEASURES
from totalizer.metrics.table import (
    JOURNAL_BYTES,
    JOURNAL_REFUSING,
    LIVE_BYTES,
    LIVE_CONNECTIONS,
    MEMORY,
    MINUTE_REQUESTS,
    MINUTE_SECONDS,
    POOL_WAITING,
)
from totalizer.web.answered import Answered
from totalizer.web.live_channel import Seats

#: Seconds between two looks.
LOOK_S = 1.0


class Gauges:
    """Looks once a second.

    Args:
        journal: of this process.
        live: its live windows.
        seats: its live connections.
        pool: its database connections.
        answered: its requests, by their kind.
        clock: for the last minute.
    """

    def __init__(
        self, journal: Journal, live: LiveWindows, seats: Seats, pool: AsyncConnectionPool[Any],
        answered: Mapping[str, Answered], clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._journal, self._live, self._seats, self._pool = journal, live, seats, pool
        self._answered, self._clock, self._process = answered, clock, psutil.Process()
        self._background = Background(self._run)

    def start(self) -> None:
        """Look from now on, on the running event loop."""
        self._background.start()

    async def stop(self) -> None:
        """End."""
        await self._background.stop()

    async def _run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Tell the numbers of now."""
        stats = self._journal.stats()
        MEASURES.set(JOURNAL_BYTES, stats.bytes_on_disk)
        MEASURES.set(JOURNAL_REFUSING, stats.refusal is not None)
        MEASURES.set(LIVE_CONNECTIONS, self._seats.count)
        MEASURES.set(LIVE_BYTES, self._live.memory_bytes())
        MEASURES.set(MEMORY, self._process.memory_info().rss)
        now = self._clock.monotonic()
        for kind, answered in self._answered.items():
            requests, seconds = answered.lately(now)
            MEASURES.set(MINUTE_REQUESTS, requests, kind)
            MEASURES.set(MINUTE_SECONDS, seconds, kind)
        MEASURES.set(POOL_WAITING, self._pool.get_stats().get("requests_waiting", 0))
