"""Clearing rows of single minutes away that are older than their rollup promises."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from totalizer.catalog import Rollup
from totalizer.catalog.levels import MINUTE
from totalizer.catalog.quoting import quoted
from totalizer.rollup.statements import MINUTES_GRACE
from totalizer.store.plan import read_applied

#: Rows removed by one statement, and of one organisation.
ROWS_MAX, OWN_ROWS_MAX = 10_000, 2_000


def clear_minutes(connection: Connection[Any]) -> dict[str, Any]:
    """Remove minutes older than is promised and an hour, which no refresh computes any more.

    Args:
        connection: autocommit, as the refresher role.

    Returns:
        `rows`: how many; `tables`: how many of which, without those of none.

    Raises:
        psycopg.Error: the database is away; the next run goes on.
    """
    removed = {
        rollup.table(MINUTE): _clear(connection, rollup)
        for rollup in read_applied(connection).rollups.values()
        if rollup.keeps(MINUTE) and rollup.minutes_s is not None
    }
    return {"rows": sum(removed.values()), "tables": {name: rows for name, rows in removed.items() if rows}}


def _clear(connection: Connection[Any], rollup: Rollup) -> int:
    table = f"analytics.{quoted(rollup.table(MINUTE))}"
    # By organisation: the key begins with it, so that old rows are found without reading those that stay.
    statement = (
        f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("
        f"SELECT old.ctid FROM totalizer.organizations o, LATERAL (SELECT m.ctid FROM {table} m "
        f"WHERE m.organization_id = o.id AND m.bucket < now() - interval '{rollup.minutes_s} seconds' - {MINUTES_GRACE}"
        f" LIMIT {OWN_ROWS_MAX}) AS old LIMIT {ROWS_MAX}))"
    ).encode()
    total = 0
    while rows := connection.execute(statement).rowcount:
        total += rows
    return total
