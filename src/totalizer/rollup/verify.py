"""Proving that the books balance: ledger = events = base buckets = days, for every organisation.

All of it is read in one snapshot. A bucket with a mark is behind by its own account and is left out of the comparison
of events with base buckets; everything else must be equal to the last digit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection, IsolationLevel

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.rollup.statements import base_of
from totalizer.store.ddl import rollup_states
from totalizer.store.plan import read_applied


class Balance(NamedTuple):
    """The books of one organisation and event type.

    Attributes:
        organization_id, organization: whose they are.
        event_type: of which events.
        events: rows stored.
        ledger: rows the loader says it stored.
        dirty_buckets: base buckets that are marked, and so not compared.
        mismatches: for each rollup with any, how many rows differ between events and base, or base and days.
    """

    organization_id: str
    organization: str
    event_type: str
    events: int
    ledger: int
    dirty_buckets: int
    mismatches: dict[str, int]

    @property
    def exact(self) -> bool:
        """True if nothing differs."""
        return self.events == self.ledger and not self.mismatches


def verify(connection: Connection[Any]) -> list[Balance]:
    """The balance of every organisation and event type that has any events.

    Args:
        connection: as the refresher role, not in a transaction.
    """
    isolation = connection.isolation_level
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            applied = read_applied(connection)
            balances = []
            for event_type in applied.event_types.values():
                rollups = [rollup for rollup in applied.rollups.values() if rollup.event_type == event_type.name]
                balances += _balances(connection, event_type, rollups)
            return balances
    finally:
        connection.isolation_level = isolation


def _balances(connection: Connection[Any], event_type: EventType, rollups: list[Rollup]) -> list[Balance]:
    mismatches: dict[str, dict[str, int]] = {}
    for rollup in rollups:
        for what, statement in (
            ("base", _base_differences(rollup, event_type)),
            ("day", _day_differences(rollup, event_type)),
        ):
            for organization, count in connection.execute(statement):
                mismatches.setdefault(str(organization), {})[f"{rollup.name} ({what})"] = count
    rows = connection.execute(
        f"""
        WITH stored AS (
            SELECT organization_id, count(*) AS events FROM events.{quoted(event_type.name)} GROUP BY 1
        ), ledger AS (
            SELECT organization_id, sum(loaded)::bigint AS loaded FROM totalizer.ledger
            WHERE event_type = %(type)s GROUP BY 1
        ), dirty AS (
            SELECT organization_id, count(DISTINCT bucket) AS buckets FROM totalizer.dirty_marks
            WHERE event_type = %(type)s GROUP BY 1
        )
        SELECT o.id::text, o.name, coalesce(events, 0), coalesce(loaded, 0), coalesce(buckets, 0)
        FROM totalizer.organizations o
        LEFT JOIN stored s ON s.organization_id = o.id
        LEFT JOIN ledger l ON l.organization_id = o.id
        LEFT JOIN dirty d ON d.organization_id = o.id
        WHERE events IS NOT NULL OR loaded IS NOT NULL OR o.id::text = ANY (%(mismatched)s)
        ORDER BY o.name""",
        {"type": event_type.name, "mismatched": list(mismatches)},
    )
    return [
        Balance(organization_id, name, event_type.name, events, ledger, dirty, mismatches.get(organization_id, {}))
        for organization_id, name, events, ledger, dirty in rows
    ]


def _base_differences(rollup: Rollup, event_type: EventType) -> str:
    states = rollup_states(rollup, event_type)
    dimensions = "".join(f", {quoted(name)}" for name in rollup.dimensions)
    columns = quoted_list(["organization_id", "bucket", *rollup.dimensions, *(state.column for state in states)])
    aggregates = ", ".join(f"{state.from_events} AS {quoted(state.column)}" for state in states)
    bucket = base_of(quoted(event_type.time_field))
    return _differences(
        f"SELECT organization_id, {bucket} AS bucket{dimensions}, {aggregates} "
        f"FROM events.{quoted(event_type.name)} GROUP BY organization_id, {bucket}{dimensions}",
        f"SELECT {columns} FROM analytics.{quoted(rollup.base_table)}",
        "WHERE NOT EXISTS (SELECT FROM totalizer.dirty_marks m WHERE m.organization_id = side.organization_id "
        f"AND m.event_type = '{event_type.name}' AND m.bucket = side.bucket AND m.scope = 'events' "
        f"AND (m.rollup IS NULL OR m.rollup = '{rollup.name}'))",
    )


def _day_differences(rollup: Rollup, event_type: EventType) -> str:
    states = rollup_states(rollup, event_type)
    dimensions = "".join(f", {quoted(name)}" for name in rollup.dimensions)
    columns = quoted_list(["organization_id", "day", *rollup.dimensions, *(state.column for state in states)])
    merged = ", ".join(f"{state.from_states} AS {quoted(state.column)}" for state in states)
    # Near a clock change the local date of a bucket can be off by one; the day's bounds decide, as in the refresh.
    return _differences(
        f"""SELECT organization_id, day{dimensions}, {merged}
            FROM analytics.{quoted(rollup.base_table)} b JOIN totalizer.organizations o ON o.id = organization_id,
                 LATERAL (SELECT (bucket AT TIME ZONE o.time_zone)::date AS d) AS local,
                 LATERAL (VALUES (d), (d - 1), (d + 1)) AS near (day)
            WHERE bucket >= day::timestamp AT TIME ZONE o.time_zone
              AND bucket < (day + 1)::timestamp AT TIME ZONE o.time_zone
            GROUP BY organization_id, day{dimensions}""",
        f"SELECT {columns} FROM analytics.{quoted(rollup.day_table)}",
        "",
    )


def _differences(truth: str, kept: str, condition: str) -> str:
    """Rows by organisation that stand on one side only, duplicates counted."""
    return f"""
        WITH truth AS MATERIALIZED (SELECT * FROM ({truth}) AS side {condition}),
             kept AS MATERIALIZED (SELECT * FROM ({kept}) AS side {condition})
        SELECT organization_id, count(*) FROM (
            (SELECT * FROM truth EXCEPT ALL SELECT * FROM kept)
            UNION ALL
            (SELECT * FROM kept EXCEPT ALL SELECT * FROM truth)
        ) AS differing GROUP BY 1"""
