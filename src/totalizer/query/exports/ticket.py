"""What an export is of, as text that a client sends back: to go on with it, or to ask for what came after it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from totalizer.errors import Refusal, Refused
from totalizer.prepared import prepared
from totalizer.query.exports.horizon import Horizon
from totalizer.query.opaque import decoded, encoded

Key = tuple[str, str]


@prepared
class Ticket(msgspec.Struct, array_like=True, frozen=True):
    """An export.

    Attributes:
        question: fingerprint of the organisation and of what it asked for.
        until: what was stored by then is in it.
        since: and was not by then; None for all.
        key: time and id of the last event taken; None for none yet.
    """

    question: str
    until: Horizon
    since: Horizon | None = None
    key: Key | None = None

    @property
    def text(self) -> str:
        """As it is sent."""
        return encoded(self)


def read_ticket(name: str, text: str, question: str) -> Ticket:
    """A ticket as it was sent.

    Args:
        name: of the parameter.
        text: its value.
        question: fingerprint of what is asked now.

    Raises:
        Refused: it is none, or of something else.
    """
    try:
        ticket = decoded(text, Ticket)
        for horizon in (ticket.until, ticket.since):
            if horizon is not None and (datetime.fromisoformat(horizon.at).tzinfo is None or not _is_xid(horizon.xid)):
                raise ValueError
            _ = None if horizon is None else horizon.settled
        if ticket.key is not None:
            read_key(*ticket.key)
    except (ValueError, OverflowError, msgspec.MsgspecError, RecursionError):
        raise Refused(
            Refusal.INVALID_QUERY, f"{name}={text:.50}: is no cursor of an export; send it as it was"
        ) from None
    if ticket.question != question:
        raise Refused(
            Refusal.INVALID_QUERY, f"{name}={text:.50}: belongs to another export; repeat the one it came from"
        )
    return ticket


def read_key(time: str, event_id: str) -> Key:
    """A place in the order of events.

    Raises:
        ValueError: it is none.
    """
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ValueError(time)
    return moment.isoformat(), str(UUID(event_id))


def _is_xid(number: int) -> bool:
    return 0 <= number < 1 << 63
