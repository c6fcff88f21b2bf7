"""Conditions on dimensions: read, checked, and as SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from totalizer.catalog import Catalog, EventType, FieldType
from totalizer.catalog.quoting import quoted
from totalizer.errors import Refusal, Refused
from totalizer.query.discreet import discreet
from totalizer.query.question import Filter

#: Values of one condition.
FILTER_VALUES_MAX = 100
#: Conditions of one query.
FILTERS_MAX = 50
_RANGES = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}
_OPS = ("eq", "in", "not", *_RANGES)
_FORMS = {
    FieldType.UUID: r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    FieldType.INTEGER: r"-?[0-9]{1,19}",
    FieldType.BOOLEAN: r"true|false",
    FieldType.TEXT: r"[^\0]*",
}


def wrong(name: str, value: object, reason: str) -> Refused:
    """The refusal of a query for the value of one of its members."""
    return Refused(Refusal.INVALID_QUERY, f"{name:.100}={discreet(name, value):.200}: {reason}")


def event_type_of(catalog: Catalog, name: str) -> EventType:
    """The event type a request names.

    Raises:
        Refused: there is none.
    """
    if name not in catalog.event_types:
        raise wrong("event_type", name, f"unknown; use one of {', '.join(catalog.event_types)}")
    return catalog.event_types[name]


def dimension(event_type: EventType, parameter: str, value: str, name: str) -> FieldType:
    """What a dimension holds.

    Raises:
        Refused: the event type cannot be divided by it.
    """
    field = event_type.field(name)
    if field is None or not field.type.groupable:
        raise wrong(parameter, value, f"{event_type.name} can be divided by {', '.join(groupable(event_type))}")
    return field.type


def groupable(event_type: EventType) -> list[str]:
    """The dimensions an event type may be divided by."""
    return [field.name for field in event_type.fields if field.type.groupable]


def read_filters(event_type: EventType, conditions: Mapping[str, Any]) -> tuple[Filter, ...]:
    """The conditions of a query.

    Args:
        event_type: of the events they are about.
        conditions: dimension → a value, a list of values, or an object of `eq`, `in`, `not`, `gte`, `gt`, `lte`, `lt`.

    Raises:
        Refused: one cannot be used; the message names it, its value and what can.
    """
    filters: list[Filter] = []
    for name, condition in conditions.items():
        kind = dimension(event_type, name, told(condition), name)
        parts = condition if isinstance(condition, Mapping) else {"in": condition}
        if not parts:
            raise wrong(name, "{}", f"use some of {', '.join(_OPS)}")
        filters += [_filter(name, kind, str(op), value) for op, value in parts.items()]
    if len(filters) > FILTERS_MAX:
        raise wrong("filters", f"{len(filters)} conditions", f"give at most {FILTERS_MAX}")
    return tuple(filters)


def _filter(name: str, kind: FieldType, op: str, value: Any) -> Filter:
    if op not in _OPS:
        raise wrong(name, op, f"unknown condition; use {', '.join(_OPS)}")
    if op in _RANGES:
        if kind is not FieldType.INTEGER:
            raise wrong(name, f"{op} {value}", f"is no number but {kind.value}; use eq, in, not")
        return Filter(name, op, (_text(name, kind, value, nullable=False),))
    values = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(values) <= FILTER_VALUES_MAX:
        raise wrong(name, f"{len(values)} values", f"give at least one and at most {FILTER_VALUES_MAX}")
    texts = tuple(_text(name, kind, each, nullable=True) for each in values)
    return Filter(name, "not" if op == "not" else "in", texts)


def _text(name: str, kind: FieldType, value: Any, *, nullable: bool) -> Any:
    if value is None and nullable:
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str | int | bool) or not re.fullmatch(_FORMS[kind], text, re.DOTALL):
        raise wrong(name, value, f"is no {kind.value}")
    if kind is FieldType.INTEGER and not -(2**63) <= int(text) < 2**63:
        raise wrong(name, value, "does not fit 64 bits")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise wrong(name, ascii(value), "holds what is no character") from None
    return text


def told(condition: Any) -> str:
    """A condition as a refusal repeats it."""
    return ",".join(map(str, condition)) if isinstance(condition, list) else str(condition)


def conditions_sql(filters: Sequence[Filter], event_type: EventType, parameters: dict[str, Any], prefix: str) -> str:
    """The conditions as SQL over rows called `r`, each beginning with AND; their values go into `parameters`."""
    sql = ""
    for number, condition in enumerate(filters):
        field = event_type.field(condition.field)
        assert field is not None
        column, key = f"r.{quoted(condition.field)}", f"{prefix}_filter_{number}"
        known = [value for value in condition.values if value is not None]
        if condition.op in _RANGES:
            parameters[key] = known[0]
            sql += f" AND {column} {_RANGES[condition.op]} %({key})s::{field.type.column_type}"
            continue
        parameters[key] = known
        found = f"{column} = ANY (%({key})s::{field.type.column_type}[])"
        if None in condition.values:
            found = f"({found} OR {column} IS NULL)"
        # An event without a value is none of the values that are left out.
        sql += f" AND ({found}) IS NOT TRUE" if condition.op == "not" else f" AND {found}"
    return sql
