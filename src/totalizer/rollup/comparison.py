"""The SQL that compares a grain of a rollup with what it is made from: written once, for every rollup and grain.

Minutes and quarters are held against events, hours and days against quarters, weeks and months against days. What a
mark says is behind is left out, and so is what lies below the floor of what it was made from. Two sides that are equal
have equal counts and equal sums of row hashes by organisation: that is asked first, and the rows of the others only.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import BASE, DAY, HOUR, LEVELS, MINUTE, MONTH, WEEK, Level
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.rollup.statements import base_of, hour_of
from totalizer.rollup.verify_floors import floors_of_side, source_kept
from totalizer.store.ddl import rollup_states

#: How long the longest row of a grain is: so far before a moment begins what contains it.
LENGTHS = {
    MINUTE: timedelta(minutes=1),
    BASE: timedelta(minutes=15),
    HOUR: timedelta(hours=1),
    # A day may be longer by a change of clocks, and a zone may skip a day.
    DAY: timedelta(days=2),
    WEEK: timedelta(days=9),
    MONTH: timedelta(days=33),
}
_LOCAL_KEYS = {DAY: "day", WEEK: "date_trunc('week', day::timestamp)::date",
               MONTH: "date_trunc('month', day::timestamp)::date"}  # fmt: skip


class Part(NamedTuple):
    """The part of a rollup that is compared.

    Attributes:
        organizations: ids of whose; None for all.
        starts, ends: rows that begin from the one on and before the other; None for no bound.
    """

    organizations: tuple[str, ...] | None = None
    starts: datetime | None = None
    ends: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        """What the statements of this module are given."""
        return {
            "organizations": None if self.organizations is None else list(self.organizations),
            "starts": self.starts, "ends": self.ends,
            # The first and the last day of a row may lie a date off those of the moments in UTC.
            "first_day": self.starts and (self.starts.astimezone(UTC) - _DAY).date(),
            **{f"ends_{level.suffix}": self.ends and self.ends + LENGTHS[level] for level in LEVELS},
            **{
                f"last_{level.suffix}": self.ends and (self.ends.astimezone(UTC) + LENGTHS[level] + _DAY).date()
                for level in LEVELS
            },
        }  # fmt: skip

    def at(self, moment: datetime, level: Level) -> Part:
        """What contains a moment: of grains of changing length perhaps the one before as well."""
        return Part(self.organizations, moment - LENGTHS[level] + timedelta(microseconds=1), moment + _INSTANT)


_INSTANT, _DAY = timedelta(microseconds=1), timedelta(days=1)


def sums(rollup: Rollup, level: Level, event_type: EventType, part: Part, *, truth: bool) -> str:
    """By organisation: how many rows one side has, and the sum of their hashes. Sums of disjoint parts add up."""
    return f"""
        WITH behind AS MATERIALIZED ({_behind(rollup, level, part)})
        SELECT organization_id, count(*), sum(hash_record_extended(ROW({_columns(rollup, level, event_type)}), 0))
        FROM ({_side(rollup, level, event_type, part, truth=truth)}) AS compared GROUP BY 1"""


def cells(rollup: Rollup, level: Level, event_type: EventType, part: Part) -> str:
    """The rows that differ: organisation, key, dimensions, what should be, what is (null: no row), how many in all.

    Its parameter `cells_max` is how many of each organisation, the oldest first; `rows_max` how many of all.
    """
    keys = quoted_list(["organization_id", level.key, *rollup.dimensions])
    names = ", ".join(f"'{name}'" for name in ("organization_id", level.key, *rollup.dimensions))
    values = f"to_jsonb(rows) - ARRAY[{names}]::text[]"
    dimensions = ", ".join(f"'{name}', {quoted(name)}" for name in rollup.dimensions)
    truth, kept = (_side(rollup, level, event_type, part, truth=truth) for truth in (True, False))
    return f"""
        WITH behind AS MATERIALIZED ({_behind(rollup, level, part)}), both_sides AS (
            SELECT {keys}, {values} AS states, true AS truth FROM ({truth}) AS rows
            UNION ALL
            SELECT {keys}, {values}, false FROM ({kept}) AS rows
        ), sides AS (
            SELECT {keys}, (array_agg(states) FILTER (WHERE truth))[1] AS expected,
                   (array_agg(states) FILTER (WHERE NOT truth))[1] AS found, count(*) AS rows
            FROM both_sides GROUP BY {keys}
        ), numbered AS (
            SELECT *, count(*) OVER whose AS differing,
                   row_number() OVER (PARTITION BY organization_id ORDER BY {quoted(level.key)}) AS place
            FROM sides WHERE expected IS DISTINCT FROM found OR rows > 2
            WINDOW whose AS (PARTITION BY organization_id)
        )
        SELECT organization_id::text, {quoted(level.key)}, jsonb_build_object({dimensions})::text, expected::text,
               found::text, differing
        FROM numbered WHERE place <= %(cells_max)s ORDER BY place, organization_id LIMIT %(rows_max)s"""


def _columns(rollup: Rollup, level: Level, event_type: EventType) -> str:
    states = (state.column for state in rollup_states(rollup, event_type))
    return quoted_list(["organization_id", level.key, *rollup.dimensions, *states])


def _side(rollup: Rollup, level: Level, event_type: EventType, part: Part, *, truth: bool) -> str:
    """One side's rows, without what cannot be compared."""
    if not truth:
        rows = (
            f"SELECT {_columns(rollup, level, event_type)} FROM analytics.{quoted(rollup.table(level))} "
            f"WHERE {_near(part, level, level.key, local=level.local)}"
        )
    elif level.source is None:
        rows = _from_events(rollup, level, event_type, part)
    else:
        rows = _from_states(rollup, level, event_type, part)
    starts, key = f"side.{level.key}", f"side.{level.key}"
    if level.local:
        starts = f"({starts}::timestamp AT TIME ZONE coalesce(owners.time_zone, 'UTC'))"
    bounds = f" AND {starts} >= %(starts)s" if part.starts is not None else ""
    bounds += f" AND {starts} < %(ends)s" if part.ends is not None else ""
    if level is MINUTE:
        key = base_of(key)
        kept = f" AND side.bucket >= now() - interval '{rollup.minutes_s} seconds'"
    else:
        kept = ""
    return f"""
        SELECT side.* FROM ({rows}) AS side
        LEFT JOIN totalizer.organizations owners ON owners.id = side.organization_id
        {floors_of_side(event_type.name)}
        WHERE {source_kept(level)}{bounds}{kept}
          AND NOT EXISTS (
            SELECT FROM behind m WHERE m.organization_id = side.organization_id AND m.key = {key})"""


def _own(part: Part, column: str = "organization_id") -> str:
    return "true" if part.organizations is None else f"{column} = ANY (%(organizations)s::uuid[])"


def _near(part: Part, level: Level, key: str, *, local: bool = False) -> str:
    """SQL condition on rows: they can belong to a row of `level` that begins in the part.

    Only bounds that there are: the planner knows nothing of an infinite one, and would take it for a narrow part.
    """
    conditions = [_own(part)]
    if part.starts is not None:
        conditions.append(f"{key} >= %({'first_day' if local else 'starts'})s")
    if part.ends is not None:
        conditions.append(f"{key} < %({'last' if local else 'ends'}_{level.suffix})s")
    return " AND ".join(conditions)


def _from_events(rollup: Rollup, level: Level, event_type: EventType, part: Part) -> str:
    time = quoted(event_type.time_field)
    bucket = base_of(time) if level is BASE else f"date_trunc('minute', {time}, 'UTC')"
    dimensions = "".join(f", {quoted(name)}" for name in rollup.dimensions)
    aggregates = ", ".join(f"{s.from_events} AS {quoted(s.column)}" for s in rollup_states(rollup, event_type))
    recent = f" AND {time} >= now() - interval '{rollup.minutes_s} seconds'" if level is MINUTE else ""
    return (
        f"SELECT organization_id, {bucket} AS bucket{dimensions}, {aggregates} FROM events.{quoted(event_type.name)} "
        f"WHERE {_near(part, level, time)}{recent} "
        f"GROUP BY organization_id, {bucket}{dimensions}"
    )


def _from_states(rollup: Rollup, level: Level, event_type: EventType, part: Part) -> str:
    dimensions = "".join(f", {quoted(name)}" for name in rollup.dimensions)
    merged = ", ".join(f"{s.from_states} AS {quoted(s.column)}" for s in rollup_states(rollup, event_type))
    source = DAY if level.source == DAY.suffix else BASE
    near = _near(part, level, source.key, local=source.local)
    rows = f"(SELECT * FROM analytics.{quoted(rollup.table(source))} WHERE {near})"
    key = f"_{level.key}"
    if level is DAY:
        # Each moment is looked up once for each zone: the day's bounds decide, as in the refresh.
        rows = f"""(
            WITH zones AS (SELECT DISTINCT time_zone FROM totalizer.organizations WHERE {_own(part, "id")}),
            buckets AS (SELECT DISTINCT bucket FROM {rows} AS rows),
            days AS MATERIALIZED (
                SELECT time_zone, bucket, day AS {key} FROM buckets, zones, {local_day("bucket", "time_zone")}
            )
            SELECT b.*, days.{key} FROM {rows} b JOIN totalizer.organizations o ON o.id = b.organization_id
            JOIN days ON days.time_zone = o.time_zone AND days.bucket = b.bucket WHERE {_own(part, "o.id")})"""
    elif level is HOUR:
        rows = f"(SELECT *, {hour_of('bucket')} AS {key} FROM {rows} AS rows)"
    else:
        rows = f"(SELECT *, {_LOCAL_KEYS[level]} AS {key} FROM {rows} AS rows)"
    return (
        f"SELECT organization_id, {key} AS {level.key}{dimensions}, {merged} "
        f"FROM {rows} AS source GROUP BY organization_id, {key}{dimensions}"
    )


def local_day(moment: str, zone: str) -> str:
    """SQL of a LATERAL table `local` with the `day` of a zone that a moment lies in, by the day's bounds."""
    return (
        f"LATERAL (SELECT day FROM (SELECT ({moment} AT TIME ZONE {zone})::date AS date) AS here, "
        "LATERAL (VALUES (here.date), (here.date - 1), (here.date + 1)) AS near (day) "
        f"WHERE {moment} >= day::timestamp AT TIME ZONE {zone} AND {moment} < (day + 1)::timestamp AT TIME ZONE {zone}"
        ") AS local"
    )


def _behind(rollup: Rollup, level: Level, part: Part) -> str:
    """The rows of a grain that a mark lets differ from what they are made from: organisation and key."""
    key, tables = "m.bucket", "totalizer.dirty_marks m"
    if level is HOUR:
        key = hour_of("m.bucket")
    elif level.local:
        key = _LOCAL_KEYS[level]
        tables += (
            " JOIN totalizer.organizations o ON o.id = m.organization_id"
            f" CROSS JOIN {local_day('m.bucket', 'o.time_zone')}"
        )
    bounds = " AND m.bucket > %(starts)s - interval '15 minutes'" if part.starts is not None else ""
    bounds += f" AND m.bucket < %(ends_{level.suffix})s" if part.ends is not None else ""
    # Hours and days change with the quarters, but where they are being filled or their zone has changed. A week or
    # month may wait for the last mark in it.
    allowed = f"m.scope = 'days' OR m.rollup = '{rollup.name}'"
    if level.source is None:
        allowed = f"m.scope = 'events' AND (m.rollup IS NULL OR m.rollup = '{rollup.name}')"
    elif level in (WEEK, MONTH):
        allowed = f"m.rollup IS NULL OR m.rollup = '{rollup.name}'"
    return (
        f"SELECT DISTINCT m.organization_id, {key} AS key FROM {tables} "
        f"WHERE m.event_type = '{rollup.event_type}' AND ({allowed}) AND "
        f"{_own(part, 'm.organization_id')}{bounds}"
    )
