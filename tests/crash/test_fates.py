"""What receipts are told while everything around the loader breaks: each acknowledged event once, by its right fate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from crash.chances import Chances
from crash.oracle import KEPT
from crash.pipeline import Pipeline
from crash.proxy import Proxy
from support import Database
from totalizer.query import fates
from totalizer.query.run import configure_reader
from totalizer.store.roles import Role

Pipelines = Callable[[], Pipeline]


def send(pipeline: Pipeline) -> None:
    """Five records, with resends and changed contents among them."""
    pipeline.acknowledge(["a", "b", "c"])
    pipeline.acknowledge(["d", "e"], keyed=False)
    pipeline.acknowledge(["b", "f", "a"])
    pipeline.acknowledge(["g"])
    pipeline.acknowledge(["h", "i"], day=2)


def told(database: Database, pipeline: Pipeline, accepted: list[int]) -> list[fates.Outcome]:
    """What the receipts of the records are told."""

    async def ask() -> list[fates.Outcome]:
        async with AsyncConnectionPool(
            database.dsn(Role.APP), min_size=1, max_size=1, open=False, configure=configure_reader
        ) as pool:
            journal, organization = pipeline.journal.id, pipeline.organization_id
            return [
                await fates.outcome(pool, organization, journal, number, count)
                for number, count in enumerate(accepted, 1)
            ]

    return asyncio.run(ask())


@pytest.fixture
def proxy(database: Database) -> Any:
    with Proxy(database.dsn(Role.WRITER)) as proxy:
        yield proxy


def check(database: Database, pipeline: Pipeline) -> None:
    outcomes = told(database, pipeline, [3, 2, 3, 1, 2])
    assert [(each.status, each.loaded, each.duplicate) for each in outcomes] == [
        ("done", 3, 0), ("done", 2, 0), ("done", 1, 2), ("done", 1, 0), ("done", 2, 0),
    ]  # fmt: skip
    places = [(item["index"], item["id"], item["status"]) for item in outcomes[2].items]
    assert [place[0] for place in places] == [0, 2]
    assert {place[2] for place in places} == {"duplicate"}
    assert pipeline.verdict() == KEPT


def test_right_after_a_lost_reply_to_commit_a_receipt_is_exact(
    database: Database, proxy: Proxy, pipeline: Pipeline
) -> None:
    """The transaction is done and the loader does not know; a sender asks before it has found out."""
    send(pipeline)
    proxy.arm(text=b"COMMIT", lose_reply=True)
    loader = pipeline.loader(proxy.dsn)
    with pytest.raises(Exception, match="connection"):
        loader.drain()
    assert proxy.fired
    first, *others = told(database, pipeline, [3, 2, 3, 1, 2])
    assert (first.status, first.loaded, first.items) == ("done", 3, [])
    assert {each.status for each in others} == {"pending"}
    loader.close()
    proxy.disarm()
    assert pipeline.load() == 0
    check(database, pipeline)


@pytest.mark.parametrize("how", ["message lost", "reply lost"])
def test_a_break_at_each_message_changes_no_fate(
    how: str, database: Database, proxy: Proxy, pipelines: Pipelines, chances: Chances
) -> None:
    faults = 0
    for moment in chances.moments(0, f"fates, {how}"):
        pipeline = pipelines()
        send(pipeline)
        proxy.arm(moment, lose_reply=how == "reply lost")
        pipeline.load(pipeline.loader(proxy.dsn))
        fired = proxy.fired
        proxy.disarm()
        check(database, pipeline)
        pipeline.close()
        if not fired:
            break
        faults += 1
    assert faults * chances.stride > 40
