"""Counting what is refused: waits for the database, adds up, and belongs to its organisation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from psycopg_pool import AsyncConnectionPool

from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect.admission import Item
from totalizer.query.run import configure_reader
from totalizer.store.roles import Role
from totalizer.web import rejections as rejections_module
from totalizer.web.rejections import Rejections

COUNTS = "SELECT organization_id::text, event_type, code, events FROM totalizer.rejected_events ORDER BY 1, 2, 3"
NOWHERE = "host=127.0.0.1 port=1 connect_timeout=2"


def item(event_type: str = "commits", code: str = "invalid_event") -> Item:
    return Item(event_type, 0, "rejected", code, "…")


def counting(dsn: str, work: Callable[[Rejections], Awaitable[None]]) -> None:
    """Count over a pool as the API has it: read-only, and of one snapshot."""

    async def run() -> None:
        async with AsyncConnectionPool(dsn, min_size=0, max_size=2, open=False, configure=configure_reader) as pool:
            await work(Rejections(pool, SYSTEM_CLOCK, ["commits"]))

    asyncio.run(run())


def test_counts_of_several_processes_add_up(feed: Any, database: Any) -> None:
    mine, theirs = feed.organization("mine"), feed.organization("theirs")

    async def work(rejections: Rejections) -> None:
        rejections.count(mine, [item(), item(), item(code="invalid_time")])
        rejections.count(theirs, [item("no such type")])
        await rejections.flush()
        await rejections.flush()

    for _ in range(2):
        counting(database.dsn(Role.APP), work)
    assert sorted(feed.rows(COUNTS)) == sorted(
        [
            (mine, "commits", "invalid_event", 4), (mine, "commits", "invalid_time", 2),
            (theirs, "", "invalid_event", 2),
        ]
    )  # fmt: skip


def test_a_stop_flushes(feed: Any, database: Any) -> None:
    mine = feed.organization()

    async def work(rejections: Rejections) -> None:
        rejections.start()
        rejections.count(mine, [item()])
        await rejections.stop()

    counting(database.dsn(Role.APP), work)
    assert feed.rows(COUNTS) == [(mine, "commits", "invalid_event", 1)]


def test_while_the_database_is_away_counts_wait_within_a_bound(feed: Any, database: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(rejections_module, "WAITING_MAX", 3)
    monkeypatch.setattr(rejections_module, "_TIMEOUT_S", 0.1)
    mine = feed.organization()
    kept: dict[Any, int] = {}

    async def away(rejections: Rejections) -> None:
        rejections.count(mine, [item(code=f"code {number}") for number in range(5)])
        await rejections.flush()
        rejections.count(mine, [item(code="code 0")])
        await rejections.flush()
        kept.update(rejections._counts)

    counting(NOWHERE, away)
    assert sorted(key[3] for key in kept) == ["code 0", "code 1", "code 2"]

    async def back(rejections: Rejections) -> None:
        rejections._counts.update(kept)
        await rejections.flush()

    counting(database.dsn(Role.APP), back)
    assert [row[2:] for row in feed.rows(COUNTS)] == [("code 0", 2), ("code 1", 1), ("code 2", 1)]
