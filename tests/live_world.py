"""Live windows over a test's journals and database, on an event loop of their own; and the database's own numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.live import Asks, Elsewhere, Follower, Limits, LiveWindows, Publisher, StoredWindows, Tails
from totalizer.live.relay import LiveRelay
from totalizer.query.run import configure_reader
from totalizer.settings.live import WINDOWS
from totalizer.store.roles import Role

LIMITS = Limits(
    memory_bytes=64 << 20, groups_max=1000, flush_interval_s=3600.0, retry_attempts=0, retry_delay_s=0.1, frame_s=0.02
)


@asynccontextmanager
async def live_windows(
    database: Any, spool: Path, catalog: Catalog, limits: Limits = LIMITS, clock: Clock = SYSTEM_CLOCK,
    redis_url: str | None = None,
) -> AsyncIterator[LiveWindows]:  # fmt: skip
    """The live windows of one process; with Redis also what tells other machines."""
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        database.dsn(Role.APP), min_size=1, max_size=4, open=False, configure=configure_reader,
        kwargs={"options": "-c timezone=UTC"},
    )  # fmt: skip
    await pool.open()
    stored = StoredWindows(pool, limits.groups_max)
    redis: Any = None if redis_url is None else Redis.from_url(redis_url, socket_connect_timeout=1, socket_timeout=1)
    relay = None if redis is None else LiveRelay(redis)
    [asker, *_] = [tail.id for tail in Tails(spool).look({})] or ["nobody"]
    follower = Follower(
        Tails(spool), stored, clock, pending_bytes_max=limits.memory_bytes // 4, failures_max=100,
        elsewhere=Elsewhere(relay, asker, clock),
    )  # fmt: skip
    live = LiveWindows(catalog, Asks(catalog, WINDOWS), stored, follower, clock, limits)
    publishers = [] if relay is None else [Publisher(relay, Tails(spool), stored, spool.parent / "live", clock)]
    for part in (live, *publishers):
        part.start()
    try:
        yield live
    finally:
        for part in (live, *publishers):
            await part.stop()
        await pool.close()
        if redis is not None:
            await redis.aclose()


async def until(condition: Any, what: str, patience_s: float = 30.0) -> None:
    """Wait for a condition on the event loop."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while not await condition():
        assert loop.time() < deadline, f"{what} did not happen within {patience_s} s"
        await asyncio.sleep(0.02)


COMMANDS = """
    SELECT command_name, status, count(*), sum(execution_time_ms), min(execution_time_ms), max(execution_time_ms)
    FROM events.command_executions
    WHERE organization_id = %s AND executed_at >= %s AND executed_at < %s GROUP BY 1, 2 ORDER BY 1, 2"""


def of_answer(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of an answer about commands by name and status, as `COMMANDS` gives them."""
    return [
        (
            row["command_name"], row["status"], row["executions"], row["execution_time_ms_sum"],
            row["execution_time_ms_min"], row["execution_time_ms_max"],
        )
        for row in answer["data"]
    ]  # fmt: skip


def of_database(feed: Any, organization_id: str, answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The database's own rows for the span of an answer."""
    start, end = (datetime.fromisoformat(answer[name]) for name in ("from", "to"))
    return [(*row[:3], int(row[3]), *row[4:]) for row in feed.rows(COMMANDS, organization_id, start, end)]
