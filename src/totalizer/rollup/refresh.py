"""Bringing rollups up to their events: take marks, recompute what they name, all in one transaction.

The order is what makes it exact. The shard's lock comes before any snapshot, so an older recompute cannot overwrite a
newer one. Marks are taken by one statement and events read by a later one: whatever is committed in between is read
now, and its own mark, not yet taken, only has it read once more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.rollup.marks import WORK_TABLES, take_marks
from totalizer.rollup.statements import recompute
from totalizer.store.plan import read_rollups

#: Marks taken in one transaction: bounds its length and its locks.
MARKS_MAX = 20_000


class Refreshed(NamedTuple):
    """What one look for marks did.

    Attributes:
        buckets: base buckets recomputed, once for each event type.
        skipped: shards that another worker had locked.
    """

    buckets: int = 0
    skipped: int = 0


def refresh(connection: Connection[Any]) -> Refreshed:
    """Recompute every bucket that is marked now.

    Args:
        connection: autocommit, as the refresher role.

    Raises:
        psycopg.Error: the database is away; marks of unfinished work are kept.
    """
    shards = connection.execute("SELECT DISTINCT event_type, shard FROM totalizer.dirty_marks ORDER BY 1, 2").fetchall()
    if not shards:
        return Refreshed()
    connection.execute(WORK_TABLES)
    buckets = skipped = 0
    for event_type, shard in shards:
        done = refresh_shard(connection, event_type, shard)
        buckets += done or 0
        skipped += done is None
    return Refreshed(buckets, skipped)


def refresh_shard(connection: Connection[Any], event_type: str, shard: int) -> int | None:
    """Recompute the marked buckets of one event type and shard of organisations, at most MARKS_MAX marks.

    Returns:
        How many buckets; None if another worker is at it.
    """
    with connection.transaction():
        locked = connection.execute(
            "SELECT pg_try_advisory_xact_lock(hashtext('rollup ' || %s), %s)", [event_type, shard]
        ).fetchone()
        if locked != (True,):
            return None
        buckets = take_marks(connection, event_type, shard, MARKS_MAX)
        if buckets:
            # Read under the lock: who adds a rollup waits for it, so none is forgotten here.
            declared, rollups = read_rollups(connection, event_type)
            for rollup in rollups:
                for statement in recompute(rollup, declared):
                    connection.execute(statement)
        return buckets
