"""The route that updates and ends sessions."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, put

from totalizer.web.described import taken
from totalizer.web.described.forms import Form
from totalizer.web.described.operation import described
from totalizer.web.gate import spend
from totalizer.web.ingest import Ingest, headers_of
from totalizer.web.ingest_routes import head_of
from totalizer.web.intake import JSON, choose
from totalizer.web.route_table import PREFIX
from totalizer.web.schemas import UUID_EXAMPLE
from totalizer.web.sessions import Sessions, SessionUpdate, canonical_session_id, session_schema, user_of


def session_updates(ingest: Ingest, sessions: Sessions) -> Any:
    """`PUT /api/metrics/sessions/{session_id}`."""
    body = Form(session_schema(sessions.collector, set()), {"user_id": UUID_EXAMPLE, "commands_executed": 3})

    @put(
        f"{PREFIX}{sessions.route}/{{session_id:str}}", status_code=202, summary="Update or end a session",
        **described(taken.TAG, "ingest", taken.ONE, asked={"session_id": UUID_EXAMPLE}, body=body),
    )  # fmt: skip
    async def update(session_id: str, request: Request[Any, Any, Any]) -> Response[bytes]:
        """Accepted once it is on disk. With `ended_at` it ends the session."""
        head = head_of(request)
        principal = await ingest.enter(head)
        await spend(request, principal.meters.requests)
        choose({JSON: True}, head.headers.get("content-type"))
        canonical = canonical_session_id(session_id)
        body = await request.body()
        # Whose it is may be in the body; else somebody has to ask, and the route itself cannot wait.
        started = user_of(ingest.unpacked(head, body)) or await sessions.find(principal.organization_id, canonical)
        route = SessionUpdate(sessions, canonical, started)
        answer = await ingest.give(principal, route, request.url.path, head, body)
        return Response(answer.body, status_code=answer.status, headers=headers_of(route, answer))

    return update
