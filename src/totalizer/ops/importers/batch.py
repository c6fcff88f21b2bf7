"""A stretch of the input on its way: the events in it, the broken lines between them, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from totalizer.ops.importers.checkpoint import Mark
from totalizer.ops.importers.source import Event, Line

#: Events of one request; the server takes no more.
BATCH_EVENTS_MAX = 1000
#: Bytes of one request's events; half of what the server takes, so that a resend passes a slow line in seconds.
BATCH_BYTES_MAX = 4 * 1024 * 1024
#: Lines without an event in one batch, so that a file of nothing else is still reported as it is read.
BATCH_BROKEN_MAX = 1000

_ENCODER = msgspec.json.Encoder()


class Item(NamedTuple):
    """One event to send: its JSON, encoded once, and the line it came from."""

    event_type: str
    json: bytes
    line: Line


class Refused(NamedTuple):
    """A line that was not counted, and why."""

    line: Line
    reason: str


class Batch:
    """What is sent and acknowledged as one.

    Attributes:
        items: the events, in the order of the input.
        broken: the lines that are none.
        mark: the place after its last line that can be gone on from; None if there is none in it.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.broken: list[Refused] = []
        self.mark: Mark | None = None
        self._bytes = 0
        self._broken_bytes = 0

    def __bool__(self) -> bool:
        return bool(self.items or self.broken)

    def has_room_for(self, item: Item, events_max: int) -> bool:
        """True if one more event keeps the request within `events_max` events and `BATCH_BYTES_MAX` bytes."""
        return not self.items or (len(self.items) < events_max and self._bytes + len(item.json) <= BATCH_BYTES_MAX)

    def add(self, item: Item) -> None:
        """Take an event."""
        self.items.append(item)
        self._bytes += len(item.json)

    def add_broken(self, line: Line, reason: str) -> None:
        """Take a line that is none."""
        self.broken.append(Refused(line, reason))
        self._broken_bytes += len(line.raw)

    @property
    def full_of_broken(self) -> bool:
        """True if it should go on its way for its broken lines alone."""
        return len(self.broken) >= BATCH_BROKEN_MAX or self._broken_bytes >= BATCH_BYTES_MAX


def encode_item(event: Event, line: Line) -> Item:
    """The event as it goes into a request.

    Raises:
        ValueError: it holds what JSON cannot say.
    """
    try:
        return Item(event.event_type, _ENCODER.encode(event.fields), line)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError) as error:
        raise ValueError(f"it cannot be written as JSON: {error}") from error


def by_type(items: Sequence[Item]) -> dict[str, list[Item]]:
    """The events of each type, in order: the shape of a request, and what the indexes of its answer count."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.event_type, []).append(item)
    return groups


def encode_request(groups: dict[str, list[Item]]) -> bytes:
    """The body of a batch request."""
    parts = (
        _ENCODER.encode(name) + b":[" + b",".join(item.json for item in items) + b"]" for name, items in groups.items()
    )
    return b"{" + b",".join(parts) + b"}"
