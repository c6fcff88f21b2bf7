"""What the database has of live windows: their totals, how far journals are loaded, and what was not stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.errors import StoreUnavailable
from totalizer.journal import Position
from totalizer.live.length import Length
from totalizer.live.piece import Place
from totalizer.live.shape import OTHER, Group, Shape, State
from totalizer.window import BASE, base_bucket, ceil_base

#: Longest wait for a connection.
CONNECT_TIMEOUT_S = 5.0


class Offset(NamedTuple):
    """How far a journal is loaded: behind which record, and its number (0 if not known)."""

    position: Position
    sequence: int


class Stored(NamedTuple):
    """A window as the database has it.

    Attributes:
        offsets: how far each journal is loaded in it, by journal.
        cells: (group, slot, state).
    """

    offsets: dict[str, Offset]
    cells: list[tuple[Group, int, State]]


class StoredWindows:
    """Reads live windows from the database, as the organisation they are of.

    Args:
        pool: connections as the app role, whose transactions read one view of the data.
        groups_max: groups that are kept apart.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], groups_max: int) -> None:
        self._pool, self._groups_max = pool, groups_max

    async def read(self, organization_id: str, shape: Shape, length: Length, now_s: int) -> Stored:
        """A window, from its first slot on, and how far journals are loaded in it.

        Raises:
            StoreUnavailable: the database is away.
        """
        start = datetime.fromtimestamp(length.span(length.last(now_s))[0], UTC)
        now = datetime.fromtimestamp(now_s, UTC)
        async with self._as(organization_id) as connection:
            offsets = await _offsets(connection)
            clean: list[datetime] = []
            if length.slot_s == BASE.total_seconds():
                clean = await _clean(connection, organization_id, shape, start, now)
            parameters = {
                "organization": organization_id, "start": start, "slot": f"{length.slot_s} seconds", "clean": clean,
                "slot_s": length.slot_s, "groups_max": self._groups_max,
            }  # fmt: skip
            rows = await (await connection.execute(_statement(shape, bool(clean)).encode(), parameters)).fetchall()
        width = len(shape.rollup.dimensions)
        cells = [
            (OTHER if row[1] else shape.group_of(row[2 : 2 + width]), int(row[0]), shape.state_of(row[2 + width :]))
            for row in rows
        ]
        return Stored(offsets, cells)

    async def offsets(self) -> dict[str, Offset]:
        """How far each journal is loaded.

        Raises:
            StoreUnavailable: the database is away.
        """
        async with self._as("") as connection:
            return await _offsets(connection)

    async def unstored(self, organization_id: str, records: Sequence[tuple[str, int, int]]) -> dict[str, set[Place]]:
        """The events of loaded records that were not stored, by journal.

        Args:
            organization_id: whose.
            records: (journal, first record, last record).

        Raises:
            StoreUnavailable: the database is away.
        """
        found: dict[str, set[Place]] = {journal: set() for journal, _, _ in records}
        async with self._as(organization_id) as connection:
            cursor = await connection.execute(
                "SELECT f.journal_id::text, f.event_type, f.sequence, f.places "
                "FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS piece (journal_id, first, last) "
                "JOIN totalizer.event_fates f ON f.journal_id = piece.journal_id "
                "AND f.sequence BETWEEN piece.first AND piece.last",
                [list(column) for column in zip(*records, strict=True)],
            )
            for journal, event_type, sequence, places in await cursor.fetchall():
                found[journal].update((event_type, sequence, place) for place in places)
        return found

    @asynccontextmanager
    async def _as(self, organization_id: str) -> AsyncIterator[AsyncConnection[Any]]:
        try:
            async with self._pool.connection(timeout=CONNECT_TIMEOUT_S) as connection, connection.transaction():
                await connection.execute("SELECT set_config('app.current_org_id', %s, true)", [organization_id])
                yield connection
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise StoreUnavailable(f"PostgreSQL cannot be reached: {str(error).strip()}") from error


async def _offsets(connection: AsyncConnection[Any]) -> dict[str, Offset]:
    cursor = await connection.execute(
        "SELECT journal_id::text, segment, position, sequence FROM totalizer.journal_offsets"
    )
    return {row[0]: Offset(Position(row[1], row[2]), row[3]) for row in await cursor.fetchall()}


async def _clean(
    connection: AsyncConnection[Any], organization_id: str, shape: Shape, start: datetime, now: datetime
) -> list[datetime]:
    """The base buckets within the window that the rollup is not behind with, but for the present one."""
    cursor = await connection.execute(
        "SELECT DISTINCT bucket FROM totalizer.dirty_marks "
        "WHERE organization_id = %s AND event_type = %s AND bucket >= %s",
        [organization_id, shape.event_type.name, start],
    )
    dirty = {row[0] for row in await cursor.fetchall()}
    bucket, clean = ceil_base(start), []
    while bucket < base_bucket(now):
        if bucket not in dirty:
            clean.append(bucket)
        bucket += BASE
    return clean


def _statement(shape: Shape, with_rollup: bool) -> str:
    """Slot, whether the group is one of those beyond the limit, dimensions and state."""
    dimensions = shape.rollup.dimensions
    keys = "".join(f", {quoted(name)}" for name in dimensions)
    row = f"ROW({quoted_list(dimensions)})::text"
    columns = ", ".join(quoted(part.column) for part in shape.parts)
    merged = ", ".join(f"{'sum' if part.kind == 'add' else part.kind}({quoted(part.column)})" for part in shape.parts)
    nothing = "".join(f", NULL::{shape.field(name).type.column_type}" for name in dimensions)
    return f"""WITH cells AS (
    {_events(shape, keys, without_clean=with_rollup)}{_buckets(shape, keys, columns) if with_rollup else ""}
), named AS (
    SELECT cells.*, {row} AS name, sum(weight) OVER (PARTITION BY {row}) AS total FROM cells
), ranked AS (
    SELECT named.*, dense_rank() OVER (ORDER BY total DESC, name) > %(groups_max)s AS beyond FROM named
)
SELECT slot, false{keys}, {columns} FROM ranked WHERE NOT beyond
UNION ALL
SELECT slot, true{nothing}, {merged} FROM ranked WHERE beyond GROUP BY slot"""


def _events(shape: Shape, keys: str, *, without_clean: bool) -> str:
    time, table = f"r.{quoted(shape.event_type.time_field)}", quoted(shape.event_type.name)
    states = ", ".join(f"{part.from_events} AS {quoted(part.column)}" for part in shape.parts)
    slot = f"extract(epoch FROM date_bin(%(slot)s::interval, {time}, 'epoch'::timestamptz))::bigint / %(slot_s)s"
    bucket = f"date_bin('15 minutes', {time}, 'epoch'::timestamptz)"
    dirty = f"AND NOT {bucket} = ANY (%(clean)s::timestamptz[])" if without_clean else ""
    return f"""SELECT {slot} AS slot, count(*) AS weight{keys}, {states}
    FROM events.{table} r
    WHERE r.organization_id = %(organization)s::uuid AND {time} >= %(start)s {dirty}
    GROUP BY 1{"".join(f", {number}" for number in range(3, 3 + len(shape.rollup.dimensions)))}"""


def _buckets(shape: Shape, keys: str, columns: str) -> str:
    return f"""
    UNION ALL
    SELECT extract(epoch FROM r.bucket)::bigint / %(slot_s)s AS slot, 1{keys}, {columns}
    FROM analytics.{quoted(shape.rollup.base_table)} r
    WHERE r.organization_id = %(organization)s::uuid AND r.bucket = ANY (%(clean)s::timestamptz[])"""
