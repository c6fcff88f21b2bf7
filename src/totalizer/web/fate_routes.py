"""Routes that tell senders what became of their events: receipts, books, quarantine."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import Parameter
from psycopg_pool import AsyncConnectionPool

from totalizer.collect.bodies import UNDECODABLE
from totalizer.errors import Refusal, Refused
from totalizer.query import fates
from totalizer.web.answer import json_answer
from totalizer.web.described import told
from totalizer.web.described.operation import described
from totalizer.web.described.taken import RECEIPT
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
from totalizer.web.numbers import whole_number
from totalizer.web.quarantine import Quarantine, missing
from totalizer.web.receipts import Receipts

#: Hours of the books in one answer, and by default.
HOURS_MAX, HOURS_DEFAULT = 24 * 366, 24
#: Events of one page of the quarantine, and by default.
PAGE_MAX, PAGE_DEFAULT = 500, 50
#: The event that examples are about.
_FOURTH = {"letter_id": 4}


class FateServices(msgspec.Struct, frozen=True):
    """What these routes work with."""

    authenticator: Authenticator
    pool: AsyncConnectionPool[Any]
    receipts: Receipts
    quarantine: Quarantine


def fate_routes(services: FateServices) -> list[Any]:
    """The handlers."""
    return [*_book_routes(services), *_reading_routes(services), *_changing_routes(services)]


def _book_routes(services: FateServices) -> list[Any]:
    @get(
        "/api/metrics/receipts/{receipt:str}", summary="What became of a request's events?",
        **described(told.TAG, "receipts", told.OUTCOME, asked={"receipt": RECEIPT}),
    )  # fmt: skip
    async def receipt(request: Request[Any, Any, Any], receipt: str) -> Response[bytes]:
        """The fates of the events that an answer gave this receipt for; those that were not stored are named."""
        principal = await enter(services.authenticator, request)
        said = services.receipts.read(receipt, principal.organization_id)
        outcome = await fates.outcome(
            services.pool, principal.organization_id, said.journal_id, said.sequence, said.accepted
        )
        return json_answer({"receipt": receipt, **msgspec.structs.asdict(outcome)})

    @get(
        "/api/metrics/stats", summary="What was sent, and what became of it",
        **described(told.TAG, "receipts", told.STATS, asked={"hours": "24"}),
    )  # fmt: skip
    async def stats(
        request: Request[Any, Any, Any],
        hours: Annotated[str | None, Parameter(description=f"How many, 1 to {HOURS_MAX}; {HOURS_DEFAULT}.")] = None,
    ) -> Response[bytes]:
        """Sums over all and by the hour of receipt: sent = accepted + rejected, and what is accepted has one fate."""
        principal = await enter(services.authenticator, request)
        back = whole_number("hours", hours, HOURS_DEFAULT, HOURS_MAX)
        return json_answer(await fates.books(services.pool, principal.organization_id, back))

    return [receipt, stats]


def _reading_routes(services: FateServices) -> list[Any]:
    @get(
        "/api/metrics/quarantine", summary="Events that the database refused",
        **described(told.TAG, "quarantine_read", told.QUARANTINE, asked={"limit": "50"}),
    )  # fmt: skip
    async def quarantined(
        request: Request[Any, Any, Any],
        event_type: Annotated[str | None, Parameter(description="Only of this type.")] = None,
        limit: Annotated[str | None, Parameter(description=f"1 to {PAGE_MAX}; {PAGE_DEFAULT}.")] = None,
        cursor: Annotated[str | None, Parameter(description="next_cursor of the page before.")] = None,
    ) -> Response[bytes]:
        """Newest first, without their contents."""
        principal = await enter(services.authenticator, request)
        size = whole_number("limit", limit, PAGE_DEFAULT, PAGE_MAX)
        before = None if cursor is None else whole_number("cursor", cursor, 1, 2**63 - 1)
        found = await fates.quarantined(
            services.pool, principal.organization_id, event_type=event_type, before=before, limit=size + 1
        )
        page = found[:size]
        return json_answer({"data": page, "next_cursor": str(page[-1]["id"]) if len(found) > size else None})

    @get(
        "/api/metrics/quarantine/{letter_id:int}", summary="One event that the database refused",
        **described(told.TAG, "quarantine_read", told.LETTER, asked=_FOURTH),
    )  # fmt: skip
    async def event(request: Request[Any, Any, Any], letter_id: int) -> Response[bytes]:
        """With its contents, in the form in which they would be sent."""
        principal = await enter(services.authenticator, request)
        found = await fates.quarantined_event(services.pool, principal.organization_id, letter_id)
        if found is None:
            raise missing(letter_id)
        columns, line = found.pop("columns"), found.pop("line")
        return json_answer({**found, "event": services.quarantine.event_of(found["event_type"], columns, bytes(line))})

    return [quarantined, event]


def _changing_routes(services: FateServices) -> list[Any]:
    @post(
        "/api/metrics/quarantine/{letter_id:int}/replay", status_code=200, summary="Try an event again",
        **described(
            told.TAG, "quarantine_replay", told.REPLAYED, asked=_FOURTH, body=told.CORRECTIONS, body_needed=False
        ),
    )  # fmt: skip
    async def replay(request: Request[Any, Any, Any], letter_id: int) -> Response[bytes]:
        """As it is, or with the fields of the body in place of its own; it keeps its id, so it is counted once."""
        principal = await enter(services.authenticator, request)
        corrections = _corrections(await request.body())
        retried = await services.quarantine.replay(principal, letter_id, corrections)
        return json_answer({"id": letter_id, "status": retried.status, "message": retried.reason or None})

    @delete(
        "/api/metrics/quarantine/{letter_id:int}", status_code=200, summary="Drop an event for good",
        **described(told.TAG, "quarantine_replay", told.DROPPED, asked=_FOURTH),
    )  # fmt: skip
    async def drop(request: Request[Any, Any, Any], letter_id: int) -> Response[bytes]:
        """The answer has the event, so that it is not lost unseen; from now on it counts as dropped."""
        principal = await enter(services.authenticator, request)
        event = await services.quarantine.drop(principal, letter_id)
        return json_answer({"id": letter_id, "status": "dropped", "event": event})

    return [replay, drop]


def _corrections(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except UNDECODABLE as error:
        raise Refused(Refusal.BAD_JSON, f"send a JSON object of the fields to replace, or no body: {error}") from None
