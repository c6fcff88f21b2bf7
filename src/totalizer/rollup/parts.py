"""Having a part of the rollups computed anew, and how far all of them are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.quoting import quoted
from totalizer.errors import OperationError
from totalizer.rollup.marks import BACKFILL, LIVE
from totalizer.rollup.statements import base_of
from totalizer.store import audit
from totalizer.store.audit import Change
from totalizer.store.dead_letters import organization_id_of
from totalizer.store.plan import read_applied
from totalizer.window import base_bucket


class Portion(NamedTuple):
    """Whose rollups of what time; None stands for all.

    Attributes:
        organization: a name.
        rollup: its name.
        starts, ends: moments; the end is excluded.
    """

    organization: str | None = None
    rollup: str | None = None
    starts: datetime | None = None
    ends: datetime | None = None

    @property
    def whole(self) -> bool:
        """True if it is everything there is."""
        return self == Portion()


class Standing(NamedTuple):
    """How far a rollup is.

    Attributes:
        rollup, event_type: which, and of what.
        version: of its definition: 1, and one more with every change.
        live, backfill: marks that wait to be computed from events.
        days: marks of days whose zone has changed.
        lag_s: seconds since the oldest live mark was made; 0 if there is none.
        rows: of all its tables, as the planner's statistics have it.
        bytes: of all its tables on disk, with indexes.
    """

    rollup: str
    event_type: str
    version: int
    live: int
    backfill: int
    days: int
    lag_s: float
    rows: int
    bytes: int


def mark_part(connection: Connection[Any], portion: Portion, *, live: bool = False) -> int:
    """Mark what has events or rows, above the floor below which nothing is computed from events.

    Args:
        connection: as the refresher role.
        portion: what is to be computed anew.
        live: True to have it computed before, False after everything else that waits.

    Returns:
        How many marks.

    Raises:
        OperationError: there is no such organisation or rollup.
    """
    applied = read_applied(connection)
    name = portion.organization
    owner = None if name is None else organization_id_of(connection, name)
    rollups = _named(applied.rollups, portion.rollup)
    marks = 0
    for event_type in applied.event_types.values():
        mine = [rollup for rollup in rollups if rollup.event_type == event_type.name]
        if mine or portion.rollup is None:
            with connection.transaction():
                marked = _mark(connection, event_type, mine, owner, portion, LIVE if live else BACKFILL)
                audit.note(connection, _change(event_type, owner, portion, marked, live=live))
            marks += marked
    return marks


def waiting(connection: Connection[Any], until: datetime, *, live: bool = False) -> int:
    """How many marks of backfills, or of live events, wait that were made until a moment."""
    row = connection.execute(
        "SELECT count(*) FROM totalizer.dirty_marks WHERE priority = %s AND marked_at <= %s",
        [LIVE if live else BACKFILL, until],
    ).fetchone()
    assert row is not None
    return int(row[0])


def standings(connection: Connection[Any]) -> list[Standing]:
    """How far every rollup is, by name."""
    sizes = {}
    for rollup in read_applied(connection).rollups.values():
        tables = [f"analytics.{quoted(rollup.table(level))}" for level in rollup.kept]
        sizes[rollup.name] = connection.execute(
            "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint, "
            "coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class WHERE oid = ANY (%s::regclass[])",
            [tables],
        ).fetchone() or (0, 0)
    rows = connection.execute(
        """
        WITH marks AS (
            SELECT event_type, rollup, scope, priority, count(*) AS n, min(marked_at) AS oldest
            FROM totalizer.dirty_marks GROUP BY 1, 2, 3, 4
        )
        SELECT r.name, r.event_type, r.version,
               coalesce(sum(n) FILTER (WHERE scope = 'events' AND priority = 0), 0)::bigint,
               coalesce(sum(n) FILTER (WHERE scope = 'events' AND priority > 0), 0)::bigint,
               coalesce(sum(n) FILTER (WHERE scope = 'days'), 0)::bigint,
               coalesce(extract(epoch FROM now() - min(oldest) FILTER (WHERE priority = 0)), 0)::double precision
        FROM totalizer.rollups r
        LEFT JOIN marks m ON m.event_type = r.event_type AND (m.rollup IS NULL OR m.rollup = r.name)
        GROUP BY r.name ORDER BY r.name"""
    ).fetchall()
    return [Standing(*row, *sizes[row[0]]) for row in rows]


def _change(event_type: EventType, owner: str | None, portion: Portion, marked: int, *, live: bool) -> Change:
    starts, ends = (None if bound is None else bound.isoformat() for bound in (portion.starts, portion.ends))
    after = {"event_type": event_type.name, "from": starts, "to": ends, "marks": marked}
    action = "rollup.refresh" if live else "rollup.backfill"
    return Change(action, portion.rollup or f"all of {event_type.name}", owner, after=after)


def _named(rollups: dict[str, Rollup], name: str | None) -> list[Rollup]:
    if name is None:
        return list(rollups.values())
    if name not in rollups:
        raise OperationError(f"there is no rollup {name!r} in this database; there are {', '.join(sorted(rollups))}")
    return [rollups[name]]


def _mark(
    connection: Connection[Any], event_type: EventType, rollups: list[Rollup], owner: str | None, portion: Portion,
    priority: int,
) -> int:  # fmt: skip
    def within(table: str, time: str, bucket: str) -> str:
        # Only bounds that there are: the planner takes an infinite one for a narrow part.
        conditions = [
            condition
            for bound, condition in (
                (portion.starts, f"{time} >= %(starts)s"), (portion.ends, f"{time} < %(ends)s"),
                (owner, "organization_id = %(owner)s::uuid"),
            )
            if bound is not None
        ]  # fmt: skip
        return f"SELECT organization_id, {bucket} AS bucket FROM {table} WHERE {' AND '.join(conditions) or 'true'}"

    time = quoted(event_type.time_field)
    # Rows whose events are gone are to vanish.
    buckets = [within(f"events.{quoted(event_type.name)}", time, base_of(time))]
    buckets += [within(f"analytics.{quoted(rollup.base_table)}", "bucket", "bucket") for rollup in rollups]
    return connection.execute(
        f"""
        INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, rollup, priority)
        SELECT organization_id, %(type)s, bucket, %(rollup)s, %(priority)s FROM ({" UNION ".join(buckets)}) AS buckets
        WHERE bucket >= totalizer.raw_floor(%(type)s, organization_id)""".encode(),
        {
            "type": event_type.name, "rollup": portion.rollup, "priority": priority, "owner": owner,
            # A bucket is computed whole or not at all.
            "starts": portion.starts and base_bucket(portion.starts), "ends": portion.ends,
        },
        prepare=False,
    ).rowcount  # fmt: skip
