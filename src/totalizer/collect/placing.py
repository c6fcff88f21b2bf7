"""Which event of a request a line came from, and the ids of events that have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from totalizer.collect.admission import Admission
from totalizer.collect.bodies import UNDECODABLE
from totalizer.collect.validator import ID_LENGTH_MAX
from totalizer.event import new_event_ids, request_event_uuid


class _WithId(msgspec.Struct):
    id: Any = None


_ID = msgspec.json.Decoder(_WithId)


def sent_id(raw: bytes | msgspec.Raw) -> str | None:
    """What a sender called an event that does not decode; None if even that cannot be read."""
    try:
        event_id = _ID.decode(raw).id
    except UNDECODABLE:
        return None
    return event_id[:ID_LENGTH_MAX] if isinstance(event_id, str) else None


def fresh_ids(admission: Admission, event_type: str, indexes: Sequence[int] | None) -> Callable[[int], str]:
    """Gives an id to the event at an index that has none.

    A request that says how it can be told from others gets the same ids at each attempt, since they follow from the
    event's place in it: whatever else is forgotten, a repeat is then found to be a duplicate.

    Args:
        admission: the request.
        event_type: name of the events' type.
        indexes: place of each event in the request; None if that is its index.
    """
    request = admission.request
    if request is None:
        # `next` takes the index for its second argument, which an iterator without end never gives.
        return partial(next, new_event_ids(admission.received_ns))
    return lambda index: request_event_uuid(request, event_type, index if indexes is None else indexes[index])


def places(
    admission: Admission, event_type: str, events: Sequence[Any], indexes: Sequence[int] | None, *, with_id: bool
) -> tuple[int, ...] | None:
    """Where the events that became lines stood in the request; None if that was at 0, 1, 2 and so on.

    Args:
        admission: the request, after rendering these events.
        event_type: name of their type.
        events: all that were decoded.
        indexes: place of each in the request; None if that is its index.
        with_id: True for those that have an id of the sender's, False for the others.
    """
    rejected = {item.index for item in admission.items if item.event_type == event_type}
    at = [
        place
        for place, event in zip(indexes or range(len(events)), events, strict=True)
        if (event.id is not None) is with_id and place not in rejected
    ]
    return None if at == list(range(len(at))) else tuple(at)
