"""The messages that analytics libraries send: track, identify, page, screen, group, alias.

All become events of one shipped type. What has a field of its own goes there, the rest is kept beside it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from totalizer.clock import utc_datetime
from totalizer.collect.each import Sent, Wrong
from totalizer.collect.members import members, text
from totalizer.collect.times import FUTURE_TOLERANCE, canonical_time

#: The event type they become.
EVENT_TYPE = "tracks"
KINDS = ("track", "identify", "page", "screen", "group", "alias")
_LATEST = "9999-12-31T23:59:59.999999Z"
#: Ids that some senders write as numbers.
_IDS = ("userId", "anonymousId", "groupId", "previousId")
#: Members that mean something else in our events; kept with the rest.
_OURS = ("id", "source", "subject")


class Messages:
    """The messages of one request.

    Args:
        body: a JSON object: one message, or several as `batch`.
        kind: what the one message is; None for a batch.
        received_ns: when it came in, nanoseconds since 1970.

    Raises:
        ValueError: the body is neither.
    """

    def __init__(self, body: bytes, kind: str | None, received_ns: int) -> None:
        envelope = members(body)
        self._kind = kind
        self._context = envelope.get("context") if kind is None else None
        self._skew = _skew(envelope.get("sentAt"), received_ns)
        self.raw = [msgspec.Raw(body)] if kind is not None else _batch(envelope.get("batch"))

    def sent(self) -> list[Sent | Wrong]:
        """Each as an event of the shipped type."""
        return [self._sent(bytes(raw)) for raw in self.raw]

    def _sent(self, raw: bytes) -> Sent | Wrong:
        try:
            fields: dict[str, object] = self._fields(members(raw))
        except ValueError as error:
            return Wrong(str(error), event_type=EVENT_TYPE)
        return Sent(EVENT_TYPE, msgspec.json.encode(fields))

    def _fields(self, message: dict[str, msgspec.Raw]) -> dict[str, object]:
        kept = {name: message.pop(name) for name in _OURS if name in message}
        # The key that authenticates the sender is nothing to keep.
        message.pop("writeKey", None)
        fields: dict[str, object] = dict(message)
        if self._kind is not None:
            fields["type"] = self._kind
        if "type" not in fields:
            raise ValueError(f"its type is missing; it is one of {', '.join(KINDS)}")
        for name in _IDS:
            if (identifier := text(message.get(name))) is not None:
                fields[name] = identifier
        fields["subject"] = fields.get("userId") or fields.get("anonymousId")
        if (message_id := text(message.get("messageId"))) is not None:
            fields["id"] = message_id
            del fields["messageId"]
        if self._skew and "timestamp" in message:
            fields["timestamp"] = _shifted(message["timestamp"], self._skew)
        self._add_context(fields)
        if kept:
            fields["other"] = kept
        return fields

    def _add_context(self, fields: dict[str, object]) -> None:
        """The context of a batch holds for each message that does not say otherwise."""
        if self._context is None or self._context == b"null":
            return
        own = fields.get("context", b"null")
        if own == b"null":
            fields["context"] = self._context
        elif isinstance(own, bytes | msgspec.Raw):
            fields["context"] = members(bytes(self._context)) | members(bytes(own))


def _batch(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    if raw is None:
        raise ValueError("it has no batch; send {\"batch\": [{\"type\": \"track\", …}, …]}")
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.ValidationError as error:
        raise ValueError(f"its batch is no list of messages: {error}") from error


def _skew(sent_at: msgspec.Raw | None, received_ns: int) -> timedelta | None:
    """How far the sender's clock is behind ours (negative: ahead), if it is by more than the tolerance.

    The time a batch was sent, by the sender's clock, is taken for that of its receipt, by ours.
    """
    moment = _moment(sent_at)
    if moment is None:
        return None
    skew = utc_datetime(received_ns) - moment
    return skew if abs(skew) > FUTURE_TOLERANCE else None


def _moment(raw: msgspec.Raw | None) -> datetime | None:
    """A time as sent; None if there is none, or it cannot be read."""
    value = None if raw is None else msgspec.json.decode(raw)
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    try:
        return datetime.fromisoformat(canonical_time(value, _LATEST)).replace(tzinfo=UTC)
    except ValueError:
        return None


def _shifted(raw: msgspec.Raw, skew: timedelta) -> object:
    moment = _moment(raw)
    if moment is None:
        return raw
    try:
        return (moment + skew).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except OverflowError:
        return raw
