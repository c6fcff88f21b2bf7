"""The way into every route behind the hot path: who is it, may they, and how often."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.types import Message, Scope

from totalizer.web.described.operation import ACTION
from totalizer.web.identity import Authenticator
from totalizer.web.meter import Meter
from totalizer.web.principal import Principal

#: Where a request's meter is kept for its answer.
_METER = "totalizer_meter"


async def enter(authenticator: Authenticator, request: Request[Any, Any, Any]) -> Principal:
    """Who asks, counted as one query of theirs. Every route that is not ingest begins with it.

    Args:
        authenticator: knows them.
        request: with their credentials; its route says what they must be allowed.

    Raises:
        Refused: 401, 403 or 503 as `Authenticator.authenticate` has it; 429, the limit of queries is reached.
    """
    action = request.route_handler.opt[ACTION]
    principal = await authenticator.authenticate(request.headers.get("authorization"), action)
    await spend(request, principal.meters.reads)
    return principal


async def spend(request: Request[Any, Any, Any], meter: Meter) -> None:
    """Count a request against a limit, of which its answer will tell.

    Args:
        request: which.
        meter: of the limit, of who sent it.

    Raises:
        Refused: 429, the limit is reached.
    """
    request.scope["state"][_METER] = meter
    await meter.spend(1)


async def tell_limits(message: Message, scope: Scope) -> None:
    """Add the header fields of the limit to the answer of a request that was counted."""
    if message["type"] != "http.response.start":
        return
    meter: Meter | None = scope.get("state", {}).get(_METER)
    headers = message["headers"]
    if meter is None or any(name == b"ratelimit" for name, _ in headers):
        return
    message["headers"] = [*headers, *((name.encode(), value.encode()) for name, value in meter.headers)]
