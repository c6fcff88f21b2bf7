"""The four hottest queries keep their indexes under row security, and the organisation is looked up once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from totalizer.query.combine import Page, compile_work
from totalizer.query.cost import QueryLimits
from totalizer.query.exports.columns import event_columns
from totalizer.query.exports.events import PAGE_ROWS, Wanted, read_page
from totalizer.query.exports.horizon import Horizon, read_horizon
from totalizer.query.exports.ticket import Ticket
from totalizer.query.listing import list_events, parse_listing
from totalizer.query.parse import parse_body
from totalizer.query.state import read_state
from totalizer.query.work import Planner
from totalizer.store.partitions import ensure_partition
from totalizer.store.roles import Role

FIRST = datetime(2025, 4, 1, tzinfo=UTC)
RANGE = {"start_date": "2025-04-01", "end_date": "2025-04-30", "measures": ["executions"]}


@pytest.fixture
def many(feed: Any, command: Any) -> str:
    """One organisation among six, a month of events, analysed; a few buckets marked."""
    organizations = [feed.organization(f"o{number}") for number in range(6)]
    batch = [
        command(executed_at=(FIRST + timedelta(minutes=60 * number)).isoformat(), command_name=f"c{number % 9}")
        for number in range(30 * 24)
    ]
    for organization in organizations:
        feed.send(organization, command_executions=batch)
    feed.load()
    feed.refresh()
    feed.send(organizations[4], command_executions=[
        command(executed_at=(FIRST + timedelta(hours=31 * number)).isoformat()) for number in range(20)
    ])  # fmt: skip
    feed.load()
    feed.administrator.execute(
        "VACUUM ANALYZE events.command_executions, analytics.command_usage_1mo, analytics.command_usage_1w, "
        "analytics.command_usage_1d, analytics.command_usage_1h, analytics.command_usage_15m"
    )
    return str(organizations[4])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


class Watched:
    """A connection that explains what it is asked to execute."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection, self.plans = connection, []  # type: ignore[var-annotated]

    async def execute(self, query: bytes | str, parameters: Any = None, **more: Any) -> Any:
        statement = query.encode() if isinstance(query, str) else query
        if b"analytics." in statement or (b" FROM events." in statement and not statement.startswith(b"EXPLAIN")):
            explained = await self._connection.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters)
            row = await explained.fetchone()
            assert row is not None
            self.plans.append(row[0][0]["Plan"])
        return await self._connection.execute(statement, parameters, **more)


async def plan_of(database: Any, catalog: Any, organization: str, body: dict[str, Any] | None) -> dict[str, Any]:
    connection = await AsyncConnection.connect(database.dsn(Role.APP), options="-c timezone=UTC")
    async with connection:
        await connection.execute("SELECT set_config('app.current_org_id', %s, true)", [organization])
        state, watched = await read_state(connection, organization), Watched(connection)
        if body is None:
            kind = catalog.event_types["command_executions"]
            parameters = {"start_date": ["2025-04-01"], "end_date": ["2025-04-30"], "limit": ["50"]}
            listing = parse_listing(kind, parameters, state.now, state.own_zone, organization)
            await list_events(watched, kind, organization, state, listing)  # type: ignore[arg-type]
        else:
            query = parse_body(catalog, body, state.now, state.own_zone)
            planner = Planner(watched, catalog, organization, state, QueryLimits())  # type: ignore[arg-type]
            statement = compile_work(await planner.plan(query), organization, Page())
            await watched.execute(statement.sql.encode(), statement.parameters)
        [plan] = watched.plans
        return dict(plan)


#: Of days, of quarters in another zone, of months by command; None for single events. What each must read.
HOTTEST: list[tuple[dict[str, Any] | None, set[str]]] = [
    ({**RANGE, "aggregation_window": "1d"}, {"command_usage_1d", "command_usage_15m", "command_executions"}),
    ({**RANGE, "aggregation_window": "1h", "time_zone": "Asia/Kathmandu"}, {"command_usage_15m"}),
    ({**RANGE, "aggregation_window": "1mo", "group_by": ["command_name"]}, {"command_usage_1h"}),
    (None, {"command_executions"}),
]


def test_every_read_of_the_four_hottest_queries_is_by_index(database: Any, catalog: Any, many: str) -> None:
    for body, tables in HOTTEST:
        plan = asyncio.run(plan_of(database, catalog, many, body))
        scans = [node for node in nodes(plan) if "Relation Name" in node]
        read = {"command_executions" if "_p2" in node["Relation Name"] else node["Relation Name"] for node in scans}
        assert tables <= read, json.dumps(plan)
        for node in scans:
            assert node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"), node
            condition = (node if "Index Cond" in node else node["Plans"][0])["Index Cond"]
            # The organisation and the time both choose rows within the index.
            assert "organization_id" in condition, node
            assert any(key in condition for key in ("bucket", "day", "week", "month", "executed_at")), node
            assert node.get("Rows Removed by Filter", 0) == 0, node
        # Row security looks up the organisation once a query, not once a row.
        assert any(node.get("Parent Relationship") == "InitPlan" for node in nodes(plan)), body


def test_each_of_many_pieces_is_read_by_the_index(feed: Any, database: Any, catalog: Any, many: str) -> None:
    """And not all rows of the organisation held against each, however dear the index seems to the planner."""
    name = feed.one("SELECT quote_ident(current_database())")
    feed.administrator.execute(f"ALTER DATABASE {name} SET random_page_cost = 100".encode())
    feed.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
        "SELECT %s, 'command_executions', %s + n * interval '2 hours' FROM generate_series(1, 300) AS n",
        [many, FIRST],
    )
    plan = asyncio.run(plan_of(database, catalog, many, {**RANGE, "aggregation_window": "1d"}))
    joins = [node for node in nodes(plan) if "Join" in node["Node Type"] or node["Node Type"] == "Nested Loop"]
    assert joins
    for node in joins:
        assert node["Node Type"] == "Nested Loop", node
        assert "Join Filter" not in node, node
    assert max(node["Actual Loops"] for node in nodes(plan) if "Relation Name" in node) > 200


#: Days of stored events, and events of each, all stored a day after they happened.
DAYS, EACH = 6, 10_000
INSERT = (
    "INSERT INTO events.command_executions (organization_id, executed_at, id, received_at, user_id, command_name, "
    "execution_time_ms, status, stored_at) SELECT %s, %s::timestamptz + number * interval '1 second', "
    "gen_random_uuid(), now(), gen_random_uuid(), %s, 1, 'success', %s FROM generate_series(1, %s) AS number"
)


def test_what_is_new_is_found_without_reading_what_is_old(feed: Any, database: Any, catalog: Any) -> None:
    #   days of events  1   2   3   4   5   6
    #   stored later            1               3
    organization, writer = feed.organization(), feed.administrator
    days = [FIRST + timedelta(days=number) for number in range(DAYS)]
    for day in days:
        ensure_partition(database.connect(Role.WRITER), "command_executions", day.date().isoformat())
        writer.execute(INSERT, [organization, day, "old", day + timedelta(days=1), EACH])
    writer.execute("VACUUM ANALYZE events.command_executions")
    since = asyncio.run(new_of(database, catalog, organization, None))[1]
    for day, count in ((days[2], 1), (days[5] + timedelta(hours=12), 3)):
        writer.execute(INSERT, [organization, day, "new", datetime.now(UTC), count])
    names, _, plan = asyncio.run(new_of(database, catalog, organization, since))
    assert names == ["new"] * 4
    read = [
        node["Actual Loops"] * sum(node.get(key, 0) for key in ("Actual Rows", *REMOVED))
        for node in nodes(plan) if "Relation Name" in node
    ]  # fmt: skip
    assert len(read) >= DAYS
    # At most the two days that have something new.
    assert 4 <= sum(read) <= 2 * EACH + 4, json.dumps(plan)


REMOVED = ("Rows Removed by Filter", "Rows Removed by Index Recheck")


async def new_of(
    database: Any, catalog: Any, organization: str, since: Horizon | None
) -> tuple[list[str], Horizon, dict[str, Any]]:
    """The names of the commands stored since a horizon, the present one, and how the page of them was read."""
    connection = await AsyncConnection.connect(database.dsn(Role.APP), options="-c timezone=UTC")
    async with connection:
        await connection.execute("SELECT set_config('app.current_org_id', %s, true)", [organization])
        present, watched = await read_horizon(connection), Watched(connection)
        kind = catalog.event_types["command_executions"]
        wanted, ticket = Wanted(kind.name, None, None, ()), Ticket("", present, since)
        rows = await read_page(watched, kind, organization, wanted, ticket, PAGE_ROWS)  # type: ignore[arg-type]
        place = [column.name for column in event_columns(kind)].index("command_name")
        return [row[place] for row in rows], present, watched.plans[0]
