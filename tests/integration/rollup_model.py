"""A brute-force model of rollups: every grain of every organisation from the rows of the event table, in Python."""

from __future__ import annotations

import bisect
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from totalizer.catalog import Catalog
from totalizer.catalog.levels import DAY, HOUR, LEVELS, MINUTE, MONTH, WEEK, Level
from totalizer.catalog.measures import shown
from totalizer.catalog.read import parse_catalog

EVENT_TYPE = """
[event_type.things]
time = "at"
subject = "name"
[event_type.things.fields]
name = { type = "text", length_max = 20 }
# Names of the refresh's own columns and of no dimension: they must not be taken for each other.
bucket = { type = "text" }
starts = { type = "integer" }
amount = { type = "decimal", scale = 4 }
ratio = { type = "number" }
"""
MEASURES = {
    "n": '{ kind = "count" }',
    "amount_sum": '{ kind = "sum", field = "amount" }',
    "starts_min": '{ kind = "min", field = "starts" }',
    "starts_max": '{ kind = "max", field = "starts" }',
    "amount_avg": '{ kind = "avg", field = "amount" }',
    "bucket_first": '{ kind = "first", field = "bucket" }',
    "bucket_latest": '{ kind = "latest", field = "bucket" }',
    "amounts": '{ kind = "unique", field = "amount" }',
    "ratios": '{ kind = "quantiles", field = "ratio", quantiles = [0, 0.5, 0.95, 1] }',
}
#: Declared from the beginning; the others are added to stored events.
FIRST_MEASURES = ("n", "amount_sum", "starts_min", "bucket_latest")


class Thing(NamedTuple):
    """One stored event."""

    organization_id: str
    at: datetime
    id: str
    name: str | None
    bucket: str | None
    starts: int | None
    amount: Decimal | None
    ratio: float | None


def catalog_with(measures: tuple[str, ...], *, minutes: bool = True, more_rollups: bool = False) -> Catalog:
    """The catalog of the event type, with some of the measures."""
    declared = "\n".join(f"{name} = {MEASURES[name]}" for name in measures)
    text = f'{EVENT_TYPE}\n[rollup.by_name]\nevent_type = "things"\ndimensions = ["name"]\n'
    text += 'minutes = "31d"\n' if minutes else ""
    text += f"[rollup.by_name.measures]\n{declared}\n"
    if more_rollups:
        text += '[rollup.all_things]\nevent_type = "things"\nmeasures = { things = { kind = "count" } }\n'
    return parse_catalog([("things.toml", text)])


def stored_things(connection: Any) -> list[Thing]:
    """All events as they are stored."""
    rows = connection.execute(
        "SELECT organization_id::text, at, id::text, name, bucket, starts, amount, ratio FROM events.things"
    ).fetchall()
    return [Thing(*row) for row in rows]


class Days:
    """When each local day of a zone begins, by PostgreSQL's own answer."""

    def __init__(self, connection: Any, zone: str, things: list[Thing]) -> None:
        first = min(thing.at for thing in things).date() - timedelta(days=2)
        last = max(thing.at for thing in things).date() + timedelta(days=2)
        rows = connection.execute(
            "SELECT day::date, day AT TIME ZONE %s "
            "FROM generate_series(%s::timestamp, %s::timestamp, interval '1 day') AS day ORDER BY day",
            [zone, first, last],
        ).fetchall()
        self._days, self._starts = [row[0] for row in rows], [row[1] for row in rows]

    def of(self, moment: datetime) -> date:
        """The day that holds a moment."""
        found: date = self._days[bisect.bisect_right(self._starts, moment) - 1]
        return found


def key_of(level: Level, moment: datetime, days: Days) -> date | datetime:
    """The row's key of one grain."""
    moment = moment.astimezone(UTC)
    base = moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0)
    if level is MINUTE:
        return moment.replace(second=0, microsecond=0)
    if level is HOUR:
        return moment.replace(minute=0, second=0, microsecond=0)
    if not level.local:
        return base
    day = days.of(base)
    return {DAY: day, WEEK: day - timedelta(days=day.weekday()), MONTH: day.replace(day=1)}[level]


def measured(things: list[Thing], measures: tuple[str, ...]) -> dict[str, Any]:
    """What a row must show."""
    in_order = sorted(things, key=lambda thing: (thing.at, thing.id))
    amounts = [thing.amount for thing in things if thing.amount is not None]
    starts = [thing.starts for thing in things if thing.starts is not None]
    buckets = [thing.bucket for thing in in_order if thing.bucket is not None]
    ratios = sorted(thing.ratio for thing in things if thing.ratio is not None)
    values = {
        "n": len(things),
        "amount_sum": sum(amounts) if amounts else None,
        "starts_min": min(starts, default=None),
        "starts_max": max(starts, default=None),
        "amount_avg": sum(amounts) / len(amounts) if amounts else None,
        "bucket_first": buckets[0] if buckets else None,
        "bucket_latest": buckets[-1] if buckets else None,
        "amounts": len(set(amounts)),
        "ratios": {
            name: ratios[int(Decimal(str(q)) * (len(ratios) - 1))]
            for name, q in (("p0", 0), ("p50", 0.5), ("p95", 0.95), ("p100", 1))
        } if ratios else None,
    }  # fmt: skip
    return {name: values[name] for name in measures}


def expected(
    connection: Any, things: list[Thing], zones: dict[str, str], level: Level, measures: tuple[str, ...],
    since: datetime | None = None,
) -> dict[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """One grain of rollup by_name: (organisation, key, name) → what is shown."""
    groups: dict[tuple[Any, ...], list[Thing]] = defaultdict(list)
    days = {zone: Days(connection, zone, things) for zone in set(zones.values())} if things else {}
    for thing in things:
        if since is None or thing.at >= since:
            key = key_of(level, thing.at, days[zones[thing.organization_id]])
            groups[thing.organization_id, key, thing.name].append(thing)
    return {key: measured(group, measures) for key, group in groups.items()}


def kept(connection: Any, catalog: Catalog, level: Level) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The same as the database has it."""
    rollup = catalog.rollups["by_name"]
    names = [measure.name for measure in rollup.measures]
    values = ", ".join(shown(measure) for measure in rollup.measures)
    rows = connection.execute(
        f"SELECT organization_id::text, {level.key}, name, {values} FROM analytics.{rollup.table(level)}".encode()
    ).fetchall()
    result = {row[:3]: dict(zip(names, row[3:], strict=True)) for row in rows}
    assert len(result) == len(rows), "a key stands twice"
    return result


def differences(connection: Any, catalog: Catalog, zones: dict[str, str], minutes_since: datetime) -> list[str]:
    """Every row of every grain that is not what brute force says."""
    measures = tuple(measure.name for measure in catalog.rollups["by_name"].measures)
    things = stored_things(connection)
    found = []
    for level in LEVELS:
        if not catalog.rollups["by_name"].keeps(level):
            continue
        truth = expected(connection, things, zones, level, measures, minutes_since if level is MINUTE else None)
        rows = kept(connection, catalog, level)
        for key in truth.keys() | rows.keys():
            if not _same(truth.get(key), rows.get(key)):
                found.append(f"{level.suffix} {key}: {rows.get(key)} instead of {truth.get(key)}")
    return found


def _same(truth: dict[str, Any] | None, row: dict[str, Any] | None) -> bool:
    if truth is None or row is None or truth.keys() != row.keys():
        return truth is row
    return all(_close(name, truth[name], row[name]) for name in truth)


def _close(name: str, truth: Any, value: Any) -> bool:
    if truth is None or value is None:
        return truth is value
    if name == "ratios":
        return all(abs(truth[q] - value[q]) <= 0.0100000001 * abs(truth[q]) for q in truth)
    if name == "amount_avg":
        return bool(abs(truth - value) < Decimal("1e-12"))
    return bool(truth == value)
