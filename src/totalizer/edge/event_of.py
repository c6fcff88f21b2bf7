"""What the server stores of an entry: one `time_entries` event.

The sink and the import of batch files both send exactly this, so a batch that arrives by both ways is counted once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from totalizer.edge.batch import Entry

#: The catalog's name of the events that entries become.
EVENT_TYPE = "time_entries"
#: Characters of a session or task that fit the event's own fields.
TEXT_LENGTH_MAX = 255
#: Milliseconds of the longest duration that fits its field: 365 days.
DURATION_MS_MAX = 31_536_000_000

_encode = msgspec.json.Encoder().encode


def event_of(entry: Entry) -> dict[str, Any]:
    """The event of an entry, with the keys it has on the wire.

    The entry's members are the event's. `sessionId`, `taskId` (texts of at most 255 characters) and `duration` (whole
    milliseconds, at most 365 days) stand in the metadata of an entry; those of the right type are the event's fields as
    well. The metadata is kept whole.

    Args:
        entry: with its `id`. Members that no entry has are passed on, for the server to refuse by name.
    """
    event = {key: value for key, value in entry.items() if value is not None}
    metadata = event.get("metadata")
    if isinstance(metadata, dict):
        for key, fits in _LIFTED.items():
            if key not in event and fits(metadata.get(key)):
                event[key] = metadata[key]
    return event


def encode_event(entry: Entry) -> bytes:
    """The JSON of an entry's event.

    Raises:
        ValueError: it holds what JSON cannot say.
    """
    try:
        return _encode(event_of(entry))
    except (OverflowError, TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"it cannot be written as JSON: {error}") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX and "\0" not in value


def _is_duration(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DURATION_MS_MAX


_LIFTED = {"sessionId": _is_text, "taskId": _is_text, "duration": _is_duration}
