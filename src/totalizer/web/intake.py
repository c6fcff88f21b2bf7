"""What an ingest route is, and the two that most events come in by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
from litestar.openapi.spec import Schema

from totalizer.collect import Admission, Collector
from totalizer.errors import Refusal, Refused
from totalizer.store.keys import Principal

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


class Taken(NamedTuple):
    """What a route makes of a request.

    Attributes:
        payload: for the journal; never empty.
        answer: given when the payload is on disk.
        status: of the answer.
    """

    payload: bytes
    answer: bytes
    status: int = 202


class Route(ABC):
    """One way in: a path and a media type.

    Attributes:
        summary: for the API's description.
        schema: of the body.
        headers: of its answers.
        statuses: of its answers, the usual one first.
        many: True if a request holds any number of events.
        streams: True if the body is not read as a whole, but by `stream`.
    """

    summary = ""
    schema: Schema
    headers = JSON_HEADERS
    statuses: tuple[int, ...] = (202,)
    many = True
    streams = False

    @abstractmethod
    def admit(self, principal: Principal, request: Request, body: bytes) -> tuple[bytes, bytes, int]:
        """The parts of a `Taken` for a body read as a whole. Does not wait for anything.

        Raises:
            Refused: it is not accepted.
        """

    async def stream(self, principal: Principal, request: Request, chunks: AsyncIterator[bytes]) -> tuple[bytes, int]:
        """Read the body piece by piece; the answer and its status, when everything accepted is on disk.

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

    def __init__(self, collector: Collector, route: str) -> None:
        self._admit, self._route = collector.admit_one, route

    def admit(self, principal: Principal, request: Request, body: bytes) -> tuple[bytes, bytes, int]:
        payload, event_id = self._admit(principal.organization_id, self._route, body)
        return payload, f'{{"accepted":1,"rejected":0,"id":"{event_id}"}}'.encode(), 202


class BatchRoute(Route):
    """Events of any types, under the names of their types."""

    summary = "Send events of any types"

    def __init__(self, collector: Collector) -> None:
        self._admit = collector.admit_batch

    def admit(self, principal: Principal, request: Request, body: bytes) -> tuple[bytes, bytes, int]:
        admission = self._admit(principal.organization_id, body)
        return admission.payload, batch_answer(admission), 202


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
