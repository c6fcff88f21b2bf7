"""Local days when their zone changes: because an organisation moves, or because the time zone database does.

Quarters and hours are kept in UTC and stay as they are. Days, weeks and months that are in question are deleted, and a
mark of scope `days` on each local day that has quarters has them computed again. Until then readers use the quarters.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import DAY, MONTH, WEEK
from totalizer.catalog.quoting import quoted
from totalizer.errors import OperationError
from totalizer.rollup.marks import WORK_TABLES
from totalizer.rollup.statements import recompute
from totalizer.store.late import hold_floors
from totalizer.store.plan import SHARDS, read_applied
from totalizer.window import zone as known_zone

#: The first and the last day from which on the clock of a zone is watched; the last lies so far ahead.
WATCHED_FROM, WATCHED_AHEAD = date(1970, 1, 1), timedelta(days=400)

_LOCK = f"""
    SELECT pg_advisory_xact_lock(hashtext('rollup ' || name), shard) FROM (
        SELECT DISTINCT name, uuid_hash(o.id) & {SHARDS - 1} AS shard
        FROM totalizer.event_types, unnest(%s::uuid[]) AS o (id) ORDER BY 1, 2 OFFSET 0
    ) AS shards"""

# When each day begins and ends as PostgreSQL sees it, by months.
_FINGERPRINTS = """
    SELECT time_zone, date_trunc('month', day)::date AS month,
           md5(string_agg(extract(epoch FROM day AT TIME ZONE time_zone) || ' '
                          || extract(epoch FROM (day + interval '1 day') AT TIME ZONE time_zone), ',' ORDER BY day)
           ) AS fingerprint
    FROM (SELECT DISTINCT time_zone FROM totalizer.organizations) AS zones,
         generate_series(%(first)s::timestamp, %(last)s::timestamp, interval '1 day') AS day
    GROUP BY 1, 2"""


class ZoneChange(NamedTuple):
    """What a change of an organisation's zone did.

    Attributes:
        organization_id: whose.
        before, after: the zones.
        days: local days that were marked, counted once for each event type.
        kept_until: the last day that stays as it was, of some event type at least, since the quarters it was made from
            are not kept any more; None if all days are computed again.
    """

    organization_id: str
    before: str
    after: str
    days: int
    kept_until: date | None


def set_zone(connection: Connection[Any], organization: str, zone: str) -> ZoneChange:
    """Give an organisation another time zone, all in one transaction.

    Args:
        connection: autocommit, as an administrator.
        organization: its name.
        zone: an IANA name.

    Raises:
        OperationError: there is no such organisation, or no such zone.
    """
    _check(connection, zone)
    connection.execute(WORK_TABLES)
    with connection.transaction():
        row = connection.execute(
            "SELECT id::text, time_zone FROM totalizer.organizations WHERE name = %s", [organization]
        ).fetchone()
        if row is None:
            raise OperationError(f"there is no organisation {organization!r}")
        connection.execute(_LOCK, [[row[0]]])
        # What the refreshes before left, and nobody changes it now.
        connection.execute("SELECT FROM totalizer.organizations WHERE id = %s FOR UPDATE", [row[0]])
        hold_floors(connection)
        kept = _kept_until(connection, row[0])
        connection.execute("UPDATE totalizer.organizations SET time_zone = %s WHERE id = %s", [zone, row[0]])
        days = _compute_again(connection, row[0], kept, None, None)
    return ZoneChange(row[0], row[1], zone, days, max(kept.values(), default=None))


def check_zones(connection: Connection[Any]) -> dict[str, Any]:
    """Have the days computed again whose bounds the database's time zones have moved.

    Of each month of each zone in use a fingerprint is kept. Where it differs from what PostgreSQL says now, after an
    update of its time zone data, the days of that month are marked, of every organisation in that zone.

    Args:
        connection: autocommit, as the refresher role.

    Returns:
        `zones` that changed and `days` marked; empty if none did.
    """
    connection.execute(WORK_TABLES)
    with connection.transaction():
        # Two checks at once would both find the same.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('totalizer zones'))")
        changed = _changed(connection)
        days = 0
        for zone, months in changed.items():
            organizations = [
                row[0]
                for row in connection.execute(
                    "SELECT id::text FROM totalizer.organizations WHERE time_zone = %s ORDER BY id", [zone]
                )
            ]
            connection.execute(_LOCK, [organizations])
            hold_floors(connection)
            for organization in organizations:
                kept, since = _kept_until(connection, organization), months[0] - timedelta(days=1)
                days += _compute_again(connection, organization, kept, since, months[-1] + timedelta(days=32))
    return {"zones": sorted(changed), "days": days} if changed else {}


def _changed(connection: Connection[Any]) -> dict[str, list[date]]:
    """Zones whose fingerprints differ from those kept, with the months, in order; keeps the new ones."""
    row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    rows = connection.execute(
        f"""
        WITH now AS MATERIALIZED ({_FINGERPRINTS}), before AS MATERIALIZED (
            SELECT n.*, k.fingerprint AS kept
            FROM now n LEFT JOIN totalizer.zone_fingerprints k USING (time_zone, month)
        ), noted AS (
            INSERT INTO totalizer.zone_fingerprints (time_zone, month, fingerprint)
            SELECT time_zone, month, fingerprint FROM before WHERE kept IS DISTINCT FROM fingerprint
            ON CONFLICT (time_zone, month) DO UPDATE SET fingerprint = excluded.fingerprint, noted_at = now()
        ) SELECT time_zone, month FROM before WHERE kept <> fingerprint ORDER BY 1, 2""".encode(),
        # Whole months: the last one's fingerprint must not change as time goes on.
        {"first": WATCHED_FROM, "last": (row[0] + WATCHED_AHEAD).replace(day=1) - timedelta(days=1)},
    ).fetchall()
    changed: dict[str, list[date]] = {}
    for zone, month in rows:
        changed.setdefault(zone, []).append(month)
    return changed


def _check(connection: Connection[Any], zone: str) -> None:
    """Python reads a query's dates in the zone, PostgreSQL computes its days: both must know it."""
    try:
        known_zone(zone)
        connection.execute("SELECT now() AT TIME ZONE %s", [zone])
    except (ValueError, psycopg.errors.InvalidParameterValue):
        raise OperationError(f"the time zone {zone!r} is not known; use an IANA name such as 'Europe/Berlin'") from None


def _kept_until(connection: Connection[Any], organization: str) -> dict[str, date]:
    """By event type, the last day that stays as it is, since the quarters it was made from are cleared, or may be.

    Days below the base floor can only be added to. The one in which the floor lies has lost some of its quarters.
    """
    return dict(
        connection.execute(
            """
            SELECT t.name, (f.base_floor AT TIME ZONE o.time_zone)::date
            FROM totalizer.event_types t, totalizer.organizations o, LATERAL totalizer.floors_of(t.name, o.id) f
            WHERE o.id = %s AND f.base_floor > '-infinity'""",
            [organization],
        ).fetchall()
    )


def _compute_again(
    connection: Connection[Any], organization: str, kept: Mapping[str, date], since: date | None, until: date | None
) -> int:
    """Delete the days from `since` to `until`, and the weeks and months they lie in, and mark the days to be made.

    Args:
        connection: in a transaction that has the locks of the organisation's shards, and holds the floors.
        organization: whose.
        kept: by event type, the last day that must stay.
        since, until: None for all.
    """
    applied = read_applied(connection)
    of_type: dict[str, list[Rollup]] = {}
    for rollup in applied.rollups.values():
        of_type.setdefault(rollup.event_type, []).append(rollup)
    days = 0
    for name, rollups in of_type.items():
        first = max((day for day in (since, kept.get(name) and kept[name] + timedelta(days=1)) if day), default=None)
        for rollup in rollups:
            _delete(connection, rollup, applied.event_types[name], organization, first, until)
        days += _mark(connection, name, rollups, organization, first, until)
    return days


def _delete(
    connection: Connection[Any], rollup: Rollup, event_type: EventType, organization: str,
    since: date | None, until: date | None,
) -> None:  # fmt: skip
    span = {"o": organization, "since": since or "-infinity", "until": until or "infinity"}
    connection.execute(
        f"DELETE FROM analytics.{quoted(rollup.table(DAY))} "
        "WHERE organization_id = %(o)s AND day BETWEEN %(since)s::date AND %(until)s::date".encode(),
        span,
    )
    for level, length in ((WEEK, "7 days"), (MONTH, "1 month")):
        if rollup.keeps(level):
            connection.execute(
                f"DELETE FROM analytics.{quoted(rollup.table(level))} WHERE organization_id = %(o)s "
                f"AND {level.key} + interval '{length}' > %(since)s::date AND {level.key} <= %(until)s::date".encode(),
                span,
            )
    # The weeks and months at either end have days that stay.
    ends = [day for day in (since and since - timedelta(days=1), until and until + timedelta(days=1)) if day]
    connection.execute("DELETE FROM work_days")
    connection.execute(
        "INSERT INTO work_days (organization_id, _day) SELECT %s, unnest(%s::date[])", [organization, ends]
    )
    for level, delete, insert in recompute(rollup, event_type):
        if level in (WEEK, MONTH):
            connection.execute(delete.encode())
            connection.execute(insert.encode())
    connection.execute("DELETE FROM work_days")


def _mark(
    connection: Connection[Any], event_type: str, rollups: list[Rollup], organization: str,
    since: date | None, until: date | None,
) -> int:  # fmt: skip
    quarters = " UNION ".join(
        f"SELECT bucket FROM analytics.{quoted(rollup.base_table)} WHERE organization_id = %(o)s" for rollup in rollups
    )
    return connection.execute(
        f"""
        INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, scope, priority)
        SELECT %(o)s::uuid, %(type)s, min(bucket), 'days', 1
        FROM ({quarters}) AS quarters, totalizer.organizations o,
             LATERAL (SELECT (bucket AT TIME ZONE o.time_zone)::date AS d) AS local,
             LATERAL (VALUES (d), (d - 1), (d + 1)) AS near (day)
        WHERE o.id = %(o)s AND day BETWEEN %(since)s::date AND %(until)s::date
          AND bucket >= day::timestamp AT TIME ZONE o.time_zone
          AND bucket < (day + 1)::timestamp AT TIME ZONE o.time_zone
        GROUP BY day""".encode(),
        {"o": organization, "type": event_type, "since": since or "-infinity", "until": until or "infinity"},
    ).rowcount
