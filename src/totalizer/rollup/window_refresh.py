"""Bringing the rollups of a window of time up to their events now, and marking a window for that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import Rollup
from totalizer.catalog.quoting import quoted
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.rollup.parts import Portion, mark_part
from totalizer.rollup.refresh import refresh
from totalizer.store.plan import read_applied
from totalizer.store.runs import database_now

#: Seconds to wait for another worker who is at the window's buckets.
PAUSE_S = 0.2


class Brought(NamedTuple):
    """What bringing a window up to date did.

    Attributes:
        buckets: base buckets recomputed; some may be others' than the window's, taken along.
        behind: buckets of the window that were marked before and still are; 0 unless nobody can recompute them.
    """

    buckets: int
    behind: int


def bring_up(
    connection: Connection[Any], start: datetime, end: datetime, check: Callable[[], None], clock: Clock = SYSTEM_CLOCK
) -> Brought:
    """Recompute until no bucket of the window is marked that is marked now.

    What is marked while it works is left to the next: a window that is written to all the time would never be done.

    Args:
        connection: autocommit, as the refresher role.
        start, end: the window, end excluded.
        check: called between two pieces of work; may raise.
        clock: time source.
    """
    since = database_now(connection)
    buckets = 0
    while True:
        behind = _behind(connection, start, end, since)
        if not behind:
            return Brought(buckets, 0)
        check()
        done = refresh(connection)
        buckets += done.buckets
        if done.skipped:
            clock.sleep(PAUSE_S)
        elif not done.buckets:
            return Brought(buckets, _behind(connection, start, end, since))


def mark(connection: Connection[Any], start: datetime, end: datetime) -> int:
    """Mark a window behind all that is live, as `mark_part` does; returns how many marks that are.

    Args:
        connection: as the refresher role.
        start, end: whole buckets, end excluded.
    """
    return mark_part(connection, Portion(starts=start, ends=end))


def rows_of_days(connection: Connection[Any], first: date, end: date) -> int:
    """Rows of all rollups for local days, end excluded."""
    return _rows(connection, "day", first, end, lambda rollup: rollup.day_table)


def rows_of_buckets(connection: Connection[Any], start: datetime, end: datetime) -> int:
    """Rows of all rollups for the base buckets of a window, end excluded."""
    return _rows(connection, "bucket", start, end, lambda rollup: rollup.base_table)


def _behind(connection: Connection[Any], start: datetime, end: datetime, since: datetime) -> int:
    row = connection.execute(
        "SELECT count(*) FROM (SELECT DISTINCT organization_id, event_type, bucket FROM totalizer.dirty_marks "
        "WHERE bucket >= %s AND bucket < %s AND marked_at <= %s) AS marked",
        [start, end, since],
    ).fetchone()
    assert row is not None
    return int(row[0])


def _rows(connection: Connection[Any], column: str, start: Any, end: Any, table: Callable[[Rollup], str]) -> int:
    total = 0
    for rollup in read_applied(connection).rollups.values():
        # By organisation, which the key begins with.
        row = connection.execute(
            "SELECT coalesce(sum(n), 0)::bigint FROM totalizer.organizations o, LATERAL (SELECT count(*) AS n FROM "
            f"analytics.{quoted(table(rollup))} r WHERE r.organization_id = o.id AND r.{column} >= %s "
            f"AND r.{column} < %s) AS counted",
            [start, end],
        ).fetchone()
        assert row is not None
        total += int(row[0])
    return total
