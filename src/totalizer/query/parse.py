"""From request parameters to a checked query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from totalizer.catalog import Catalog, EventType, FieldType
from totalizer.errors import Refusal, Refused
from totalizer.window import Grain, day_start, zone

ROWS_DEFAULT, ROWS_MAX = 1000, 10_000
#: Values of one filter.
FILTER_VALUES_MAX = 100
#: The range when no start is given.
RANGE_DEFAULT = timedelta(days=1)
EVENT_TYPE_DEFAULT = "command_executions"
#: One row for the whole range.
TOTAL = "total"
#: Years a range may reach to; beyond them a moment may not exist in every time zone.
YEAR_MIN, YEAR_MAX = 1900, 9900
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_OWN = (
    "event_type", "start_date", "end_date", "aggregation_window", "group_by", "measures", "time_zone", "limit",
    "cursor",
)  # fmt: skip


class Query(msgspec.Struct, frozen=True):
    """A question about one event type.

    Attributes:
        event_type: its name.
        start, end: the range, end excluded, UTC.
        grain: length of the windows; None for one total.
        group_by: dimensions of the answer's rows.
        filters: dimension → the values it may have, as text.
        measures: the numbers wanted; empty for all of the rollup.
        time_zone: whose days and hours; None for the organisation's own.
        limit: rows at most.
        cursor: where an earlier answer ended, as it said.
    """

    event_type: str
    start: datetime
    end: datetime
    grain: Grain | None
    group_by: tuple[str, ...]
    filters: dict[str, tuple[str, ...]]
    measures: tuple[str, ...]
    time_zone: str | None
    limit: int
    cursor: str | None


def parse_query(catalog: Catalog, parameters: Mapping[str, Sequence[str]], now: datetime, own_zone: str) -> Query:
    """The query that request parameters ask for.

    Args:
        catalog: what can be asked about.
        parameters: name → values, as sent; those that are not of the query itself filter by a dimension.
        now: the end when none is given.
        own_zone: the organisation's zone, in which plain dates are read when the query names none.

    Raises:
        Refused: a parameter cannot be used; the message names it, its value and what can.
    """
    one = _Single(parameters)
    event_type = _event_type(catalog, one.get("event_type") or EVENT_TYPE_DEFAULT)
    time_zone = one.get("time_zone")
    here = _zone(time_zone or own_zone)
    end = _moment("end_date", one.get("end_date"), here, is_end=True) or now
    start = _moment("start_date", one.get("start_date"), here, is_end=False) or end - RANGE_DEFAULT
    if start >= end:
        raise _wrong("start_date", start.isoformat(), f"must be before end_date {end.isoformat()}")
    filters = {name: _filter(event_type, name, values) for name, values in parameters.items() if name not in _OWN}
    group_by = _names(parameters.get("group_by", ()))
    for name in group_by:
        _dimension(event_type, "group_by", name, name)
    return Query(
        event_type.name, start, end, _grain(one.get("aggregation_window")), group_by, filters,
        _names(parameters.get("measures", ())), time_zone, _limit(one.get("limit")), one.get("cursor"),
    )  # fmt: skip


class _Single:
    """Parameters that may be sent once."""

    def __init__(self, parameters: Mapping[str, Sequence[str]]) -> None:
        self._parameters = parameters

    def get(self, name: str) -> str | None:
        values = self._parameters.get(name, ())
        if len(values) > 1:
            raise _wrong(name, list(values), "may be given once")
        return values[0] if values else None


def _wrong(name: str, value: object, reason: str) -> Refused:
    return Refused(Refusal.INVALID_QUERY, f"{name:.100}={value!s:.200}: {reason}")


def _event_type(catalog: Catalog, name: str) -> EventType:
    if name not in catalog.event_types:
        raise _wrong("event_type", name, f"unknown; use one of {', '.join(catalog.event_types)}")
    return catalog.event_types[name]


def _zone(name: str) -> ZoneInfo:
    try:
        return zone(name)
    except ValueError as error:
        raise _wrong("time_zone", name, str(error)) from None


def _moment(name: str, value: str | None, here: ZoneInfo, *, is_end: bool) -> datetime | None:
    if value is None:
        return None
    try:
        if _DATE.fullmatch(value):
            day = date.fromisoformat(value)
            # A plain end date means that day is still part of the range.
            return _in_range(name, value, day_start(day + timedelta(days=1) if is_end else day, here))
        # An unescaped + in a query string arrives as a space.
        moment = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        if moment.tzinfo is not None:
            return _in_range(name, value, moment.astimezone(UTC))
    except (ValueError, OverflowError):
        pass
    raise _wrong(name, value, "must be a date (2025-09-05) or an RFC 3339 time with its zone (2025-09-05T00:00:00Z)")


def _in_range(name: str, value: str, moment: datetime) -> datetime:
    if not YEAR_MIN <= moment.year <= YEAR_MAX:
        raise _wrong(name, value, f"must lie in the years {YEAR_MIN} to {YEAR_MAX}")
    return moment


def _grain(value: str | None) -> Grain | None:
    if value == TOTAL:
        return None
    try:
        return Grain(value or "1h")
    except ValueError:
        allowed = ", ".join([*(grain.value for grain in Grain), TOTAL])
        raise _wrong("aggregation_window", value, f"use one of {allowed}") from None


def _names(values: Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    return tuple(dict.fromkeys(names))


def _dimension(event_type: EventType, parameter: str, value: str, name: str) -> FieldType:
    field = event_type.field(name)
    if field is None or not field.type.groupable:
        raise _wrong(parameter, value, f"{event_type.name} can be divided by {', '.join(_groupable(event_type))}")
    return field.type


def _groupable(event_type: EventType) -> list[str]:
    return [field.name for field in event_type.fields if field.type.groupable]


def _filter(event_type: EventType, name: str, values: Sequence[str]) -> tuple[str, ...]:
    if event_type.field(name) is None:
        known = ", ".join((*_OWN, *_groupable(event_type)))
        raise _wrong(name, ",".join(values), f"unknown parameter; use some of {known}")
    kind = _dimension(event_type, name, ",".join(values), name)
    if len(values) > FILTER_VALUES_MAX:
        raise _wrong(name, f"{len(values)} values", f"give at most {FILTER_VALUES_MAX}")
    for value in values:
        _check_value(name, value, kind)
    return tuple(values)


def _check_value(name: str, value: str, kind: FieldType) -> None:
    checks = {
        FieldType.UUID: r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        FieldType.INTEGER: r"-?[0-9]{1,19}",
        FieldType.BOOLEAN: r"true|false",
        FieldType.TEXT: r"[^\0]*",
    }
    if not re.fullmatch(checks[kind], value, re.DOTALL):
        raise _wrong(name, value, f"is no {kind.value}")
    if kind is FieldType.INTEGER and not -(2**63) <= int(value) < 2**63:
        raise _wrong(name, value, "does not fit 64 bits")


def _limit(value: str | None) -> int:
    if value is None:
        return ROWS_DEFAULT
    if not value.isascii() or not value.isdigit() or len(value) > 9 or not 1 <= int(value) <= ROWS_MAX:
        raise _wrong("limit", value, f"must be a whole number from 1 to {ROWS_MAX}")
    return int(value)
