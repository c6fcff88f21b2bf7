"""A rendered event back in the form in which it was sent, to be mended and sent again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from totalizer.catalog import EventType, Field, FieldType
from totalizer.errors import Refusal, Refused


def sent_form(event_type: EventType, values: Mapping[str, str | None]) -> dict[str, Any]:
    """The event as a sender would send it; a value that is not of its field's type stays a text.

    Args:
        event_type: as it is declared now; what it has no field for is left out.
        values: text by column, None for null.
    """
    event: dict[str, Any] = {
        "id": values.get("external_id") or values.get("id"),
        "source": values.get("source"),
        event_type.time_wire: values.get(event_type.time_field),
        **{field.key: _sent(field, values.get(field.name)) for field in event_type.fields},
    }
    return {key: value for key, value in event.items() if value is not None}


def mended(event_type: EventType, event: Mapping[str, Any], corrections: Mapping[str, Any]) -> dict[str, Any]:
    """The event with some fields replaced; null takes a field away.

    Raises:
        Refused: what makes the event the one it is would change.
    """
    for key in ("id", "source"):
        if key in corrections:
            raise Refused(
                Refusal.INVALID_EVENT, f"{key}: stays as it is, since it says which event this is; leave it out"
            )
    known = {event_type.time_wire, *(field.key for field in event_type.fields)}
    if unknown := sorted(set(corrections) - known):
        raise Refused(
            Refusal.INVALID_EVENT, f"{unknown[0][:80]}: unknown field; {event_type.name} has {', '.join(sorted(known))}"
        )
    return {key: value for key, value in {**event, **corrections}.items() if value is not None}


def _sent(field: Field, text: str | None) -> Any:
    if text is None:
        return None
    try:
        match field.type:
            case FieldType.INTEGER:
                return int(text)
            case FieldType.NUMBER:
                return float(text)
            case FieldType.BOOLEAN:
                return {"t": True, "f": False}.get(text, text)
            case FieldType.JSON:
                return msgspec.json.decode(text)
            case _:
                return text
    except (ValueError, msgspec.DecodeError):
        return text
