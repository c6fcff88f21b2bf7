"""Computing rows anew that are not what they are made from, with a record of what was changed.

It works under the lock of the organisation's shard, with the floors held still, and compares once more there: what a
refresh has mended meanwhile, and what retention has taken the source of, is left alone. All grains of a rollup are
repaired in order in one transaction, so that a day is made from quarters that are right already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer import failpoint
from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import Level
from totalizer.failpoint import Failpoint
from totalizer.rollup.cell import Cell, find_cells
from totalizer.rollup.comparison import Part
from totalizer.rollup.marks import WORK_TABLES
from totalizer.rollup.statements import recompute
from totalizer.rollup.usage_books import USAGE, find_usage_cells, put_right
from totalizer.store import audit
from totalizer.store.audit import Change
from totalizer.store.late import hold_floors
from totalizer.store.plan import SHARDS, read_rollups
from totalizer.window import BASE

#: Wrong rows of one grain that are repaired in one transaction, and of those how many are recorded in full.
CELLS_MAX, RECORDED_MAX = 20_000, 1_000

_LOCK = f"SELECT pg_advisory_xact_lock(hashtext('rollup ' || %s), uuid_hash(%s::uuid) & {SHARDS - 1})"
_SPANS = """
    INSERT INTO work (organization_id, _bucket, _scope, _rollup)
    SELECT DISTINCT %(organization)s::uuid, date_bin('15 minutes', starts, 'epoch'::timestamptz), 'events', %(rollup)s
    FROM unnest(%(starts)s::timestamptz[]) AS starts"""
_DAYS = """
    INSERT INTO work_days (organization_id, _day, _starts, _ends, _rollup)
    SELECT DISTINCT %(organization)s::uuid, day, day::timestamp AT TIME ZONE time_zone,
           (day + 1)::timestamp AT TIME ZONE time_zone, %(rollup)s
    FROM unnest(%(starts)s::date[]) AS day, totalizer.organizations WHERE id = %(organization)s::uuid"""


class Wrong(NamedTuple):
    """Where something differs: what is repaired together."""

    organization_id: str
    event_type: str
    rollup: str


def wrong_of(cells: Iterable[Cell]) -> list[Wrong]:
    """Where cells lie, each once."""
    return sorted({Wrong(cell.organization_id, cell.event_type, cell.rollup) for cell in cells})


def repair(
    connection: Connection[Any], wrong: Wrong, *, found_by: str = "verify", repaired_by: str | None = None,
    at: datetime | None = None,
) -> int:  # fmt: skip
    """Compute anew what differs in one organisation's rows of a rollup.

    Args:
        connection: autocommit, as the refresher role.
        wrong: whose rows of what.
        found_by: `verify` or `reconcile`, for the record.
        repaired_by: who has it done, for the record; the database role if None.
        at: only rows that contain this moment; None for all.

    Returns:
        How many rows were wrong.

    Raises:
        psycopg.Error: the database is away; what was not repaired still differs.
    """
    connection.execute(WORK_TABLES)
    total = 0
    while True:
        with connection.transaction():
            rows, more = _repair_once(connection, wrong, found_by, repaired_by, at)
        total += rows
        if not more:
            return total


def _repair_once(
    connection: Connection[Any], wrong: Wrong, found_by: str, repaired_by: str | None, at: datetime | None
) -> tuple[int, bool]:
    """How many rows were wrong, and whether there may be more."""
    connection.execute(_LOCK, [wrong.event_type, wrong.organization_id])
    hold_floors(connection)
    most = total = 0
    if wrong.rollup == USAGE:
        cells = find_usage_cells(connection, Part((wrong.organization_id,)), CELLS_MAX, CELLS_MAX)
        if cells:
            put_right(connection, cells)
            _record(connection, cells, found_by, repaired_by)
            most = total = len(cells)
    event_type, rollups = read_rollups(connection, wrong.event_type)
    for rollup in rollups:
        for level in rollup.kept if rollup.name == wrong.rollup else ():
            part = Part((wrong.organization_id,))
            if at is not None:
                part = part.at(at, level)
            cells = find_cells(connection, rollup, level, event_type, part, CELLS_MAX, CELLS_MAX)
            if cells:
                _compute(connection, rollup, level, event_type, cells)
                _record(connection, cells, found_by, repaired_by)
                most, total = max(most, len(cells)), total + len(cells)
                if failpoint.ARMED:
                    failpoint.hit(Failpoint.LEVEL_REPAIRED)
    if total:
        # Answers that were kept are told anew.
        connection.execute(
            "SELECT totalizer.data_changed(%s::uuid[], %s::text[])", [[wrong.organization_id], [wrong.event_type]]
        )
    return total, most == CELLS_MAX


def _compute(
    connection: Connection[Any], rollup: Rollup, level: Level, event_type: EventType, cells: Sequence[Cell]
) -> None:
    starts = sorted({cell.starts for cell in cells})
    parameters = {"organization": cells[0].organization_id, "rollup": rollup.name, "starts": starts}
    table = "work_days" if level.local else "work"
    connection.execute((_DAYS if level.local else _SPANS).encode(), parameters)
    connection.execute(f"ANALYZE {table}".encode())
    [(delete, insert)] = [(drop, put) for each, drop, put in recompute(rollup, event_type) if each is level]
    connection.execute(delete.encode(), prepare=False)
    span = None
    if level.source is None:
        span = {"starts": starts[0] - BASE, "ends": starts[-1] + BASE}
    connection.execute(insert.encode(), span, prepare=False)
    connection.execute(f"DELETE FROM {table}".encode())


def _record(connection: Connection[Any], cells: Sequence[Cell], found_by: str, repaired_by: str | None) -> None:
    first = cells[0]
    changes = [
        {
            "starts": cell.starts.isoformat(), "dimensions": cell.dimensions, "expected": cell.expected,
            "found": cell.found,
        }
        for cell in cells[:RECORDED_MAX]
    ]  # fmt: skip
    connection.execute(
        "INSERT INTO totalizer.repairs "
        "(repaired_by, found_by, organization_id, event_type, rollup, grain, rows, changes) "
        "VALUES (coalesce(%s, session_user), %s, %s, %s, %s, %s, %s, %s::jsonb)",
        [
            repaired_by, found_by, first.organization_id, first.event_type, first.rollup, first.level.suffix,
            len(cells), json.dumps(changes, default=str),
        ],
    )  # fmt: skip
    after = {"grain": first.level.suffix, "rows": len(cells), "found_by": found_by}
    audit.note(connection, Change("rollup.repair", first.rollup, first.organization_id, after=after))
