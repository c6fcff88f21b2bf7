"""From validated events to COPY lines: one function for each event type, written from its declaration.

A line is one f-string, which is three times as fast as a loop over fields; so the function's source is put together
here, as dataclasses do, and compiled once. Names in it come from a checked catalog and are plain identifiers.

There are two of each. A JSON body without a backslash cannot hold a tab, a newline, a backslash or NUL in any of its
texts, since JSON forbids them raw: for such a body, nearly every one, texts go into the line as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from totalizer.catalog import EventType, Field, FieldType
from totalizer.collect.sanitise import decimal_column, escape, json_column, plain_json_column
from totalizer.collect.times import AgeLimit, canonical_time
from totalizer.event import event_uuid

#: COPY's null.
NULL = "\\N"


class Stamps(NamedTuple):
    """What the collector adds to the events of one request.

    Attributes:
        organization_id: their owner.
        received_at: UTC text; the time of events that name none, unless the batch names one.
        default_time: the time of events that name none.
        latest: the latest time that is believed.
        fresh_ids: gives an id to the event at an index that has none.
    """

    organization_id: str
    received_at: str
    default_time: str
    latest: str
    fresh_ids: Callable[[int], str]


#: (events, stamps, reject) → lines of events with a sender's id, lines of the others.
#: `reject(index, field, reason)` is called for each event that cannot be stored.
Renderer = Callable[[list[Any], Stamps, Callable[[int, str, str], None]], tuple[list[str], list[str]]]


def renderer(event_type: EventType, *, escaping: bool) -> Renderer:
    """The function that renders events of a type.

    Args:
        event_type: the type.
        escaping: True for bodies that hold a backslash, so that texts must be escaped.
    """
    scope: dict[str, Any] = {
        "canonical_time": canonical_time, "event_uuid": event_uuid, "escape": escape,
        "json_column": json_column if escaping else plain_json_column,
        "decimal_column": decimal_column, "NULL": NULL,
    }  # fmt: skip
    if event_type.past_max_s is not None:
        scope["check_age"] = AgeLimit(event_type.past_max_s).check
    for field in event_type.fields:
        scope[f"bounds_{field.name}"] = (field.scale, field.minimum, field.maximum)
    exec(compile(_source(event_type, escaping), f"<renderer of {event_type.name}>", "exec"), scope)
    function: Renderer = scope["render"]
    return function


def _source(event_type: EventType, escaping: bool) -> str:
    text = "escape({})" if escaping else "{}"
    fixed = "{organization_id}\\t{time}\\t{stored_id}\\t{source}\\t{external_id}\\t{received_at}"
    columns = "\\t".join(f"{{{field.name}_}}" for field in event_type.fields)
    assignments = "\n            ".join(_assignment(field, text) for field in event_type.fields)
    too_old = "" if event_type.past_max_s is None else "\n            check_age(time, received_at)"
    return f"""
def render(events, stamps, reject):
    organization_id, received_at, default_time, latest, fresh_ids = stamps
    keyed, unkeyed = [], []
    for index, event in enumerate(events):
        field = {event_type.time_wire!r}
        try:
            time = event.{event_type.time_field}_
            time = default_time if time is None else canonical_time(time, latest){too_old}
            field = "id"
            sent_id, source = event.id, event.source
            if sent_id is None:
                stored_id, external_id = fresh_ids(index), NULL
            else:
                stored_id = event_uuid(source or "", sent_id)
                external_id = NULL if stored_id == sent_id.lower() else {text.format("sent_id")}
            field = "source"
            source = NULL if not source else {text.format("source")}
            {assignments}
        except ValueError as error:
            reject(index, field, str(error))
            continue
        line = f"{fixed}\\t{columns}\\n"
        (unkeyed if sent_id is None else keyed).append(line)
    return keyed, unkeyed
"""


def _assignment(field: Field, text: str) -> str:
    """Statements that put the column's text of a field into `<name>_`."""
    value = f"event.{field.name}_"
    match field.type:
        case FieldType.TEXT:
            rendered = text.format(value)
        case FieldType.JSON:
            rendered = f"json_column({value})"
        case FieldType.DECIMAL:
            rendered = f"decimal_column({value}, *bounds_{field.name})"
        case FieldType.BOOLEAN:
            rendered = f"('t' if {value} else 'f')"
        case _:
            rendered = value
    if not field.required:
        rendered = f"NULL if {value} is None else {rendered}"
    return f"field = {field.key!r}; {field.name}_ = {rendered}"
