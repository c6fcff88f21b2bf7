"""From a request, parameters or a body, to a checked query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from totalizer.catalog import Catalog
from totalizer.errors import Refusal, Refused
from totalizer.prepared import prepared
from totalizer.query.filters import dimension, event_type_of, groupable, read_filters, told, wrong
from totalizer.query.metrics import MetricBody, read_metrics
from totalizer.query.moments import moment, previous, time_zone_of
from totalizer.query.question import WINDOW, Fill, Filter, Metric, Order, Query
from totalizer.query.window_names import WindowsBody, read_windows

ROWS_DEFAULT, ROWS_MAX = 1000, 10_000
#: The range when no start is given.
RANGE_DEFAULT = timedelta(days=1)
EVENT_TYPE_DEFAULT = "command_executions"
#: Dimensions an answer may be divided by at once.
GROUPS_MAX = 10
#: Parameters that lists are sent in, repeated or separated by commas.
_LISTS = ("group_by", "measures", "metric_types", "order")
#: Names of an answer's rows that no metric may take.
_TAKEN = {"window_start", "previous", "change"}


class Range(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A range to compare with."""

    start_date: str
    end_date: str


@prepared
class Body(WindowsBody, forbid_unknown_fields=True, frozen=True):
    """A query as it is sent. Every other member is a condition on the dimension of its name."""

    event_type: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    time_zone: str | None = None
    group_by: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    metrics: tuple[str | MetricBody, ...] = ()
    metric_types: tuple[str, ...] = ()
    filters: dict[str, Any] = msgspec.field(default_factory=dict)
    order: tuple[str, ...] = ()
    fill: Literal["none", "zero", "null"] = "none"
    compare: Literal["previous"] | Range | None = None
    limit: int = ROWS_DEFAULT
    cursor: str | None = None
    exact: bool = False
    explain: bool = False


OWN = tuple(field.name for field in msgspec.structs.fields(Body))


def parse_parameters(catalog: Catalog, parameters: Mapping[str, Sequence[str]], now: datetime, own_zone: str) -> Query:
    """The query that request parameters ask for.

    Args:
        catalog: what can be asked about.
        parameters: name → values, as sent; those that are not of the query itself filter by a dimension.
        now: the end when none is given.
        own_zone: the organisation's zone, in which plain dates are read when the query names none.

    Raises:
        Refused: a parameter cannot be used; the message names it, its value and what can.
    """
    content: dict[str, Any] = {}
    for name, values in parameters.items():
        if name in ("metrics", "filters"):
            raise wrong(name, ",".join(values), "is a member of POST /api/metrics/query; use measures and dimensions")
        if name in _LISTS:
            content[name] = [part.strip() for value in values for part in value.split(",") if part.strip()]
        elif name in OWN:
            content[name] = _single(name, values)
        else:
            content[name] = list(values)
    return parse_body(catalog, content, now, own_zone)


def parse_body(catalog: Catalog, content: Mapping[str, Any], now: datetime, own_zone: str) -> Query:
    """The query that a request's body asks for.

    Args:
        catalog: what can be asked about.
        content: the body's object.
        now: the end when none is given.
        own_zone: the organisation's zone.

    Raises:
        Refused: a member cannot be used; the message names it, its value and what can.
    """
    own = {name: value for name, value in content.items() if name in OWN}
    if "limit" in own:
        own["limit"] = row_limit(own["limit"])
    try:
        body = msgspec.convert(own, Body)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        raise Refused(Refusal.INVALID_QUERY, f"{path.strip('`$.') or 'query'}: {reason}") from None
    event_type = event_type_of(catalog, body.event_type or EVENT_TYPE_DEFAULT)
    here = time_zone_of(body.time_zone or own_zone)
    windows = read_windows(body)
    end = moment("end_date", body.end_date, here, is_end=True) or now
    start = moment("start_date", body.start_date, here, is_end=False) or end - RANGE_DEFAULT
    _check_range("start_date", start, end)
    metrics = read_metrics(catalog, event_type, body.measures, body.metrics, body.metric_types)
    query = Query(event_type.name, start, end, windows, metrics)
    filters = {**{name: value for name, value in content.items() if name not in OWN}, **body.filters}
    return msgspec.structs.replace(
        query,
        group_by=_groups(catalog, query, body.group_by, metrics), filters=_filters(catalog, query, filters),
        time_zone=body.time_zone, order=_order(body.order, metrics), fill=Fill(body.fill),
        compare=_compare(body, query, here), limit=body.limit, cursor=body.cursor, exact=body.exact,
        explain=body.explain,
    )  # fmt: skip


def _single(name: str, values: Sequence[str]) -> Any:
    if len(values) > 1:
        raise wrong(name, list(values), "may be given once")
    if not values:
        return None
    if name in ("exact", "explain"):
        if values[0] not in ("true", "false"):
            raise wrong(name, values[0], "must be true or false")
        return values[0] == "true"
    return values[0]


def _check_range(name: str, start: datetime, end: datetime) -> None:
    if start >= end:
        raise wrong(name, start.isoformat(), f"must be before end_date {end.isoformat()}")


def _groups(catalog: Catalog, query: Query, names: Sequence[str], metrics: Sequence[Metric]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(names))
    if len(names) > GROUPS_MAX:
        raise wrong("group_by", f"{len(names)} dimensions", f"give at most {GROUPS_MAX}")
    for name in names:
        for event_type in query.event_types():
            dimension(catalog.event_types[event_type], "group_by", name, name)
    if taken := {metric.name for metric in metrics} & {*names, *_TAKEN}:
        raise wrong("metrics", sorted(taken)[0], "is the name of something else in the answer; name the metric anew")
    return names


def _filters(catalog: Catalog, query: Query, conditions: Mapping[str, Any]) -> tuple[Filter, ...]:
    kinds = [catalog.event_types[name] for name in query.event_types()]
    for name, value in conditions.items():
        if unknown := [kind for kind in kinds if kind.field(name) is None]:
            known = ", ".join((*OWN, *groupable(unknown[0])))
            raise wrong(name, told(value), f"unknown parameter for {unknown[0].name}; use some of {known}")
    return next(read_filters(kind, conditions) for kind in kinds)


def _order(names: Sequence[str], metrics: Sequence[Metric]) -> tuple[Order, ...]:
    orders = []
    for name in names:
        by = name.removeprefix("-")
        # Without metrics all measures of a rollup are told, which is chosen later; so are their names checked.
        if metrics and by != WINDOW and by not in {metric.name for metric in metrics}:
            known = ", ".join((WINDOW, *(metric.name for metric in metrics)))
            raise wrong("order", name, f"use {known}, with - before it for the largest first")
        orders.append(Order(by, name.startswith("-")))
    return tuple({order.by: order for order in orders}.values())


def _compare(body: Body, query: Query, here: ZoneInfo) -> tuple[datetime, datetime] | None:
    if body.compare is None:
        return None
    if body.compare == "previous":
        return previous(query.start, query.end, query.windows, here), query.start
    start = moment("compare.start_date", body.compare.start_date, here, is_end=False)
    end = moment("compare.end_date", body.compare.end_date, here, is_end=True)
    assert start is not None
    assert end is not None
    _check_range("compare.start_date", start, end)
    return start, end


def row_limit(value: Any) -> int:
    """The rows at most that a request asks for.

    Raises:
        Refused: it is no number that can be used.
    """
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if isinstance(value, bool) or not 1 <= number <= ROWS_MAX:
        raise wrong("limit", value, f"must be a whole number from 1 to {ROWS_MAX}")
    return number
