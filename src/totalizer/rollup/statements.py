"""The SQL that computes a rollup: written once, for every rollup and grain.

The temporary table `work` holds the base buckets of this transaction (organization_id, _bucket, _scope, _rollup: null
for all rollups), `work_days` the local days they lie in (organization_id, _day, _starts, _ends, _rollup). What is
marked is deleted and inserted anew, so a group that has vanished leaves nothing behind. The columns begin with an
underscore so that no field of an event can have their names. Days whose week or month is to be computed later are told
apart (_week_later, _month_later).
"""

from __future__ import annotations

from enum import Enum

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import BASE, DAY, HOUR, MINUTE, MONTH, WEEK, Level
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.store.ddl import rollup_states
from totalizer.window import BASE_MINUTES

BASE_INTERVAL = f"interval '{BASE_MINUTES} minutes'"
#: Minutes are kept an hour longer than is promised, so that a reader whose clock stands earlier still finds them.
MINUTES_GRACE = "interval '1 hour'"


def base_of(time: str) -> str:
    """SQL for the base bucket of a time expression."""
    return f"date_bin({BASE_INTERVAL}, {time}, 'epoch'::timestamptz)"


def hour_of(time: str) -> str:
    """SQL for the UTC hour of a time expression; `date_trunc` would look the zone up for every row."""
    return f"date_bin(interval '1 hour', {time}, 'epoch'::timestamptz)"


class Form(Enum):
    """How events find their buckets. Which is faster depends on how much of the span is marked."""

    #: Each bucket of `work` probes the index of the events.
    SPARSE = "sparse"
    #: The organisations' events of the whole span are read once and matched with `work`.
    DENSE = "dense"
    #: The events of all organisations in the span are grouped, and the groups matched with `work`.
    DENSEST = "densest"


def recompute(rollup: Rollup, event_type: EventType, form: Form = Form.SPARSE) -> list[tuple[Level, str, str]]:
    """Each grain of a rollup, in order, with the statements that delete and compute what is in `work`.

    Those over events take the parameters `starts` and `ends`, the span of `work`: known when a statement is planned,
    they leave out all other partitions.
    """
    return [
        (level, delete_level(rollup, level), insert_level(rollup, level, event_type, form)) for level in rollup.kept
    ]


def delete_level(rollup: Rollup, level: Level) -> str:
    """Delete what will be computed anew."""
    return (
        f"DELETE FROM analytics.{quoted(rollup.table(level))} r USING {_work(rollup, level)} w "
        f"WHERE r.organization_id = w.organization_id AND {_within(level, f'r.{level.key}')}"
    )


def insert_level(rollup: Rollup, level: Level, event_type: EventType, form: Form = Form.SPARSE) -> str:
    """Compute one grain, from the events or from the grain it is made from."""
    if level.source is None:
        return _from_events(rollup, level, event_type, form)
    return _from_states(rollup, level, event_type)


def _from_events(rollup: Rollup, level: Level, event_type: EventType, form: Form) -> str:
    time = f"e.{quoted(event_type.time_field)}"
    kept = ""
    if level is MINUTE:
        kept = f" AND w._bucket >= now() - interval '{rollup.minutes_s} seconds' - {MINUTES_GRACE}"
    if form is Form.DENSEST:
        return _grouped_first(rollup, level, event_type, kept)
    when = f"date_trunc('minute', {time}, 'UTC')" if level is MINUTE else "w._bucket"
    work = _work(rollup, level)
    tables = f"{work} w JOIN events.{quoted(event_type.name)} e ON e.organization_id = w.organization_id AND "
    if form is Form.SPARSE:
        tables += f"{time} >= w._bucket AND {time} < w._bucket + {BASE_INTERVAL}"
    else:
        tables += f"w._bucket = {base_of(time)}"
        tables += f" JOIN (SELECT DISTINCT organization_id FROM {work} w) o ON o.organization_id = e.organization_id"
    keys = ", ".join(["w.organization_id", when, *(f"e.{quoted(name)}" for name in rollup.dimensions)])
    values = [state.from_events for state in rollup_states(rollup, event_type)]
    return (
        f"{_into(rollup, level, event_type)}SELECT {', '.join([keys, *values])}\n"
        f"FROM {tables}\nWHERE {time} >= %(starts)s AND {time} < %(ends)s{kept}\n"
        f"GROUP BY {keys} ORDER BY {keys}"
    )


def _grouped_first(rollup: Rollup, level: Level, event_type: EventType, kept: str) -> str:
    """All events of the span are grouped, and what is not in `work` left out: groups are fewer than events."""
    time = f"e.{quoted(event_type.time_field)}"
    when = f"date_trunc('minute', {time}, 'UTC')" if level is MINUTE else base_of(time)
    keys = _key_numbers(rollup)
    dimensions = "".join(f", e.{quoted(name)}" for name in rollup.dimensions)
    states = rollup_states(rollup, event_type)
    return (
        f"{_into(rollup, level, event_type)}SELECT g.* FROM (SELECT e.organization_id, {when} AS _key{dimensions}, "
        f"{', '.join(state.from_events for state in states)} FROM events.{quoted(event_type.name)} e "
        f"WHERE {time} >= %(starts)s AND {time} < %(ends)s GROUP BY {keys}) AS g\n"
        f"JOIN {_work(rollup, level)} w "
        f"ON w.organization_id = g.organization_id AND w._bucket = {base_of('g._key')}{kept}\n"
        f"ORDER BY {keys}"
    )


def _from_states(rollup: Rollup, level: Level, event_type: EventType) -> str:
    source = {BASE.suffix: BASE, DAY.suffix: DAY}[str(level.source)]
    dimensions = [f"s.{quoted(name)}" for name in rollup.dimensions]
    values = [*dimensions, *(state.from_states for state in rollup_states(rollup, event_type))]
    # A span at a time, by the index of the source. Joined at the planner's choice, every row of a source that it takes
    # for empty would be compared with every span.
    return (
        f"{_into(rollup, level, event_type)}SELECT w.organization_id, w._{level.key}, g.*\n"
        f"FROM {_work(rollup, level)} w, "
        f"LATERAL (SELECT {', '.join(values)} FROM analytics.{quoted(rollup.table(source))} s "
        f"WHERE s.organization_id = w.organization_id AND {_covers(level, f's.{source.key}')} "
        f"GROUP BY {', '.join(['s.organization_id', *dimensions])}) g\n"
        f"ORDER BY {_key_numbers(rollup)}"
    )


def _into(rollup: Rollup, level: Level, event_type: EventType) -> str:
    """The table and its columns. What follows is in the order of the key, so that its index grows at few places."""
    columns = ["organization_id", level.key, *rollup.dimensions]
    columns += [state.column for state in rollup_states(rollup, event_type)]
    return f"INSERT INTO analytics.{quoted(rollup.table(level))} ({quoted_list(columns)})\n"


def _key_numbers(rollup: Rollup) -> str:
    return ", ".join(str(number) for number in range(1, 3 + len(rollup.dimensions)))


def _work(rollup: Rollup, level: Level) -> str:
    """The spans of one grain that this rollup must compute."""
    mine = f"(_rollup IS NULL OR _rollup = '{rollup.name}')"
    if level in (MINUTE, BASE):
        return f"(SELECT organization_id, _bucket FROM work WHERE _scope = 'events' AND {mine})"
    if level is HOUR:
        hour = hour_of("_bucket")
        return f"(SELECT DISTINCT organization_id, {hour} AS _bucket FROM work WHERE _scope = 'events' AND {mine})"
    if level is DAY:
        return f"(SELECT DISTINCT organization_id, _day, _starts, _ends FROM work_days WHERE {mine})"
    first = f"date_trunc('{level.key}', _day::timestamp)::date"
    here = f"{mine} AND NOT _{level.key}_later"
    return f"(SELECT DISTINCT organization_id, {first} AS _{level.key} FROM work_days WHERE {here})"


def _within(level: Level, key: str) -> str:
    """SQL: a row of that grain lies in the span `w`."""
    return (
        f"{key} >= w._bucket AND {key} < w._bucket + {BASE_INTERVAL}" if level is MINUTE else f"{key} = w._{level.key}"
    )


def _covers(level: Level, key: str) -> str:
    """SQL: the span `w` of that grain covers a row of the grain it is made from."""
    starts, ends = {
        HOUR: ("w._bucket", "w._bucket + interval '1 hour'"),
        DAY: ("w._starts", "w._ends"),
        WEEK: ("w._week", "w._week + 7"),
        MONTH: ("w._month", "(w._month + interval '1 month')::date"),
    }[level]
    return f"{key} >= {starts} AND {key} < {ends}"
