"""The ingest routes as the API's schema knows them, made from the table of routes.

Behind our own server they are answered before they get here; behind another they do the same work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from litestar import Request, Response, post
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody

from totalizer.web.gate import spend
from totalizer.web.ingest import Ingest, headers_of
from totalizer.web.intake import ANY, choose
from totalizer.web.route_table import ByMediaType


class Head(NamedTuple):
    """A request without its body."""

    headers: Mapping[str, str]
    query_string: str


def head_of(request: Request[Any, Any, Any]) -> Head:
    """A request of the framework's without its body."""
    return Head(request.headers, request.scope["query_string"].decode("latin-1"))


def ingest_routes(ingest: Ingest) -> list[Any]:
    """A handler for each path of the table."""
    return [_route(ingest, path, routes) for path, routes in ingest.routes.items()]


def _route(ingest: Ingest, path: str, routes: ByMediaType) -> Any:
    usual = next(iter(routes.values()))
    bodies = {
        "*/*" if name == ANY else name: OpenAPIMediaType(schema=route.schema)
        for name, route in routes.items()
        if name is not None and ";" not in name
    }

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content=dict(bodies), required=True)

    usual_status, *others = sorted(usual.statuses, key=lambda status: status == 204)

    @post(
        path, status_code=usual_status, summary=usual.summary, operation_class=WithBody, name=f"ingest {path}",
        responses={status: ResponseSpec(None, description="Taken; there is nothing to add.") for status in others},
    )  # fmt: skip
    async def take(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Accepted once its events are on disk; the answer names every event that is not."""
        head = head_of(request)
        principal = await ingest.enter(head)
        route = choose(routes, head.headers.get("content-type"))
        await spend(request, principal.meters.batches if route.many else principal.meters.requests)
        answer = await ingest.give(principal, route, path, head, await request.body())
        return Response(answer.body, status_code=answer.status, headers=headers_of(route, answer))

    return take
