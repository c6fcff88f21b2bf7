"""What an ingest route is, and the two that most events come in by."""

from __future__ import annotations

import asyncio
from abc import ABC
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs

import msgspec

from totalizer.collect import Admission, Collector
from totalizer.collect.admission import Item
from totalizer.errors import Refusal, Refused
from totalizer.web.described import taken
from totalizer.web.described.forms import Form
from totalizer.web.principal import Principal

JSON = "application/json"
JSON_HEADERS = [("content-type", JSON)]
#: Stands in a route table for every media type that has no route of its own.
ANY = "*"


class Request(Protocol):
    """A request without its body, whichever server has read it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names in lower case."""

    @property
    def query_string(self) -> str:
        """What follows the `?`."""


#: Of a body read as a whole: payload for the journal (never empty), answer, its status, how many events are accepted.
Admitted = tuple[bytes, bytes, int, int]


class Sink(NamedTuple):
    """Where a stream puts its pieces.

    Attributes:
        append: gives a payload to the journal; the future has its record's number when it is on disk.
        receipt: the receipt of a record: (organisation, number, how many events it holds).
    """

    append: Callable[[bytes], asyncio.Future[int]]
    receipt: Callable[[str, int, int], bytes]


class Counted(Protocol):
    """What a request adds to counters, once it is on disk."""

    async def add(self, answer: bytes) -> bytes:
        """Add it, and tell the counters in an answer that is a JSON object. Nothing of it raises."""


class Counting(Protocol):
    """Counts what a route takes."""

    async def prepare(self, organization_id: str, payload: bytes) -> Counted:
        """What a payload will add; called before it is on disk. Nothing of it raises."""


class Route(ABC):
    """One way in: a path and a media type.

    Attributes:
        summary: for the API's description.
        body: what it takes.
        headers: of its answers.
        answers: by status, the usual one first.
        many: True if a request holds any number of events.
        streams: True if the body is not read as a whole, but by `stream`.
        receipts: True if its answers, JSON objects, get their receipt as a member; else it is a header field of theirs.
        counting: counts what it takes; its answers tell the counters.
    """

    summary = ""
    body: Form
    headers = JSON_HEADERS
    answers: Mapping[int, Form] = MappingProxyType({202: taken.MANY})
    many = True
    streams = False
    receipts = False
    counting: Counting | None = None

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        """What becomes of a body that is read as a whole. Waits for nothing.

        Args:
            principal: whose events they are.
            request: the request.
            body: unpacked.
            identity: at most 64 bytes that stand for the request, the same for each attempt to send it, so that events
                without an id get the same at a repeat. None if it cannot be told from others.

        Raises:
            Refused: it is not accepted.
        """
        raise NotImplementedError(f"{self.summary}: bodies are read piece by piece")

    async def stream(
        self, principal: Principal, request: Request, chunks: AsyncIterator[bytes], sink: Sink
    ) -> tuple[bytes, int]:
        """Read the body piece by piece; the answer and its status, when everything accepted is on disk.

        Args:
            principal: whose events they are.
            request: the request.
            chunks: of the body, as they come in.
            sink: where the pieces go.

        Raises:
            Refused: it was broken off; the members of the refusal say how much is on disk.
        """
        raise NotImplementedError(f"{self.summary}: bodies are read as a whole")


class SingleRoute(Route):
    """One event of one type.

    Args:
        collector: admits it.
        route: path segment of the type.
    """

    many = False
    receipts = True
    answers = MappingProxyType({202: taken.ONE})

    def __init__(self, collector: Collector, route: str) -> None:
        self._collector, self._admit, self._route = collector, collector.admit_one, route

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        try:
            payload, event_id = self._admit(principal.organization_id, self._route, body, identity)
        except Refused as refused:
            self._count(principal, refused)
            raise
        return payload, f'{{"accepted":1,"rejected":0,"items":[],"id":"{event_id}"}}'.encode(), 202, 1

    def _count(self, principal: Principal, refused: Refused) -> None:
        """Tell of an event that is not accepted. What is no event at all is none that was sent."""
        if refused.refusal in (Refusal.INVALID_EVENT, Refusal.INVALID_TIME):
            event_type = self._collector.type_of_route(self._route)
            item = Item(event_type, 0, "rejected", refused.refusal.value, refused.detail)
            self._collector.on_rejected(principal.organization_id, [item])


class BatchRoute(Route):
    """Events of any types, under the names of their types."""

    summary = "Send events of any types"
    receipts = True

    def __init__(self, collector: Collector) -> None:
        self._admit = collector.admit_batch

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        admission = self._admit(principal.organization_id, body, identity, atomic=wants_atomic(request))
        return admission.payload, batch_answer(admission), 202, admission.accepted


def wants_atomic(request: Request) -> bool:
    """Whether a request is to be taken whole or not at all.

    Raises:
        Refused: `atomic` is neither true nor false.
    """
    query_string = request.query_string
    if not query_string:
        return False
    value = parse_qs(query_string, keep_blank_values=True).get("atomic", ["false"])[-1].lower()
    if value not in ("true", "false"):
        raise Refused(Refusal.BAD_REQUEST, f"atomic={value[:80]}: send true or false")
    return value == "true"


def batch_answer(admission: Admission) -> bytes:
    """The answer to a request of several events."""
    if not admission.items:
        return f'{{"accepted":{admission.accepted},"rejected":0,"items":[]}}'.encode()
    items = admission.items
    return msgspec.json.encode({"accepted": admission.accepted, "rejected": len(items), "items": items})


def choose(routes: Mapping[str | None, Any], content_type: str | None) -> Any:
    """The route of one path for a spelling of a media type that is not in the table as it is.

    Raises:
        Refused: no route takes it.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    route = routes.get(media_type) or routes.get(ANY)
    if route is not None:
        return route
    taken = ", ".join(sorted({name.partition(";")[0] for name in routes if name}))
    raise Refused(
        Refusal.UNSUPPORTED_MEDIA_TYPE, f"content type {(content_type or '')[:80]!r} is not taken; send {taken}"
    )
