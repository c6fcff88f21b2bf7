"""Reading the declaration of an event type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from totalizer.catalog.model import FIXED_COLUMNS, SYSTEM_COLUMNS, EventType, Field, FieldType
from totalizer.catalog.place import At
from totalizer.catalog.read_fields import read_field
from totalizer.catalog.read_retention import read_retention

_EVENT_TYPE_KEYS = {
    "title", "route", "time", "time_wire", "subject", "partition", "fields", "unknown_fields", "past_max",
    "retention",
}  # fmt: skip
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
#: Path segments under /api/metrics/ that are not event types.
_TAKEN_ROUTES = {
    "batch", "aggregated", "dashboard", "real-time", "query", "export", "health", "stats", "performance", "receipts",
    "quarantine", "live", "stream",
}  # fmt: skip
#: Keys of a batch request that are not event types.
_TAKEN_KEYS = ("timestamp",)


def read_event_type(at: At, name: str, value: Any, known: Mapping[str, EventType]) -> EventType:
    """The event type that `value` declares.

    Args:
        at: its place in the file.
        name: its name.
        value: its table, as it is in the file.
        known: event types declared before it.

    Raises:
        CatalogError: it cannot be used.
    """
    table = at.table(value, _EVENT_TYPE_KEYS)
    at.name(name)
    if name in known:
        raise at.again(known[name].file)
    table_taken = (name.endswith("_keys") and name.removesuffix("_keys") in known) or f"{name}_keys" in known
    if name in _TAKEN_KEYS or table_taken:
        raise at.wrong(f"the name {name!r} is taken; choose another")
    route = at.get(table, "route", str, name)
    if route in _TAKEN_ROUTES or any(route == other.route for other in known.values()):
        raise at.below("route").wrong(f"{route!r} is taken; choose another")
    if not _ROUTE.fullmatch(route):
        raise at.below("route").wrong(f"{route!r} is no path segment of letters, digits and . _ ~ -, 64 at most")
    partition = at.get(table, "partition", str, "day")
    if partition not in ("day", "month"):
        raise at.below("partition").wrong(f"must be 'day' or 'month', not {partition!r}")
    time_field = at.below("time").name(at.get(table, "time", str))
    fields = tuple(
        read_field(at.below("fields", key), key, value)
        for key, value in at.below("fields").table(at.get(table, "fields", dict)).items()
    )
    time_wire = at.wire(table, "time_wire", time_field)
    _no_name_twice(at, time_field, time_wire, fields)
    subject = at.get(table, "subject", str)
    if all(field.name != subject for field in fields):
        raise at.below("subject").wrong(f"{subject!r} is none of its fields")
    return EventType(
        name=name, title=at.get(table, "title", str, name), route=route, time_field=time_field,
        time_wire=time_wire, subject_field=subject, partition=partition,
        fields=fields, file=at.file, keep_unknown=_keep_unknown(at.below("unknown_fields"), table, fields),
        past_max_s=at.span_s(table, "past_max") if "past_max" in table else None,
        retention=read_retention(at.below("retention"), table["retention"]) if "retention" in table else None,
    )  # fmt: skip


def _keep_unknown(at: At, table: dict[str, Any], fields: tuple[Field, ...]) -> str | None:
    """The name of the field that takes unknown fields; None if they are refused."""
    text = at.get(table, "unknown_fields", str, "refuse")
    if text == "refuse":
        return None
    word, _, name = text.partition(":")
    if word != "keep" or all(field.name != name or field.type is not FieldType.JSON for field in fields):
        raise at.wrong(f"must be 'refuse', or 'keep:' and the name of a json field of it, not {text!r}")
    return name


def _no_name_twice(at: At, time_field: str, time_wire: str, fields: tuple[Field, ...]) -> None:
    fixed, keys = {*FIXED_COLUMNS, *SYSTEM_COLUMNS}, {"id", "source"}
    if time_field in fixed:
        raise at.below("time").wrong(f"{time_field!r} is a column every event table has; choose another name")
    if time_wire in keys:
        raise at.below("time_wire").wrong(f"the key {time_wire!r} is taken in sent events; choose another")
    fixed.add(time_field)
    keys.add(time_wire)
    for field in fields:
        if field.name in fixed:
            raise at.below("fields", field.name).wrong("this name is a column every event table has")
        if field.key in keys:
            raise at.below("fields", field.name).wrong(f"the key {field.key!r} is taken in sent events")
        keys.add(field.key)
