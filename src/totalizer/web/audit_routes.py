"""Who changed what, over HTTP: of the organisation that asks, and what its keys changed of the installation."""

from __future__ import annotations

from typing import Annotated, Any
from zoneinfo import ZoneInfo

from litestar import Request, Response, get
from litestar.params import Parameter
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from totalizer.errors import Refusal, Refused
from totalizer.query.moments import moment
from totalizer.query.snapshot import snapshot
from totalizer.store.audit import ENTRIES, ENTRIES_MAX, Wanted, problem
from totalizer.web.answer import json_answer
from totalizer.web.described import run as answers
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
from totalizer.web.numbers import whole_number

#: Entries by default, and the largest number that one can have.
ENTRIES_DEFAULT, NUMBER_MAX = 50, 2**63 - 1
_UTC = ZoneInfo("UTC")


def audit_routes(authenticator: Authenticator, pool: AsyncConnectionPool[Any]) -> list[Any]:
    """The route."""

    @get(
        "/api/audit", summary="Who changed what",
        **described(answers.AUDIT_TAG, "audit_read", answers.AUDIT, asked={"action": "key", "limit": "50"}),
    )  # fmt: skip
    async def audit(
        request: Request[Any, Any, Any],
        actor: Annotated[str | None, Parameter(description="Kind, id, name or role of who did it.")] = None,
        action: Annotated[str | None, Parameter(description="Such as `key.revoke`, or `key` for all of keys.")] = None,
        since: Annotated[str | None, Parameter(description="A date, UTC, or a time.")] = None,
        until: Annotated[str | None, Parameter(description="The same; a time is excluded, a date is not.")] = None,
        limit: Annotated[str | None, Parameter(description=f"1 to {ENTRIES_MAX}; {ENTRIES_DEFAULT}.")] = None,
        cursor: Annotated[str | None, Parameter(description="next_cursor of the page before.")] = None,
    ) -> Response[bytes]:
        """Newest first. An organisation sees what was changed of it, and what its own keys and tokens changed."""
        principal = await enter(authenticator, request)
        if action is not None and (why := problem(action)):
            raise Refused(Refusal.INVALID_QUERY, f"action: {why}")
        size = whole_number("limit", limit, ENTRIES_DEFAULT, ENTRIES_MAX)
        wanted = Wanted(
            size + 1, principal.organization_id, _text("actor", actor), action,
            moment("since", since, _UTC, is_end=False), moment("until", until, _UTC, is_end=True),
            None if cursor is None else whole_number("cursor", cursor, 1, NUMBER_MAX),
        )  # fmt: skip
        found = await own_entries(pool, wanted)
        page = found[:size]
        return json_answer({"data": page, "next_cursor": str(page[-1]["id"]) if len(found) > size else None})

    return [audit]


async def own_entries(pool: AsyncConnectionPool[Any], wanted: Wanted) -> list[dict[str, Any]]:
    """Entries by column, newest first.

    Args:
        pool: connections as the app role.
        wanted: which; it names the organisation that asks.

    Raises:
        Refused: the database is away.
    """
    assert wanted.organization_id is not None
    async with snapshot(pool, wanted.organization_id) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(ENTRIES.encode(), wanted._asdict())).fetchall()


def _text(name: str, text: str | None) -> str | None:
    if text is not None and "\0" in text:
        raise Refused(Refusal.INVALID_QUERY, f"{name}: has a NUL character, and nothing here has one")
    return text
