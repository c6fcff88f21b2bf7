"""The routes of the operator's page: itself, its files, signing in and out, and what can be done on it."""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Any, NamedTuple

from litestar import MediaType, Request, Response, Router, get, post
from litestar.params import Parameter
from litestar.response import Redirect
from psycopg_pool import AsyncConnectionPool

from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import Refused, StoreUnavailable
from totalizer.health.gather import Gatherer
from totalizer.web.identity import Authenticator
from totalizer.web.operator.actions import Actions, action_routes, said
from totalizer.web.operator.chart import ChartLibrary
from totalizer.web.operator.door import FORM_COOKIE, PATH, SESSION_COOKIE, Door
from totalizer.web.operator.facts import Facts
from totalizer.web.operator.sections import Desk
from totalizer.web.operator.session import SessionSeal, new_nonce
from totalizer.web.operator.view import page, refusal_page, sign_in_page
from totalizer.web.quarantine import Quarantine

#: Nothing from anywhere else, nothing inline, nothing evaluated, shown in nobody's frame.
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_NO_STORE = {"cache-control": "no-store"}
_ASSETS = {"ops.js": "text/javascript", "ops.css": "text/css"}

Request_ = Request[Any, Any, Any]


class OperatorServices(NamedTuple):
    """What the page works with.

    Attributes:
        authenticator: knows keys and tokens.
        pool: connections as the app role.
        gatherer: makes the checks.
        quarantine: changes what is in quarantine.
        key: of sessions, from `session_key`.
    """

    authenticator: Authenticator
    pool: AsyncConnectionPool[Any]
    gatherer: Gatherer
    quarantine: Quarantine
    key: bytes


def operator_routes(services: OperatorServices) -> Router:
    """The routes, below `/ops`."""
    door = Door(services.authenticator, services.pool, SessionSeal(services.key, SYSTEM_CLOCK))
    facts = Facts(services.gatherer, services.pool)
    handlers = [
        *_page_routes(door, facts), *_door_routes(door),
        *action_routes(Actions(door, services.pool, services.quarantine)),
        _library_route(ChartLibrary(services.gatherer.folder)), *(_asset(name) for name in _ASSETS),
    ]  # fmt: skip
    return Router(
        PATH, route_handlers=handlers, include_in_schema=False, after_request=_secured,
        exception_handlers={Refused: _refused, StoreUnavailable: _away},
    )  # fmt: skip


def _page_routes(door: Door, facts: Facts) -> list[Any]:
    @get("/")
    async def show(
        request: Request_,
        job: str | None = None,
        word: Annotated[str | None, Parameter(query="said")] = None,
        of: str | None = None,
    ) -> Response[bytes]:
        visit = await door.visit(request)
        if visit is None:
            return _sign_in(door, request, None, 200)
        shown = await facts.gather(visit, job if job and job.isidentifier() else None)
        if shown.stored is None:
            door.note_away()
        session = visit.session
        desk = Desk(door.seal.form_token(session.nonce), session.actions)
        return _html(page(shown, desk, session.title, said(word, of)))

    @get("/lag.json")
    async def trend(request: Request_) -> Response[bytes]:
        if await door.visit(request) is None:
            return Response(b"", status_code=401, headers=_NO_STORE)
        return Response(await facts.trend(), media_type=MediaType.JSON, headers=_NO_STORE)

    return [show, trend]


def _door_routes(door: Door) -> list[Any]:
    @post("/sign-in")
    async def sign_in(request: Request_) -> Response[Any]:
        try:
            fields = await door.form(request, request.cookies.get(FORM_COOKIE, ""))
            session = await door.sign_in(fields.get("credential", ""))
        except Refused as refused:
            return _sign_in(door, request, _sentence(refused.detail), refused.status)
        answer: Response[Any] = Redirect(PATH, status_code=303)
        answer.cookies = [door.session_cookie(request, session), door.no_cookie(request, FORM_COOKIE)]
        return answer

    @post("/sign-out")
    async def sign_out(request: Request_) -> Response[Any]:
        visit = await door.visit(request)
        if visit is not None:
            await door.form(request, visit.session.nonce)
        answer: Response[Any] = Redirect(PATH, status_code=303)
        answer.cookies = [door.no_cookie(request, SESSION_COOKIE)]
        return answer

    return [sign_in, sign_out]


def _library_route(library: ChartLibrary) -> Any:
    @get("/vega.js")
    async def vega(request: Request_) -> Response[bytes]:
        found = await library.get()
        headers = {"etag": found.etag, "cache-control": "private, no-cache", "content-encoding": "gzip"}
        if request.headers.get("if-none-match") == found.etag:
            return Response(b"", status_code=304, headers=headers)
        return Response(found.packed, media_type=_ASSETS["ops.js"], headers=headers)

    return vega


def _asset(name: str) -> Any:
    content = (resources.files("totalizer.web") / "assets" / name).read_bytes()

    @get(f"/{name}", sync_to_thread=False, name=f"operator {name}")
    def serve() -> Response[bytes]:
        return Response(content, media_type=_ASSETS[name], headers={"cache-control": "no-cache"})

    return serve


def _sign_in(door: Door, request: Request_, refusal: str | None, status: int) -> Response[bytes]:
    nonce = new_nonce()
    answer = _html(sign_in_page(door.seal.form_token(nonce), refusal), status)
    answer.cookies = [door.form_cookie(request, nonce)]
    return answer


def _sentence(detail: str) -> str:
    return f"{detail[:1].upper()}{detail[1:]}."


def _html(content: bytes, status: int = 200) -> Response[bytes]:
    return Response(content, status_code=status, media_type=MediaType.HTML, headers=_NO_STORE)


def _refused(_: Request_, refused: Refused) -> Response[bytes]:
    return _secured(_html(refusal_page(refused.status, _sentence(refused.detail)), refused.status))


def _away(_: Request_, error: StoreUnavailable) -> Response[bytes]:
    return _secured(_html(refusal_page(503, f"The database cannot answer at present: {error}. Try again."), 503))


def _secured(answer: Response[Any]) -> Response[Any]:
    answer.headers.update(SECURITY_HEADERS)
    return answer
