"""Alerts over HTTP: what stands, what was, and silencing it. They are of the installation, and name no organisation."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psycopg
from litestar import Request, Response, delete, get, post
from litestar.params import Parameter
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.alerts.shown import (
    END_SILENCE,
    HISTORY,
    HISTORY_MAX,
    SILENCE,
    SILENCES,
    STANDING,
    rows_of,
    standing_in,
)
from totalizer.errors import Refusal, Refused, StoreUnavailable
from totalizer.store.tenant import writing_as
from totalizer.web.answer import json_answer
from totalizer.web.audit import actor_of
from totalizer.web.described import run as answers
from totalizer.web.described.forms import Form
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
from totalizer.web.numbers import whole_number

#: Entries by default, and the longest silence, seconds.
HISTORY_DEFAULT, SILENCE_S_MAX = 50, 30 * 86_400


class Silence(msgspec.Struct, forbid_unknown_fields=True):
    """What shall be silenced.

    Attributes:
        rule: whose alerts; `*` for all.
        for_s: seconds, up to 30 days.
        reason: for others who wonder.
    """

    rule: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    for_s: Annotated[float, msgspec.Meta(gt=0, le=SILENCE_S_MAX)]
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


def alert_routes(authenticator: Authenticator, pool: AsyncConnectionPool[Any], folder: Path) -> list[Any]:
    """The routes.

    Args:
        authenticator: who is it?
        pool: connections as the app role.
        folder: of health files; what stands is read there while the database is away.
    """

    @get("/api/alerts", summary="The alerts that stand", **described(answers.ALERTS_TAG, "alerts_read", answers.ALERTS))
    async def alerts(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Oldest first, and the silences. `source` is `file` while the database is away: what this machine knows."""
        await enter(authenticator, request)
        try:
            found, silences = await _rows(pool, STANDING), await _rows(pool, SILENCES)
        except StoreUnavailable:
            standing = standing_in(folder, socket.gethostname())
            return json_answer({"alerts": standing, "silences": [], "source": "file"})
        return json_answer({"alerts": found, "silences": silences, "source": "database"})

    @get(
        "/api/alerts/history", summary="What became of alerts",
        **described(answers.ALERTS_TAG, "alerts_read", answers.HISTORY, asked={"rule": "loader_behind"}),
    )  # fmt: skip
    async def history(
        request: Request[Any, Any, Any],
        rule: Annotated[str | None, Parameter(description="Of one rule only.")] = None,
        limit: Annotated[str | None, Parameter(description=f"1 to {HISTORY_MAX}; {HISTORY_DEFAULT}.")] = None,
    ) -> Response[bytes]:
        """Newest first: fired, escalated, repeated, resolved."""
        await enter(authenticator, request)
        size = whole_number("limit", limit, HISTORY_DEFAULT, HISTORY_MAX)
        return json_answer({"history": await _rows(pool, HISTORY, {"rule": rule, "limit": size})})

    @post(
        "/api/alerts/silences", summary="Silence alerts", status_code=201,
        **described(answers.ALERTS_TAG, "alerts_silence", answers.SILENCED, body=answers.SILENCE),
    )  # fmt: skip
    async def silence(request: Request[Any, Any, Any]) -> Response[bytes]:
        """They stand and are recorded, but nobody is told. Those that stand still are told when it ends."""
        principal = await enter(authenticator, request)
        wanted = _wanted(await request.body())
        values = [wanted.rule, wanted.for_s, wanted.reason, f"organisation {principal.organization_id}"]
        async with writing_as(pool, principal.organization_id, actor_of(principal)) as connection:
            [made] = await rows_of(connection, SILENCE, values)
        answer = json_answer({**made, "rule": wanted.rule})
        answer.status_code = 201
        return answer

    @delete(
        "/api/alerts/silences/{number:int}", summary="End a silence", status_code=204,
        **described(answers.ALERTS_TAG, "alerts_silence", Form(None), asked=answers.SILENCE_ASKED),
    )  # fmt: skip
    async def end(request: Request[Any, Any, Any], number: int) -> None:
        """Alerts that stand are told at the next look."""
        principal = await enter(authenticator, request)
        async with writing_as(pool, principal.organization_id, actor_of(principal)) as connection:
            done = await connection.execute(END_SILENCE.encode(), [number, None])
        if done.rowcount == 0:
            raise Refused(Refusal.NOT_FOUND, f"there is no silence {number} now")

    return [alerts, history, silence, end]


def _wanted(body: bytes) -> Silence:
    try:
        return msgspec.json.decode(body, type=Silence)
    except msgspec.DecodeError as error:
        raise Refused(Refusal.BAD_REQUEST, f"a silence is an object with rule, for_s and reason: {error}") from None


async def _rows(pool: AsyncConnectionPool[Any], query: str, parameters: Any = None) -> list[dict[str, Any]]:
    try:
        async with pool.connection() as connection:
            return await rows_of(connection, query, parameters)
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {str(error).strip()}") from error
