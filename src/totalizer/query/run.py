"""Running a query in one snapshot, as the organisation it is for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.catalog import Catalog, Rollup
from totalizer.errors import Refusal, Refused
from totalizer.journal import Position
from totalizer.query.compile import compile_plan
from totalizer.query.completeness import LocalJournals
from totalizer.query.cursor import decode_cursor, end_of
from totalizer.query.parse import Query, parse_query
from totalizer.query.plan import choose_rollup, clean_spans, days_to_look_up, make_plan
from totalizer.query.result import shape_answer
from totalizer.store.tenant import reading_as
from totalizer.window import base_bucket


class QueryService:
    """Answers queries.

    Args:
        pool: connections as the app role.
        catalog: what can be asked about.
        journals: to tell whether an answer is complete.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], catalog: Catalog, journals: LocalJournals) -> None:
        self._pool, self._catalog, self._journals = pool, catalog, journals

    async def aggregated(self, organization_id: str, parameters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Totals by window and group.

        Args:
            organization_id: whose.
            parameters: as `parse_query` takes them.

        Raises:
            Refused: the query cannot be answered; the message says why.
        """
        # Before the snapshot: what is durable by now must be in it for the answer to be complete.
        ends = self._journals.durable_ends()
        async with snapshot(self._pool, organization_id) as connection:
            cursor = await connection.execute(
                "SELECT now(), time_zone FROM totalizer.organizations WHERE id = %s", [organization_id]
            )
            row = await cursor.fetchone()
            if row is None:
                raise Refused(Refusal.FORBIDDEN, "this organisation does not exist any more")
            now, own_zone = row
            query = parse_query(self._catalog, parameters, end_of(parameters, now), own_zone)
            after = decode_cursor(query)
            rollup, _ = choose_rollup(self._catalog, query)
            dirty, stale_days = await _dirty(connection, organization_id, query, rollup)
            zone = ZoneInfo(own_zone)
            days = days_to_look_up(query, zone, clean_spans(query, [*dirty, *stale_days]))
            starts = await _day_starts(connection, days, own_zone)
            plan = make_plan(self._catalog, query, zone, dirty, starts, stale_days)
            statement = compile_plan(plan, query, organization_id, after)
            rows = await (await connection.execute(statement.sql.encode(), statement.parameters)).fetchall()
            complete = self._journals.all_loaded(ends, await _loaded(connection))
        return shape_answer(query, plan, rows, now, complete=complete)


async def configure_reader(connection: AsyncConnection[Any]) -> None:
    """Make every transaction of a pooled connection a read-only one with one view of the data."""
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)


@asynccontextmanager
async def snapshot(pool: AsyncConnectionPool[Any], organization_id: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A transaction that sees that organisation's rows and no others.

    Raises:
        Refused: the database is away.
    """
    try:
        async with reading_as(pool, organization_id) as connection:
            yield connection
    except psycopg.errors.InvalidParameterValue as error:
        # The one parameter that Python and PostgreSQL may judge differently: their time zone databases differ.
        raise Refused(Refusal.INVALID_QUERY, f"time_zone: PostgreSQL says: {str(error).strip()}") from error
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise Refused(
            Refusal.DATABASE_UNAVAILABLE, "the database cannot answer at present; try again", retry_after_s=5
        ) from error


async def _dirty(
    connection: AsyncConnection[Any], organization_id: str, query: Query, rollup: Rollup
) -> tuple[list[datetime], list[datetime]]:
    """The marked base buckets that touch the query's range, and those whose days alone are marked."""
    cursor = await connection.execute(
        "SELECT bucket, bool_or(scope = 'events') FROM totalizer.dirty_marks "
        "WHERE organization_id = %s AND event_type = %s AND bucket >= %s AND bucket < %s "
        "AND (rollup IS NULL OR rollup = %s) "
        # What is marked below the floor is not computed from events any more, nor must it be read from them.
        "AND (scope <> 'events' OR bucket >= (SELECT totalizer.raw_floor(%s, %s::uuid))) "
        "GROUP BY bucket ORDER BY bucket",
        [
            organization_id,
            query.event_type,
            base_bucket(query.start),
            query.end,
            rollup.name,
            query.event_type,
            organization_id,
        ],
    )
    rows = await cursor.fetchall()
    return [bucket for bucket, of_events in rows if of_events], [bucket for bucket, of_events in rows if not of_events]


async def _day_starts(connection: AsyncConnection[Any], days: Sequence[date], zone: str) -> dict[date, datetime]:
    """When each local day begins, by the database's own reckoning."""
    if not days:
        return {}
    cursor = await connection.execute(
        "SELECT day, day::timestamp AT TIME ZONE %s FROM unnest(%s::date[]) AS day", [zone, list(days)]
    )
    return dict(await cursor.fetchall())


async def _loaded(connection: AsyncConnection[Any]) -> dict[str, Position]:
    """How far each journal is loaded in this snapshot."""
    cursor = await connection.execute("SELECT journal_id::text, segment, position FROM totalizer.journal_offsets")
    return {row[0]: Position(row[1], row[2]) for row in await cursor.fetchall()}
