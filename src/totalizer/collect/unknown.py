"""Fields that a declaration does not name: moved into one of its JSON fields, where it says so."""

from __future__ import annotations

import msgspec

from totalizer.catalog import EventType

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Keeper:
    """Moves unknown fields of sent events of one type.

    Args:
        event_type: has `keep_unknown`.
    """

    def __init__(self, event_type: EventType) -> None:
        assert event_type.keep_unknown is not None
        field = event_type.field(event_type.keep_unknown)
        assert field is not None
        self._into = field.key
        self._known = {"id", "source", event_type.time_wire, *(field.key for field in event_type.fields)}

    def folded(self, raw: bytes) -> bytes | None:
        """The event with its unknown fields in the JSON field, each as it was written; None if it has none.

        What the JSON field holds already under the same name stays.

        Raises:
            msgspec.DecodeError, UnicodeDecodeError: it is no JSON object, or something in it cannot be read.
        """
        members = _MEMBERS.decode(raw)
        unknown = {name: value for name, value in members.items() if name not in self._known}
        if not unknown:
            return None
        known: dict[str, object] = {name: value for name, value in members.items() if name in self._known}
        kept = members.get(self._into, b"null")
        if kept != b"null":
            if bytes(kept)[:1] != b"{":
                return msgspec.json.encode(known)  # its decoder says what is wrong
            unknown |= _MEMBERS.decode(kept)
        return msgspec.json.encode(known | {self._into: unknown})
