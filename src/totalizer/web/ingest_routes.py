"""The ingest routes as the API's schema knows them, made from the table of routes.

Behind our own server they are answered before they get here; behind another they do the same work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from litestar import Request, Response, post
from litestar.openapi.spec import Schema
from litestar.params import HeaderParameter, QueryParameter

from totalizer.web.described import taken
from totalizer.web.described.forms import Form, one_of_these
from totalizer.web.described.operation import described
from totalizer.web.gate import spend
from totalizer.web.ingest import Ingest, headers_of
from totalizer.web.intake import ANY, choose
from totalizer.web.route_table import ByMediaType

_Atomic = Annotated[str | None, QueryParameter(description="true: several events are taken whole or not at all.")]
_Once = Annotated[
    str | None, HeaderParameter(name="Idempotency-Key", description="Stands for the request, which may be sent again.")
]


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
        "*/*" if name == ANY else name: route.body
        for name, route in routes.items()
        if name is not None and ";" not in name
    }
    answers = _answers(routes)
    # A route whose usual answer is empty has another status for one that is not.
    usual_status = next((status for status in usual.answers if status != 204), 204)

    @post(
        path, status_code=usual_status, summary=usual.summary, name=f"ingest {path}",
        **described(taken.TAG, "ingest", answers, body=bodies),
    )  # fmt: skip
    async def take(request: Request[Any, Any, Any], atomic: _Atomic = None, once: _Once = None) -> Response[bytes]:
        """Accepted once its events are on disk; the answer names every event that is not."""
        head = head_of(request)
        principal = await ingest.enter(head)
        route = choose(routes, head.headers.get("content-type"))
        await spend(request, principal.meters.batches if route.many else principal.meters.requests)
        answer = await ingest.give(principal, route, path, head, await request.body())
        return Response(answer.body, status_code=answer.status, headers=headers_of(route, answer))

    return take


def _answers(routes: ByMediaType) -> dict[int, Form]:
    """What a path answers, by status, whatever comes."""
    found: dict[int, list[Form]] = {}
    for route in dict.fromkeys(routes.values()):
        for status, form in route.answers.items():
            if form not in found.setdefault(status, []):
                found[status].append(form)
    return {status: forms[0]._replace(schema=_any_of(forms)) for status, forms in found.items()}


def _any_of(forms: list[Form]) -> Schema | None:
    schemas = [form.schema for form in forms if form.schema is not None]
    return one_of_these(*schemas) if schemas else None
