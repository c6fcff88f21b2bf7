"""An entry as version 1 programs wrote it, made into one of version 2.0.0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from totalizer.edge.batch import Entry
from totalizer.edge.entry import MILLISECONDS_MIN
from totalizer.errors import ValidationError

#: Names under which each member was written; the first is the present one. A file uses one of each, or equal values.
SPELLINGS = {
    "id": ("id", "entryId", "entry_id"),
    "userId": ("userId", "user_id", "user"),
    "action": ("action", "event"),
    "timestamp": ("timestamp", "time", "ts"),
    "metadata": ("metadata", "meta", "data"),
}
#: The same for the members of the metadata that are counted.
METADATA_SPELLINGS = {
    "sessionId": ("sessionId", "session_id"),
    "taskId": ("taskId", "task_id"),
    "duration": ("duration", "durationMs", "duration_ms"),
}
#: The end of the year 9999.
MILLISECONDS_MAX = 253_402_300_799_999
#: Characters of a wrong value shown in a message.
_SHOWN_MAX = 80

_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII).fullmatch
# Spelt out, since datetime alone takes more, and not the same in every version of Python.
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?", re.ASCII | re.IGNORECASE
).fullmatch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def convert_entry(old: Mapping[str, Any], zone: tzinfo | None) -> Entry:
    """The entry in its present form. Every member is kept: what has no place of its own goes into the metadata.

    Args:
        old: as it was read from JSON.
        zone: of times that are written without one; None to refuse them.

    Raises:
        ValidationError: it says too little, or says one thing twice differently; names the member.
    """
    rest = dict(old)
    found = {name: _take(rest, name, spellings) for name, spellings in SPELLINGS.items()}
    entry: Entry = {
        "userId": _text("userId", found["userId"]),
        "action": _text("action", found["action"]),
        "timestamp": milliseconds_of(found["timestamp"], zone),
    }
    if found["id"] is not None:
        entry = {"id": _text("id", found["id"]), **entry}
    metadata = _metadata(found["metadata"], rest)
    if metadata:
        entry["metadata"] = metadata
    return entry


def milliseconds_of(value: object, zone: tzinfo | None, field: str = "timestamp") -> int:
    """A time as milliseconds since 1970 UTC.

    Args:
        value: seconds (numbers below MILLISECONDS_MIN) or milliseconds since 1970, as a number or as text, or ISO 8601
            text.
        zone: of a text without one; None to refuse it.
        field: what to call it in messages.

    Raises:
        ValidationError: it is no such time.
    """
    if isinstance(value, str) and _NUMBER(value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_number(value, field)
    if isinstance(value, str) and _ISO(value):
        return _from_text(value, zone, field)
    raise ValidationError(
        field, f"{_shown(value)} must be seconds or milliseconds since 1970, or a time such as 2024-01-01T00:00:00Z"
    )


def _from_number(value: float, field: str) -> int:
    return _within(round(value if value >= MILLISECONDS_MIN else value * 1000), value, field)


def _from_text(value: str, zone: tzinfo | None, field: str) -> int:
    try:
        moment = datetime.fromisoformat(value.upper())
        if moment.tzinfo is None:
            if zone is None:
                raise ValidationError(field, f"{value!r} names no time zone; say which with --time-zone")
            moment = moment.replace(tzinfo=zone)
        return _within((moment.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1), value, field)
    except (ValueError, OverflowError) as error:
        raise ValidationError(field, f"{value!r} is no time: {error}") from None


def _within(milliseconds: int, value: object, field: str) -> int:
    if not 0 <= milliseconds <= MILLISECONDS_MAX:
        raise ValidationError(field, f"{_shown(value)} is not between 1970 and the end of 9999")
    return milliseconds


def _text(field: str, value: object) -> str:
    """A text; whole numbers, as databases give their users, become one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    if value is None:
        raise ValidationError(field, f"is missing; it may be called {' or '.join(SPELLINGS[field])}")
    raise ValidationError(field, f"{_shown(value)} must be a text that is not empty")


def _metadata(value: object, rest: dict[str, Any]) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ValidationError("metadata", f"{_shown(value)} must be an object")
    metadata = dict(value or {})
    for source in (metadata, rest):
        for name, spellings in METADATA_SPELLINGS.items():
            taken = _take(source, name, spellings)
            if taken is not None:
                _put(metadata, name, taken)
    for name, member in rest.items():
        _put(metadata, name, member)
    return metadata


def _take(members: dict[str, Any], name: str, spellings: tuple[str, ...]) -> Any:
    """Take a member out under whichever name it has; None if it has none."""
    given = {spelling: members.pop(spelling) for spelling in spellings if members.get(spelling) is not None}
    values = list(given.values())
    if any(value != values[0] for value in values[1:]):
        raise ValidationError(name, f"is said twice, differently: {' and '.join(given)}")
    for spelling in spellings:  # those that are null say nothing
        members.pop(spelling, None)
    return values[0] if values else None


def _put(metadata: dict[str, Any], name: str, value: Any) -> None:
    if name in metadata and metadata[name] != value:
        raise ValidationError(f"metadata.{name}", "is said twice, differently: within the metadata and beside it")
    metadata[name] = value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
