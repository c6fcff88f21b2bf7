"""The validator of an event type: a msgspec struct made from its declaration."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from totalizer.catalog import Catalog, EventType, Field, FieldType

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z"
#: Characters of an id or source a sender may choose.
ID_LENGTH_MAX = 255
SIGNED_64_MIN, SIGNED_64_MAX = -(2**63), 2**63 - 1

_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+)\]")
#: Characters of a value shown in an error.
VALUE_SHOWN_MAX = 80


def event_struct(event_type: EventType) -> type[msgspec.Struct]:
    """The struct one sent event of this type decodes into. Attributes are the column names; `id`, `source` and the
    time may be left out."""
    text = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX)]
    fields: list[tuple[str, Any, Any]] = [
        ("id", text | None, msgspec.field(default=None)),
        ("source", Annotated[str, Meta(max_length=ID_LENGTH_MAX)] | None, msgspec.field(default=None)),
        (event_type.time_field, str | int | None, msgspec.field(default=None, name=event_type.time_wire)),
    ]
    for field in event_type.fields:
        kind = value_type(field)
        if field.required:
            fields.append((field.name, kind, msgspec.field(name=field.key)))
        else:
            fields.append((field.name, kind | None, msgspec.field(default=None, name=field.key)))
    # Events hold no reference cycles, so the garbage collector need not look at them.
    return msgspec.defstruct(
        f"{event_type.name}_event", fields, kw_only=True, forbid_unknown_fields=True, gc=False, frozen=True
    )


def batch_struct(catalog: Catalog, structs: dict[str, type[msgspec.Struct]]) -> type[msgspec.Struct]:
    """The struct a whole batch decodes into: a list of events under each type's name, and a time for those without."""
    fields: list[tuple[str, Any, Any]] = [("timestamp", str | int | None, None)]
    for name in catalog.event_types:
        fields.append((name, list[structs[name]], msgspec.field(default_factory=list)))  # type: ignore[valid-type]
    return msgspec.defstruct("batch", fields, kw_only=True, forbid_unknown_fields=True)


def value_type(field: Field) -> Any:
    """The type msgspec checks a field's value against."""
    match field.type:
        case FieldType.TEXT if field.values:
            return Literal[field.values]
        case FieldType.TEXT:
            return Annotated[str, Meta(min_length=field.length_min or None, max_length=field.length_max)]
        case FieldType.UUID:
            return Annotated[str, Meta(pattern=UUID_PATTERN)]
        case FieldType.INTEGER:
            low = SIGNED_64_MIN if field.minimum is None else int(field.minimum)
            high = SIGNED_64_MAX if field.maximum is None else int(field.maximum)
            return Annotated[int, Meta(ge=low, le=high)]
        case FieldType.NUMBER:
            return Annotated[float, Meta(ge=field.minimum, le=field.maximum)]
        case FieldType.DECIMAL:
            return Decimal
        case FieldType.BOOLEAN:
            return bool
        case FieldType.JSON:
            return dict[str, Any]


def explain(error: Exception, raw: bytes) -> str:
    """A validation error with the field's name first and its value last: what a sender needs to mend it.

    Args:
        error: what msgspec raised.
        raw: the JSON it was decoding.
    """
    message = str(error)
    found = _PATH.search(message)
    if not found:
        return message
    reason, path = message[: found.start()], found["path"]
    try:
        value: Any = msgspec.json.decode(raw)
        for step in _STEP.finditer(path):
            value = value[step["key"] if step["key"] else int(step["index"])]
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, RecursionError):
        return f"{path.lstrip('.')}: {reason}"
    shown = repr(value)
    shown = shown if len(shown) <= VALUE_SHOWN_MAX else f"{shown[:VALUE_SHOWN_MAX]}…"
    return (
        f"{path.lstrip('.')}: {reason}, not {shown}" if "got" not in reason else f"{path.lstrip('.')}: {reason} {shown}"
    )
