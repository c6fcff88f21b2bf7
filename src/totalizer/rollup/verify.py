"""Proving that the books balance: ledger = events = every grain of every rollup, for every organisation.

All of it is read in one snapshot. Each grain is compared with what it is made from: minutes and quarters with events,
hours and days with quarters, weeks and months with days. What a mark says is behind is left out; everything else must
be equal to the last digit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection, IsolationLevel

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import BASE, DAY, HOUR, MINUTE, MONTH, WEEK, Level
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.rollup.statements import base_of
from totalizer.rollup.verify_floors import ACCOUNTED_FOR, floors_of_side, source_kept
from totalizer.store.ddl import rollup_states
from totalizer.store.plan import read_applied

#: What each grain is called in a balance.
_NAMES = {MINUTE: "minute", BASE: "base", HOUR: "hour", DAY: "day", WEEK: "week", MONTH: "month"}


class Balance(NamedTuple):
    """The books of one organisation and event type.

    Attributes:
        organization_id, organization: whose they are.
        event_type: of which events.
        events: stored, kept beside the tables since they came late, or removed since they were older than is kept.
        ledger: rows the loader says it stored.
        dirty_buckets: base buckets that are marked, and so not compared.
        mismatches: for each rollup and grain with any, how many rows differ from what they are made from.
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
        for level in rollup.kept:
            for organization, count in connection.execute(_differences(rollup, level, event_type).encode()):
                mismatches.setdefault(str(organization), {})[f"{rollup.name} ({_NAMES[level]})"] = count
    rows = connection.execute(
        f"""
        WITH stored AS (
            SELECT organization_id, sum(events)::bigint AS events FROM (
                SELECT organization_id, count(*) AS events FROM events.{quoted(event_type.name)} GROUP BY 1
                UNION ALL ({ACCOUNTED_FOR})
            ) AS everywhere GROUP BY 1
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


def _differences(rollup: Rollup, level: Level, event_type: EventType) -> str:
    """Rows by organisation that stand on one side only, duplicates counted."""
    states = rollup_states(rollup, event_type)
    columns = quoted_list(["organization_id", level.key, *rollup.dimensions, *(state.column for state in states)])
    truth = _from_events(rollup, level, event_type) if level.source is None else _from_states(rollup, level, event_type)
    compared = f"{floors_of_side(event_type.name)} WHERE {source_kept(level)} AND {_settled(rollup, level)}"
    return f"""
        WITH behind AS MATERIALIZED ({_behind(rollup, level)}),
             truth AS MATERIALIZED (SELECT side.* FROM ({truth}) AS side {compared}),
             kept AS MATERIALIZED (
                SELECT side.* FROM (SELECT {columns} FROM analytics.{quoted(rollup.table(level))}) AS side {compared}
             )
        SELECT organization_id, count(*) FROM (
            (SELECT * FROM truth EXCEPT ALL SELECT * FROM kept)
            UNION ALL
            (SELECT * FROM kept EXCEPT ALL SELECT * FROM truth)
        ) AS differing GROUP BY 1"""


def _from_events(rollup: Rollup, level: Level, event_type: EventType) -> str:
    time = quoted(event_type.time_field)
    bucket = base_of(time) if level is BASE else f"date_trunc('minute', {time}, 'UTC')"
    dimensions = "".join(f", {quoted(name)}" for name in rollup.dimensions)
    aggregates = ", ".join(f"{s.from_events} AS {quoted(s.column)}" for s in rollup_states(rollup, event_type))
    return (
        f"SELECT organization_id, {bucket} AS bucket{dimensions}, {aggregates} "
        f"FROM events.{quoted(event_type.name)} GROUP BY organization_id, {bucket}{dimensions}"
    )


def _from_states(rollup: Rollup, level: Level, event_type: EventType) -> str:
    dimensions = "".join(f", {quoted(name)}" for name in rollup.dimensions)
    merged = ", ".join(f"{s.from_states} AS {quoted(s.column)}" for s in rollup_states(rollup, event_type))
    source = f"analytics.{quoted(rollup.table(DAY if level.source == DAY.suffix else BASE))}"
    key = f"_{level.key}"
    if level is DAY:
        # Near a clock change the local date of a bucket can be off by one; the day's bounds decide, as in the refresh.
        rows = f"""(SELECT b.*, near._day FROM {source} b JOIN totalizer.organizations o ON o.id = organization_id,
                 LATERAL (SELECT (bucket AT TIME ZONE o.time_zone)::date AS d) AS local,
                 LATERAL (VALUES (d), (d - 1), (d + 1)) AS near (_day)
            WHERE bucket >= _day::timestamp AT TIME ZONE o.time_zone
              AND bucket < (_day + 1)::timestamp AT TIME ZONE o.time_zone)"""
    elif level is HOUR:
        rows = f"(SELECT *, date_trunc('hour', bucket, 'UTC') AS {key} FROM {source})"
    else:
        rows = f"(SELECT *, date_trunc('{level.key}', day::timestamp)::date AS {key} FROM {source})"
    return (
        f"SELECT organization_id, {key} AS {level.key}{dimensions}, {merged} "
        f"FROM {rows} AS source GROUP BY organization_id, {key}{dimensions}"
    )


def _behind(rollup: Rollup, level: Level) -> str:
    """The marked buckets that may make a row of a grain differ from what it is made from."""
    marks = (
        f"SELECT DISTINCT organization_id, bucket FROM totalizer.dirty_marks WHERE event_type = '{rollup.event_type}'"
    )
    if level.source is None:
        return f"{marks} AND scope = 'events' AND (rollup IS NULL OR rollup = '{rollup.name}')"
    # A grain changes with the one it is made from, but where it is being filled or its zone has changed.
    return f"{marks} AND (scope = 'days' OR rollup = '{rollup.name}')"


def _settled(rollup: Rollup, level: Level) -> str:
    """SQL: a row of `side` lies in no span that is behind, and, of minutes, is kept still."""
    if level.local:
        length = {DAY: "1 day", WEEK: "7 days", MONTH: "1 month"}[level]
        starts = f"side.{level.key}::timestamp AT TIME ZONE o.time_zone"
        ends = f"(side.{level.key} + interval '{length}') AT TIME ZONE o.time_zone"
        marked = (
            "SELECT FROM behind m JOIN totalizer.organizations o ON o.id = m.organization_id "
            f"WHERE m.organization_id = side.organization_id AND m.bucket >= {starts} AND m.bucket < {ends}"
        )
    else:
        same = {
            MINUTE: f"m.bucket = {base_of('side.bucket')}",
            BASE: "m.bucket = side.bucket",
            HOUR: "date_trunc('hour', m.bucket, 'UTC') = side.bucket",
        }[level]
        marked = f"SELECT FROM behind m WHERE m.organization_id = side.organization_id AND {same}"
    kept = f" AND side.bucket >= now() - interval '{rollup.minutes_s} seconds'" if level is MINUTE else ""
    return f"NOT EXISTS ({marked}){kept}"
