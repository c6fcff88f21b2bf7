"""What is wrong with an event, in a sender's words: the field first, then what it must be, its value last."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from totalizer.catalog import EventType, Field, FieldType
from totalizer.collect.validator import ID_LENGTH_MAX

#: Characters of a value or of an unknown name shown in an error.
SHOWN_MAX = 80

# How msgspec says it; anything it says otherwise is passed on as it is.
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)
_WITH_PATH = re.compile(r"(?P<reason>.*) - at `\$\.?(?P<path>.*)`", re.DOTALL)


def explain(error: Exception, raw: bytes, event_type: EventType) -> str:
    """Why an event does not decode.

    Args:
        error: what msgspec raised.
        raw: the event's JSON.
        event_type: what it was decoded as.
    """
    message = str(error)
    requirements = _requirements(event_type)
    if found := _MISSING.fullmatch(message):
        return f"{found['key']}: is missing; it {requirements[found['key']]}"
    if found := _UNKNOWN.fullmatch(message):
        return f"{_cut(found['key'])}: unknown field; {event_type.name} has {', '.join(requirements)}"
    if found := _WITH_PATH.fullmatch(message):
        return _of_field(found["path"], found["reason"], raw, requirements)
    return f"an event must be a JSON object of fields, not {_shown_whole(raw)}"


def requirement(field: Field) -> str:
    """What a field must be, as the end of a sentence that begins with its name."""
    match field.type:
        case FieldType.TEXT if field.values:
            return f"must be one of {', '.join(field.values)}"
        case FieldType.TEXT:
            return _text_of(field.length_min, field.length_max)
        case FieldType.UUID:
            return "must be a UUID"
        case FieldType.INTEGER if field.minimum is None and field.maximum is None:
            return "must be a whole number of at most 64 bits"
        case FieldType.INTEGER:
            return f"must be a whole number{_bounds(field)}"
        case FieldType.NUMBER:
            return f"must be a number{_bounds(field)}"
        case FieldType.DECIMAL:
            return f"must be a decimal number{_bounds(field)}"
        case FieldType.BOOLEAN:
            return "must be true or false"
        case FieldType.JSON:
            return "must be a JSON object"


def _requirements(event_type: EventType) -> dict[str, str]:
    """What each key of a sent event must be."""
    return {
        "id": _text_of(1, ID_LENGTH_MAX),
        "source": _text_of(0, ID_LENGTH_MAX),
        event_type.time_wire: "must be an RFC 3339 time or whole milliseconds since 1970",
    } | {field.key: requirement(field) for field in event_type.fields}


def _of_field(path: str, reason: str, raw: bytes, requirements: dict[str, str]) -> str:
    # A key may hold dots and brackets itself, so it is looked for rather than cut out.
    keys = [key for key in requirements if path == key or path.startswith((f"{key}.", f"{key}["))]
    if not keys:
        return f"{_cut(path)}: {reason}"
    key = max(keys, key=len)
    if path != key:
        return f"{key}: holds something that cannot be stored: {reason}"
    try:
        value = msgspec.json.decode(raw)[key]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        # A number too long to be read, here or in another field: the reason stands for the value.
        return f"{key}: {requirements[key]} ({reason})"
    return f"{key}: {requirements[key]}, not {_shown(value)}"


def _text_of(least: int, most: int) -> str:
    return (
        f"must be a text of {least} to {most} characters" if least else f"must be a text of at most {most} characters"
    )


def _bounds(field: Field) -> str:
    if field.minimum is not None and field.maximum is not None:
        return f" from {field.minimum} to {field.maximum}"
    if field.minimum is not None:
        return f" of at least {field.minimum}"
    return f" of at most {field.maximum}" if field.maximum is not None else ""


def _shown(value: Any) -> str:
    return _cut(repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode())


def _shown_whole(raw: bytes) -> str:
    return _cut(raw[: 4 * SHOWN_MAX].decode(errors="replace"))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"
