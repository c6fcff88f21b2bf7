"""A request on its way through the collector, and the answer to each of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from totalizer.clock import utc_text
from totalizer.errors import Refusal
from totalizer.event import Section

if TYPE_CHECKING:
    from totalizer.collect.type_tools import TypeTools


class Item(msgspec.Struct, frozen=True, order=True):
    """The answer to one event that was not accepted.

    Attributes:
        event_type: of the event.
        index: its place in the request, in its type's list.
        status: always `rejected`.
        code: why, from the closed set of refusals.
        message: why, for people.
        id: what its sender called it; None if the sender did not, or if it cannot be read.
    """

    event_type: str
    index: int
    status: str
    code: str
    message: str
    id: str | None = None


class Admission:
    """One request on its way through the steps.

    Attributes:
        organization_id: whose events they are.
        body: the request's bytes.
        received_ns: when it came in, nanoseconds since 1970.
        events: what was decoded: (event type, [(index in the request, event)]).
        items: answers to the events that are not accepted.
        payload: for the journal; empty if no event is accepted.
        accepted: how many events are in the payload.
        request: stands for the request, the same at each attempt to send it; None if the sender does not say so.
    """

    def __init__(self, organization_id: str, body: bytes, received_ns: int, request: bytes | None = None) -> None:
        self.organization_id, self.body, self.received_ns = organization_id, body, received_ns
        self.request = request
        self.received_at = utc_text(received_ns)
        self.default_time = self.received_at
        self.events: list[tuple[TypeTools, list[Any], list[int] | None]] = []
        self.items: list[Item] = []
        self.sections: list[Section] = []
        self.blocks: list[bytes] = []
        self.accepted = 0
        self.payload = b""

    def reject(self, event_type: str, index: int, refusal: Refusal, message: str, event_id: str | None = None) -> None:
        """Note that one event is not accepted, and why."""
        self.items.append(Item(event_type, index, "rejected", refusal.value, message, event_id))


class AdmittedEvent(NamedTuple):
    """A single event that is accepted.

    Attributes:
        payload: for the journal.
        event_id: its stored id.
    """

    payload: bytes
    event_id: str
