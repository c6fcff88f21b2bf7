"""Everything at a glance: for each event type its totals beside those before, their course, what is most frequent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from psycopg import AsyncConnection

from totalizer.catalog import Catalog, EventType, FieldType, Rollup
from totalizer.query.asker import Asker
from totalizer.query.choose import choose_rollup
from totalizer.query.filters import groupable, read_filters, wrong
from totalizer.query.moments import previous, time_zone_of
from totalizer.query.question import Fill, Filter, Metric, Order, Query
from totalizer.query.run import Made
from totalizer.query.state import State
from totalizer.query.windows import Windows
from totalizer.query.work import Planner
from totalizer.window import Grain, base_bucket, day_start

#: What a request may ask for: hours or days, and the windows of its course.
RANGES: Mapping[str, tuple[timedelta, Grain]] = {
    "1h": (timedelta(hours=1), Grain.BASE),
    "6h": (timedelta(hours=6), Grain.BASE),
    "12h": (timedelta(hours=12), Grain.HOUR),
    "1d": (timedelta(days=1), Grain.HOUR),
    "7d": (timedelta(days=7), Grain.DAY),
    "30d": (timedelta(days=30), Grain.DAY),
    "90d": (timedelta(days=90), Grain.WEEK),
    "1y": (timedelta(days=365), Grain.MONTH),
}
RANGE_DEFAULT = "1d"
#: Most frequent values that are told.
TOP = 5
SKETCHES = ("unique", "quantiles")
_OWN = ("time_range", "time_zone", "event_type")


class Dashboard(msgspec.Struct, frozen=True):
    """A question for a dashboard.

    Attributes:
        time_range: of RANGES.
        start, end: what it comes to, end excluded, UTC.
        zone: of days.
        event_types: what is shown; those without events are left out unless they were named.
        filters: conditions on all of them.
    """

    time_range: str
    start: datetime
    end: datetime
    zone: str
    event_types: tuple[str, ...]
    filters: tuple[Filter, ...]


def parse_dashboard(
    catalog: Catalog, parameters: Mapping[str, Sequence[str]], state: State, end: datetime
) -> Dashboard:
    """The dashboard that request parameters ask for.

    Args:
        catalog: what can be shown.
        parameters: `time_range`, `time_zone`, `event_type`; any other filters by the dimension of its name.
        state: of the snapshot; it says which event types there are events of.
        end: of the range.

    Raises:
        Refused: a parameter cannot be used; the message names it, its value and what can.
    """
    for name in ("time_range", "time_zone"):
        if len(parameters.get(name, ())) > 1:
            raise wrong(name, list(parameters[name]), "may be given once")
    named = "".join(parameters.get("time_range", ())) or RANGE_DEFAULT
    if named not in RANGES:
        raise wrong("time_range", named, f"use one of {', '.join(RANGES)}")
    here = time_zone_of("".join(parameters.get("time_zone", ())) or state.own_zone)
    asked = list(parameters.get("event_type", ()))
    for name in asked:
        if name not in catalog.event_types:
            raise wrong("event_type", name, f"unknown; use some of {', '.join(catalog.event_types)}")
    conditions = {name: list(values) for name, values in parameters.items() if name not in _OWN}
    kinds = [kind for kind in catalog.event_types.values() if kind.name in (asked or state.stamps)]
    shown = [kind for kind in kinds if _fits(catalog, kind, conditions)]
    fitting = shown or [kind for kind in catalog.event_types.values() if _fits(catalog, kind, conditions)]
    if not fitting:
        known = ", ".join(sorted({name for kind in catalog.event_types.values() for name in groupable(kind)}))
        raise wrong(",".join(conditions), "", f"nothing is counted by that; use some of {known}")
    filters = read_filters(fitting[0], conditions)
    length, grain = RANGES[named]
    start = _start(end, length, grain, here)
    return Dashboard(named, start, end, here.key, tuple(kind.name for kind in shown), filters)


def _fits(catalog: Catalog, kind: EventType, conditions: Mapping[str, Any]) -> bool:
    return any(set(conditions) <= set(rollup.dimensions) for rollup in catalog.rollups_of(kind.name))


def _start(end: datetime, length: timedelta, grain: Grain, here: ZoneInfo) -> datetime:
    """The start of the first window: of a quarter, an hour, a local day."""
    if grain.calendar:
        return day_start(end.astimezone(here).date() - length + timedelta(days=1), here)
    start = base_bucket(end - length)
    return start.replace(minute=0) if grain is Grain.HOUR else start


async def show(
    connection: AsyncConnection[Any],
    catalog: Catalog,
    organization_id: str,
    state: State,
    board: Dashboard,
    planner: Planner,
) -> Made:
    """The dashboard's figures, all of one snapshot."""  # fmt: skip
    asker = Asker(connection, organization_id, state, planner)
    data = {}
    for name in board.event_types:
        data[name] = await _section(catalog, asker, catalog.event_types[name], board)
    zone = ZoneInfo(board.zone)
    content: dict[str, Any] = {
        "data": data,
        **asker.told(),
        "query": {
            "time_range": board.time_range,
            "start_date": board.start.astimezone(zone).isoformat(),
            "end_date": board.end.astimezone(zone).isoformat(),
            "aggregation_window": RANGES[board.time_range][1].value,
            "time_zone": board.zone,
            "filters": {each.field: list(each.values) for each in board.filters},
        },
    }
    return Made(content, content["exact"])


async def _section(catalog: Catalog, asker: Asker, kind: EventType, board: Dashboard) -> dict[str, Any]:
    rollup, measures = choose_rollup(catalog, kind.name, {each.field for each in board.filters}, ())
    # Sketches are dear to merge: they are told once, for the whole range.
    names = [measure.name for measure in measures if measure.kind not in SKETCHES]
    base = Query(
        kind.name, board.start, board.end, Windows(None), tuple(Metric(name, kind.name, name) for name in names),
        filters=board.filters, time_zone=board.zone, fill=Fill.ZERO,
    )  # fmt: skip
    here = ZoneInfo(board.zone)
    before = (previous(board.start, board.end, base.windows, here), board.start)
    every = tuple(Metric(measure.name, kind.name, measure.name) for measure in measures)
    [totals] = await asker.rows(msgspec.structs.replace(base, metrics=every, compare=before))
    course = Windows(RANGES[board.time_range][1])
    section = {
        "title": kind.title,
        "rollup": rollup.name,
        "totals": {measure.name: totals[measure.name] for measure in measures},
        "previous": totals["previous"],
        "change": totals["change"],
        "series": await asker.rows(msgspec.structs.replace(base, windows=course)),
    }
    count = next((measure.name for measure in measures if measure.kind == "count"), names[0])
    for key, dimension in (("top", _frequent(kind, rollup)), ("by_status", _status(rollup))):
        if dimension is not None:
            most = msgspec.structs.replace(
                base, group_by=(dimension,), order=(Order(count, True),), limit=TOP if key == "top" else 1000,
                fill=Fill.NONE,
            )  # fmt: skip
            rows = [{name: row[name] for name in (dimension, *names)} for row in await asker.rows(most)]
            section[key] = {"dimension": dimension, "rows": rows} if key == "top" else rows
    return section


def _frequent(kind: EventType, rollup: Rollup) -> str | None:
    """The dimension whose most frequent values say most: a name, not who did it."""
    for name in rollup.dimensions:
        field = kind.field(name)
        if field is not None and field.type is FieldType.TEXT and not field.values and name != kind.subject_field:
            return name
    return None


def _status(rollup: Rollup) -> str | None:
    return "status" if "status" in rollup.dimensions else None
