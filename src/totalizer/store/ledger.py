"""SQL of the books: each organisation's balance by the hour, summing up, forgetting what no receipt asks any more."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection, IsolationLevel
from psycopg.rows import class_row

Rows = Connection[Any]

#: How old rows of the ledger are when they are summed up. Events of one hour are mostly loaded within it, so most hours
#: are summed up once.
COMPACTED_AFTER = "1 hour"


class Hour(NamedTuple):
    """What one organisation sent in one hour, and what became of it.

    Attributes:
        organization_id, organization: whose; no name if there is no such organisation, as for bytes nobody can read.
        hour: of receipt.
        rejected: refused, never acknowledged.
        accepted: acknowledged and read from a journal by the loader.
        loaded, duplicate, conflict, dead_lettered, dropped: fates of what was accepted.
    """

    organization_id: str
    organization: str | None
    hour: datetime
    rejected: int
    accepted: int
    loaded: int
    duplicate: int
    conflict: int
    dead_lettered: int
    dropped: int

    @property
    def difference(self) -> int:
        """Accepted events without a fate; less than 0 if some have two."""
        return self.accepted - self.loaded - self.duplicate - self.conflict - self.dead_lettered - self.dropped


class Letters(NamedTuple):
    """Dead letters of an organisation: how many the ledger counts, and how many there are."""

    organization_id: str
    counted: int
    kept: int


def balance(
    connection: Rows, *, organization_id: str | None = None, since: datetime | None = None
) -> tuple[list[Hour], list[Letters]]:
    """The books of every organisation, by the hour, and the organisations whose dead letters differ from them.

    Args:
        connection: as the refresher, autocommit.
        organization_id: of this one only.
        since: hours from this time on; the dead letters are compared over all time.
    """
    isolation = connection.isolation_level
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            return _hours(connection, organization_id, since), _letters(connection, organization_id)
    finally:
        connection.isolation_level = isolation


def _hours(connection: Rows, organization_id: str | None, since: datetime | None) -> list[Hour]:
    with connection.cursor(row_factory=class_row(Hour)) as cursor:
        return cursor.execute(
            """
            WITH sums AS (
                SELECT organization_id, received_hour AS hour, 0 AS rejected, accepted, loaded, duplicate, conflict,
                       dead_lettered, dropped FROM totalizer.ledger
                UNION ALL
                SELECT organization_id, hour, events, 0, 0, 0, 0, 0, 0 FROM totalizer.rejected_events
            )
            SELECT s.organization_id::text, min(o.name) AS organization, hour, sum(rejected)::bigint AS rejected,
                   sum(accepted)::bigint AS accepted, sum(loaded)::bigint AS loaded,
                   sum(duplicate)::bigint AS duplicate, sum(conflict)::bigint AS conflict,
                   sum(dead_lettered)::bigint AS dead_lettered, sum(dropped)::bigint AS dropped
            FROM sums s LEFT JOIN totalizer.organizations o ON o.id = s.organization_id
            WHERE (%(organization)s::uuid IS NULL OR s.organization_id = %(organization)s::uuid)
              AND (%(since)s::timestamptz IS NULL OR hour >= %(since)s::timestamptz)
            GROUP BY s.organization_id, hour ORDER BY min(o.name), s.organization_id, hour""",
            {"organization": organization_id, "since": since},
        ).fetchall()


def _letters(connection: Rows, organization_id: str | None) -> list[Letters]:
    with connection.cursor(row_factory=class_row(Letters)) as cursor:
        return cursor.execute(
            """
            SELECT organization_id::text, sum(counted)::bigint AS counted, sum(kept)::bigint AS kept FROM (
                SELECT organization_id, dead_lettered AS counted, 0 AS kept FROM totalizer.ledger
                UNION ALL
                SELECT organization_id, 0, 1 FROM totalizer.dead_letters WHERE columns <> '{}'
            ) AS both_sides
            WHERE %(organization)s::uuid IS NULL OR organization_id = %(organization)s::uuid
            GROUP BY 1 HAVING sum(counted) <> sum(kept)""",
            {"organization": organization_id},
        ).fetchall()


def compact(connection: Rows) -> int:
    """Sum up the older rows of the ledger by the hour of receipt; returns how many rows that took away.

    One statement removes them and adds them up, so the sums are the same for whoever looks, whoever dies and however
    many loaders add rows meanwhile. Of two that compact at once, one waits and finds the rows gone.

    Args:
        connection: as the refresher, autocommit.
    """
    row = connection.execute(
        f"""
        WITH taken AS (
            DELETE FROM totalizer.load_ledger WHERE loaded_at < now() - interval '{COMPACTED_AFTER}' RETURNING *
        ), sums AS (
            SELECT organization_id, event_type,
                   coalesce(received_hour, date_trunc('hour', loaded_at, 'UTC')) AS received_hour,
                   sum(coalesce(accepted, loaded + duplicate + conflict + dead_lettered + dropped)) AS accepted,
                   sum(loaded) AS loaded, sum(duplicate) AS duplicate, sum(conflict) AS conflict,
                   sum(dead_lettered) AS dead_lettered, sum(dropped) AS dropped
            FROM taken GROUP BY 1, 2, 3
        ), added AS (
            INSERT INTO totalizer.load_ledger_hourly AS h (organization_id, event_type, received_hour, accepted,
                loaded, duplicate, conflict, dead_lettered, dropped)
            SELECT organization_id, event_type, received_hour, accepted, loaded, duplicate, conflict, dead_lettered,
                   dropped
            FROM sums ORDER BY 1, 2, 3
            ON CONFLICT (organization_id, event_type, received_hour) DO UPDATE SET
                accepted = h.accepted + excluded.accepted, loaded = h.loaded + excluded.loaded,
                duplicate = h.duplicate + excluded.duplicate, conflict = h.conflict + excluded.conflict,
                dead_lettered = h.dead_lettered + excluded.dead_lettered, dropped = h.dropped + excluded.dropped
            RETURNING 1
        )
        SELECT count(*), (SELECT count(*) FROM added) FROM taken"""
    ).fetchone()
    assert row is not None
    return int(row[0])


def forget_fates(connection: Rows, days: int) -> int:
    """Remove the fates that no receipt can ask for any more; returns how many rows.

    Those of dead letters stay as long as the letters do, and gaps of unreadable records as well.

    Args:
        connection: as the refresher, autocommit.
        days: how long receipts are good for. A fate is noted after its receipt was given, so none is missed.
    """
    fates = connection.execute(
        "DELETE FROM totalizer.event_fates WHERE recorded_at < now() - make_interval(days => %s) "
        "AND dead_letter_id IS NULL",
        [days],
    )
    gaps = connection.execute(
        "DELETE FROM totalizer.journal_gaps WHERE found_at < now() - make_interval(days => %s) "
        "AND dead_letter_id IS NULL",
        [days],
    )
    return fates.rowcount + gaps.rowcount
