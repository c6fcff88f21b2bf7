"""What the collector makes of an event type once, and uses for each of its events."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from totalizer.catalog import EventType
from totalizer.collect.render import Renderer, renderer
from totalizer.collect.unknown import Keeper
from totalizer.errors import Refusal, Refused
from totalizer.event import SingleEventEncoder


class TypeTools(NamedTuple):
    """What the collector keeps for one event type."""

    event_type: EventType
    columns: tuple[str, ...]
    decoder: msgspec.json.Decoder[Any]
    plain: Renderer
    escaping: Renderer
    keyed: SingleEventEncoder
    unkeyed: SingleEventEncoder
    keeper: Keeper | None

    def decode(self, raw: bytes) -> Any:
        """One sent event, its unknown fields kept where the declaration says so.

        Raises:
            msgspec.ValidationError: it is no such event; msgspec.DecodeError, UnicodeDecodeError, RecursionError: it
                is not JSON.
        """
        try:
            return self.decoder.decode(raw)
        except msgspec.ValidationError:
            folded = self.keeper and self.keeper.folded(raw)
            if not folded:
                raise
            return self.decoder.decode(folded)

    def refuse(self, _index: int, field: str, reason: str) -> None:
        """Refuse a single event that cannot be rendered."""
        raise Refused(self.refusal(field), f"{field}: {reason}")

    def refusal(self, field: str) -> Refusal:
        """Why an event with something wrong in this field is not accepted."""
        return Refusal.INVALID_TIME if field == self.event_type.time_wire else Refusal.INVALID_EVENT


def tools_of(event_type: EventType, struct: type[msgspec.Struct]) -> TypeTools:
    """The tools of an event type.

    Args:
        event_type: the type.
        struct: what one sent event of it decodes into.
    """
    columns = event_type.columns
    return TypeTools(
        event_type, columns, msgspec.json.Decoder(struct),
        renderer(event_type, escaping=False), renderer(event_type, escaping=True),
        SingleEventEncoder(event_type.name, columns, keyed=True),
        SingleEventEncoder(event_type.name, columns, keyed=False),
        None if event_type.keep_unknown is None else Keeper(event_type),
    )  # fmt: skip
