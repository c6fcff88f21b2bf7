"""Always looking: rows of every rollup are picked at random and held against what they are made from.

Half of the moments are of the last two days, most of them of the last hours; the others lie anywhere. Each is that of
an event or of a row that is there, of whatever grain, so rows that are missing are found and those that should not be.
"""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.quoting import quoted
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.rollup.cell import Cell, find_cells
from totalizer.rollup.comparison import Part
from totalizer.rollup.repair import repair, wrong_of
from totalizer.store.plan import read_applied

#: Moments picked for each rollup in one run.
SAMPLES = 4
#: Seconds after which a run looks at no further rollup; which come first is left to chance.
BUDGET_S = 5.0

#: Blocks of a table that are read to pick one row of it.
_BLOCKS = 8
_RECENTLY = "now() - random() * random() * interval '2 days'"


class Checked(NamedTuple):
    """What one look at a rollup found.

    Attributes:
        checked: spans of any grain that were held against their source.
        cells: the rows that differ.
        repaired: how many were computed anew.
    """

    checked: int
    cells: list[Cell]
    repaired: int


def reconcile(
    connection: Connection[Any], *, samples: int = SAMPLES, budget_s: float = BUDGET_S, clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Look at some rows of every rollup, repair those that are wrong, and note how many that were.

    Args:
        connection: autocommit, as the refresher role.
        samples: moments picked for each rollup.
        budget_s: seconds after which no further rollup is looked at.
        clock: for the budget.
        rng: decides which rollup comes first.

    Returns:
        `checked`, `mismatched`, `repaired`: counts; `rollups`: how many were looked at; `mismatches`: the first wrong
        rows, for people; `duration_ms`.

    Raises:
        psycopg.Error: the database is away.
    """
    started = clock.monotonic()
    applied = read_applied(connection)
    rollups = list(applied.rollups.values())
    (rng or random.Random()).shuffle(rollups)
    looked, total = 0, Checked(0, [], 0)
    for rollup in rollups:
        if looked and clock.monotonic() - started > budget_s:
            break
        checked = _look_at(connection, rollup, applied.event_types[rollup.event_type], samples)
        _note(connection, rollup, checked)
        total = Checked(total.checked + checked.checked, total.cells + checked.cells, total.repaired + checked.repaired)
        looked += 1
    return {
        "checked": total.checked, "mismatched": len(total.cells), "repaired": total.repaired, "rollups": looked,
        "mismatches": [cell.document() for cell in total.cells[:10]],
        "duration_ms": round(1000 * (clock.monotonic() - started)),
    }  # fmt: skip


def _look_at(connection: Connection[Any], rollup: Rollup, event_type: EventType, samples: int) -> Checked:
    checked = repaired = 0
    found: list[Cell] = []
    for organization, moment in _sample(connection, rollup, event_type, samples):
        cells = []
        for level in rollup.kept:
            part = Part((organization,)).at(moment, level)
            cells += find_cells(connection, rollup, level, event_type, part, 100, 100)
            checked += 1
        for wrong in wrong_of(cells):
            repaired += repair(connection, wrong, found_by="reconcile", at=moment)
        found += cells
    return Checked(checked, found, repaired)


def _sample(
    connection: Connection[Any], rollup: Rollup, event_type: EventType, samples: int
) -> list[tuple[str, datetime]]:
    """Organisations with moments at which one has an event, or a row of some grain."""
    events = (f"events.{quoted(event_type.name)}", event_type.time_field, False)
    rows = [(f"analytics.{quoted(rollup.table(level))}", level.key, level.local) for level in rollup.kept]
    picked: list[tuple[str, datetime]] = []
    for _ in range(samples):
        # Events every other time: what they are in is looked at in all grains.
        source = random.choice([events, random.choice(rows)])
        picked += random.choice([_recent, _anywhere])(connection, *source)
    return picked


def _anywhere(connection: Connection[Any], table: str, key: str, local: bool) -> list[tuple[str, datetime]]:
    """Any row of a table, found in a few of its blocks."""
    row = connection.execute(
        "SELECT sum(pg_relation_size(relid)) / current_setting('block_size')::bigint FROM pg_partition_tree(%s)",
        [table],
    ).fetchone()
    assert row is not None
    share = 100.0 * min(1.0, _BLOCKS / max(1, int(row[0] or 0)))
    found = connection.execute(
        f"SELECT o.id::text, {_moment(key, local)} FROM {table} r TABLESAMPLE SYSTEM ({share}) "
        "JOIN totalizer.organizations o ON o.id = r.organization_id ORDER BY random() LIMIT 1".encode()
    )
    return [(row[0], row[1]) for row in found]


def _recent(connection: Connection[Any], table: str, key: str, local: bool) -> list[tuple[str, datetime]]:
    """The first row of any organisation from a late moment on, else its last before."""
    column, at = f"r.{quoted(key)}", "(o.at AT TIME ZONE 'UTC')::date" if local else "o.at"
    found = connection.execute(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT *, {_RECENTLY} AS at FROM totalizer.organizations ORDER BY random() LIMIT 1
        )
        SELECT o.id::text, {_moment(key, local)} FROM chosen o, LATERAL (
            (SELECT {column} FROM {table} r WHERE organization_id = o.id AND {column} >= {at}
             ORDER BY 1 LIMIT 1)
            UNION ALL
            (SELECT {column} FROM {table} r WHERE organization_id = o.id AND {column} < {at}
             ORDER BY 1 DESC LIMIT 1)
            LIMIT 1
        ) AS r""".encode()
    )
    return [(row[0], row[1]) for row in found]


def _moment(key: str, local: bool) -> str:
    column = f"r.{quoted(key)}"
    return f"{column}::timestamp AT TIME ZONE o.time_zone" if local else column


def _note(connection: Connection[Any], rollup: Rollup, checked: Checked) -> None:
    connection.execute(
        """
        INSERT INTO totalizer.reconciled AS r (day, rollup, checked, mismatched)
        VALUES ((now() AT TIME ZONE 'UTC')::date, %s, %s, %s)
        ON CONFLICT (day, rollup) DO UPDATE SET looked_at = now(), checked = r.checked + excluded.checked,
            mismatched = r.mismatched + excluded.mismatched""",
        [rollup.name, checked.checked, len(checked.cells)],
    )
