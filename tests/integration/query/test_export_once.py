"""Exports one after the other have each event once, in whatever order those who store them come to their end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from integration.conftest import Feed
from totalizer.errors import Refused
from totalizer.query.completeness import LocalJournals
from totalizer.query.exports.horizon import Horizon
from totalizer.query.exports.limits import ExportLimits
from totalizer.query.exports.service import Begun, ExportService, Page
from totalizer.query.exports.ticket import Ticket
from totalizer.query.opaque import decoded, fingerprint
from totalizer.query.run import QueryService, configure_reader
from totalizer.store.roles import Role

INSERT = (
    "INSERT INTO events.command_executions (organization_id, executed_at, id, received_at, user_id, command_name, "
    "execution_time_ms, status) "
    "VALUES (%s, '2025-04-01T00:00:00Z', gen_random_uuid(), now(), gen_random_uuid(), %s, 1, 'success')"
)
#: Seconds that a connection may take back to its pool.
PATIENCE_S = 30
Work = Callable[[ExportService], Awaitable[Any]]


class Exporter:
    """Exports from a test's database as the API does, without HTTP."""

    def __init__(self, feed: Any, database: Any, catalog: Any) -> None:
        self._feed, self._database, self._catalog = feed, database, catalog

    def __call__(self, organization: str, **parameters: str) -> tuple[list[str], str]:
        """The names of the commands of an export, and its cursor."""

        async def work(service: ExportService) -> tuple[list[str], str]:
            names, cursor = [], ""
            async for part in service.events(organization, {name: [value] for name, value in parameters.items()}):
                if isinstance(part, Begun):
                    cursor = part.cursor or ""
                    place = [column.name for column in part.columns].index("command_name")
                else:
                    names += [row[place] for row in part.rows]
            return names, cursor

        return self.run(work)  # type: ignore[no-any-return]

    def run(self, work: Work, limits: ExportLimits | None = None) -> Any:
        """What some work with the service comes to."""

        async def whole() -> Any:
            async with AsyncConnectionPool(
                self._database.dsn(Role.APP), min_size=1, max_size=2, configure=configure_reader, open=False,
                kwargs={"options": "-c timezone=UTC"},
            ) as pool:  # fmt: skip
                queries = QueryService(pool, self._catalog, LocalJournals(self._feed.spool))
                return await work(ExportService(pool, queries, limits))

        return asyncio.run(whole())


@pytest.fixture
def export(feed: Any, database: Any, catalog: Any) -> Exporter:
    return Exporter(feed, database, catalog)


@pytest.fixture
def organization(feed: Any, command: Any) -> str:
    """One whose partition of April 2025 is there."""
    organization: str = feed.organization()
    feed.send(organization, command_executions=[command(command_name="first", executed_at="2025-04-01T00:00:00Z")])
    feed.load()
    return organization


def test_an_event_waits_for_those_whose_transactions_began_before(
    database: Any, organization: str, export: Exporter
) -> None:
    #   slow  ├── insert a ──────────────┤ commit
    #   quick      ├ insert b ┤ commit
    #   exports  1               2            3
    slow, quick = (database.connect(autocommit=False) for _ in range(2))
    names, first = export(organization)
    assert names == ["first"]
    slow.execute(INSERT, [organization, "a"])
    quick.execute(INSERT, [organization, "b"])
    quick.commit()
    names, second = export(organization, after=first)
    assert names == [], "b was stored after a, which cannot be seen yet"
    slow.commit()
    names, third = export(organization, after=second)
    assert sorted(names) == ["a", "b"]
    assert export(organization, after=third)[0] == []
    assert sorted(export(organization, after=first)[0]) == ["a", "b"], "an earlier cursor still tells all since"


def test_what_is_stored_at_a_savepoint_waits_with_its_transaction(
    database: Any, organization: str, export: Exporter
) -> None:
    slow, quick = (database.connect(autocommit=False) for _ in range(2))
    slow.execute(INSERT, [organization, "a"])
    quick.execute(INSERT, [organization, "b"])
    with slow.transaction():
        slow.execute(INSERT, [organization, "c"])  # an id of its own, above that of b
    quick.commit()
    _, cursor = export(organization)
    slow.commit()
    assert sorted(export(organization, after=cursor)[0]) == ["a", "b", "c"]


def test_two_loaders_and_slow_writers_at_once(
    feed: Any, database: Any, catalog: Any, command: Any, tmp_path: Path, organization: str, export: Exporter
) -> None:
    other = Feed(database, tmp_path / "second", catalog)
    connections = [database.connect(autocommit=False) for _ in range(2)]
    rounds = 25

    def load(way: Feed, name: str) -> None:
        for number in range(rounds):
            events = [command(command_name=f"{name}-{number}-{each}", executed_at=moment(each)) for each in range(20)]
            way.send(organization, command_executions=events)
            way.load()

    def write(connection: Any, name: str) -> None:
        chance = random.Random(name)
        for number in range(rounds):
            connection.execute(INSERT, [organization, f"{name}-{number}-a"])
            time.sleep(chance.random() * 0.05)
            with connection.transaction():
                connection.execute(INSERT, [organization, f"{name}-{number}-b"])
            time.sleep(chance.random() * 0.05)
            connection.commit()

    threads = [Thread(target=load, args=(feed, "x")), Thread(target=load, args=(other, "y"))]
    threads += [Thread(target=write, args=(each, name)) for each, name in zip(connections, "zw", strict=True)]
    names, cursor = export(organization)
    for thread in threads:
        thread.start()
    steps = []
    while any(thread.is_alive() for thread in threads):
        some, cursor = export(organization, after=cursor)
        names += some
        steps.append(len(some))
    for thread in threads:
        thread.join()
    other.close()
    names += export(organization, after=cursor)[0]
    wanted = ["first"]
    wanted += [f"{name}-{number}-{each}" for name in "xy" for number in range(rounds) for each in range(20)]
    wanted += [f"{name}-{number}-{part}" for name in "zw" for number in range(rounds) for part in "ab"]
    assert sorted(names) == sorted(wanted)
    assert sum(1 for step in steps if step) > 3, "the exports were among the writers"


def moment(number: int) -> str:
    return f"2025-04-01T00:{number:02d}:00Z"


def test_a_cursor_of_a_database_that_was_restored_is_refused(
    feed: Any, organization: str, export: Exporter, catalog: Any
) -> None:
    _, cursor = export(organization)
    own: Ticket = read(cursor)
    until = own.until
    for horizon in (
        Horizon(until.xid, until.at, "other-1"), Horizon(until.xid + 1_000_000, until.at, until.cluster),
    ):  # fmt: skip
        with pytest.raises(Refused, match="restored") as refused:
            export(organization, after=Ticket(own.question, horizon).text)
        assert refused.value.status == 409
        assert "stored_since=" in refused.value.detail


def read(cursor: str) -> Ticket:
    return decoded(cursor, Ticket)


def test_pages_hold_no_connection_between_them(database: Any, organization: str, export: Exporter) -> None:
    with database.connect(autocommit=False) as writer:
        for number in range(5000):
            writer.execute(INSERT, [organization, str(number)])

    async def work(service: ExportService) -> list[int]:
        pages = service.events(organization, {})
        counts = []
        async for part in pages:
            async with asyncio.timeout(PATIENCE_S):  # the pool takes connections back in the background
                while (stats := service._pool.get_stats())["pool_available"] < stats["pool_size"]:
                    await asyncio.sleep(0.01)
            counts.append(len(part.rows) if isinstance(part, Page) else 0)
        return counts

    assert export.run(work) == [0, 2000, 2000, 1001]


def test_so_many_exports_at_once(organization: str, feed: Any, export: Exporter) -> None:
    others = [feed.organization(f"other {number}") for number in range(2)]

    async def work(service: ExportService) -> list[int]:
        begun = [service.events(organization, {}) for _ in range(2)]
        for each in begun:
            await anext(each)
        with pytest.raises(Refused, match="2 exports of this organisation") as refused:
            await anext(service.events(organization, {}))
        assert (refused.value.status, refused.value.retry_after_s) == (429, 5)
        third = service.events(others[0], {})
        await anext(third)
        with pytest.raises(Refused, match="this process"):
            await anext(service.events(others[1], {}))
        counts = [service.running.count]
        for each in (*begun, third):
            await each.aclose()
        return [*counts, service.running.count]

    assert export.run(work, ExportLimits(concurrency=2, concurrency_all=3)) == [3, 0]


def test_a_page_that_takes_too_long_names_the_setting_of_exports(
    database: Any, organization: str, export: Exporter
) -> None:
    async def work(service: ExportService) -> Any:
        return await anext(service.events(organization, {}))

    with database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE events.command_executions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Refused, match=r"longer than 20 ms \(TOTALIZER_EXPORT_TIMEOUT_MS\)"):
            export.run(work, ExportLimits(timeout_ms=20))


def test_a_ticket_is_of_one_question() -> None:
    one = Horizon(1, "2025-04-01T00:00:00+00:00", "c")
    assert fingerprint("a", one) != fingerprint("b", one)
