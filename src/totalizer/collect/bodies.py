"""What is looked at closely in a body only when decoding it at once has failed."""

from __future__ import annotations

from typing import Any

import msgspec

from totalizer.collect.explain import explain
from totalizer.collect.type_tools import TypeTools
from totalizer.errors import Refusal, Refused

#: What decoding hostile bytes can raise, besides ValidationError.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: What some programs write before UTF-8; it is not JSON, and taken for nothing (RFC 8259 §8.1).
BOM = b"\xef\xbb\xbf"
#: For the message to a sender who got it wrong.
BATCH_FORM = 'a list of events under each event type, such as {"commits": [{…}, {…}]}'
_RAW_EVENTS = msgspec.json.Decoder(list[msgspec.Raw])
_TIMESTAMP: msgspec.json.Decoder[str | int | None] = msgspec.json.Decoder(str | int | None)


def timestamp_of(batch: dict[str, msgspec.Raw]) -> str | int | None:
    """Take the time of events without one out of a batch.

    Raises:
        Refused: it is none.
    """
    raw = batch.pop("timestamp", None)
    try:
        return None if raw is None else _TIMESTAMP.decode(raw)
    except msgspec.ValidationError:
        shown = bytes(raw or b"")[:80].decode(errors="replace")
        reason = f"timestamp: must be an RFC 3339 time or whole milliseconds since 1970, not {shown}"
        raise Refused(Refusal.INVALID_TIME, reason) from None


def raw_events_of(name: str, raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The events under one name of a batch.

    Raises:
        Refused: it is no list.
    """
    try:
        return _RAW_EVENTS.decode(raw)
    except msgspec.ValidationError:
        raise Refused(Refusal.BAD_REQUEST, f"{name:.80}: must be a list of events; a batch is {BATCH_FORM}") from None


def kept(tools: TypeTools, body: bytes) -> Any:
    """A single event whose unknown fields are to be kept.

    Raises:
        Refused: they are not, or something else is wrong with it.
    """
    try:
        return tools.decode(body)
    except msgspec.ValidationError as error:
        raise Refused(Refusal.INVALID_EVENT, explain(error, body, tools.event_type)) from None
    except UNDECODABLE as error:
        raise bad_json(error) from None


def bad_json(error: Exception) -> Refused:
    """The refusal of a body that is not JSON, or not UTF-8, or nested without end."""
    return Refused(Refusal.BAD_JSON, f"the body {not_json(error)}")


def not_json(error: Exception) -> str:
    """What is wrong with text that raised one of UNDECODABLE, after `it` or `the body`."""
    return f"is not valid JSON: {'it is nested too deep' if isinstance(error, RecursionError) else error}"
