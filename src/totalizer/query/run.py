"""Answering queries: each in one snapshot, as the organisation it is for, from what is kept if it still holds."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from psycopg import AsyncConnection

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.query.cache import AnswerCache
from totalizer.query.combine import Page, Work, compile_work
from totalizer.query.completeness import LocalJournals
from totalizer.query.cost import QueryLimits, Turns
from totalizer.query.cursor import end_of, next_cursor, page_of
from totalizer.query.explain import explained
from totalizer.query.parse import parse_body, parse_parameters
from totalizer.query.question import Query
from totalizer.query.result import about, is_exact, shape_rows
from totalizer.query.snapshot import Pool, configure_reader, snapshot
from totalizer.query.state import State, read_state
from totalizer.query.work import Planner

__all__ = ["QueryService", "Reply", "configure_reader", "snapshot"]

#: A range without an end ends with this minute, so that the same question is the same for that long.
NOW_UNIT = timedelta(minutes=1)

_encode = msgspec.json.Encoder(decimal_format="number").encode
Parse = Callable[[datetime, str], Query]
Connection = AsyncConnection[Any]


class Reply(NamedTuple):
    """An answer as it is sent.

    Attributes:
        body: JSON; None if the client has it already.
        etag: what it is known by; None if it cannot be asked for by that.
    """

    body: bytes | None
    etag: str | None


class Made(NamedTuple):
    """An answer, or a part of a larger one, as it is kept: all but whether it is complete.

    Attributes:
        content: its members.
        kept: True if it holds as long as the data do.
    """

    content: dict[str, Any]
    kept: bool


class QueryService:
    """Answers queries.

    Args:
        pool: connections as the app role.
        catalog: what can be asked about.
        journals: to tell whether an answer is complete.
        limits: what a query may cost.
        cache: of answers; None for one in this process.
    """

    def __init__(
        self,
        pool: Pool,
        catalog: Catalog,
        journals: LocalJournals,
        limits: QueryLimits | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self._pool, self.catalog, self._journals = pool, catalog, journals
        self.limits = limits or QueryLimits()
        self.cache = cache or AnswerCache(SYSTEM_CLOCK, ttl_s=0, bytes_max=0)
        self._turns = Turns(self.limits)
        self._rollups = hashlib.blake2b(msgspec.json.encode(catalog), digest_size=8).hexdigest()

    def by_parameters(self, parameters: Mapping[str, Sequence[str]]) -> Parse:
        """What reads a query from request parameters, given the snapshot's time and the organisation's zone."""
        cursor = "".join(parameters.get("cursor", ())[:1]) or None
        return lambda now, zone: parse_parameters(self.catalog, parameters, end_of(cursor, now), zone)

    def by_body(self, content: Mapping[str, Any]) -> Parse:
        """What reads a query from a request's body."""
        cursor = content.get("cursor")
        return lambda now, zone: parse_body(self.catalog, content, end_of(cursor, now), zone)

    async def reply(self, organization_id: str, parse: Parse, etags: str | None = None) -> Reply:
        """The answer to a query.

        Args:
            organization_id: whose.
            parse: reads the query.
            etags: answers the client has, as its If-None-Match says.

        Raises:
            Refused: the query cannot be answered; the message says why.
        """

        async def answer(connection: Connection, state: State, query: Any) -> Made:
            return await self.answer(connection, organization_id, state, query)

        def resolve(state: State) -> tuple[Query, str, bool]:
            query = parse(minute_after(state.now), state.own_zone)
            return query, state.version(query.event_types()), not query.explain

        return await self.kept(organization_id, resolve, answer, etags)

    async def kept(
        self,
        organization_id: str,
        resolve: Callable[[State], tuple[Any, str, bool]],
        answer: Callable[[Connection, State, Any], Awaitable[Made]],
        etags: str | None,
    ) -> Reply:
        """An answer from what is kept, else made now.

        Args:
            organization_id: whose.
            resolve: the question in full, the version of the data it is about, and whether its answer may be kept.
            answer: finds a `Made`.
            etags: answers the client has.
        """
        # Before the snapshot: what is durable by now must be in it for the answer to be complete.
        ends = self._journals.durable_ends()
        async with (
            self._turns.turn(organization_id),
            snapshot(self._pool, organization_id, timeout_ms=self.limits.timeout_ms) as connection,
        ):
            state = await read_state(connection, organization_id)
            question, version, may_keep = resolve(state)
            complete = self._journals.all_loaded(ends, state.loaded)
            key = self._key(organization_id, question, version)
            etag = f'W/"{key}{"c" if complete else "i"}"'
            if may_keep and etags is not None and _matches(etags, etag):
                self.cache.hits.note("unchanged")
                return Reply(None, etag)
            made: list[bytes] = []

            async def make() -> bytes | None:
                found = await answer(connection, state, question)
                made.append(_encode(found.content))
                return made[0] if found.kept and may_keep else None

            kept = await self.cache.get(key, organization_id, make) if may_keep else await make()
            return Reply(_with(complete, made[0] if kept is None else kept), None if kept is None else etag)

    async def answer(self, connection: Connection, organization_id: str, state: State, query: Query) -> Made:
        """The answer to a query within a snapshot."""
        version = state.version(query.event_types())
        page = page_of(query, organization_id, version)
        work = await self.planner(connection, organization_id, state).plan(query)
        statement = compile_work(work, organization_id, page)
        rows = await (await connection.execute(statement.sql.encode(), statement.parameters)).fetchall()
        page_rows = rows[: query.limit]
        content: dict[str, Any] = {
            "data": list(shape_rows(work, page_rows)),
            "next_cursor": self._next(work, organization_id, rows, page, version),
            **about(work, page_rows, state.now),
        }
        if query.explain:
            content["explanation"] = await explained(connection, self.catalog, work, organization_id, statement)
        return Made(content, is_exact(work))

    def planner(self, connection: Connection, organization_id: str, state: State) -> Planner:
        """What plans the queries of a snapshot."""
        return Planner(connection, self.catalog, organization_id, state, self.limits)

    def _next(
        self, work: Work, organization_id: str, rows: Sequence[Sequence[Any]], page: Page, version: str
    ) -> str | None:
        query = work.query
        if len(rows) <= query.limit:
            return None
        row = rows[query.limit - 1]
        key = [row[0], *row[len(row) - 2 * len(query.group_by) :]]
        return next_cursor(query, organization_id, key, page.offset + query.limit, version)

    def _key(self, organization_id: str, question: Any, version: str) -> str:
        # The declarations are a part of it: a process with another catalog may mean something else by a name.
        content = (organization_id, self._rollups, version, type(question).__name__, question)
        return hashlib.blake2b(msgspec.json.encode(content, order="deterministic"), digest_size=20).hexdigest()


def minute_after(now: datetime) -> datetime:
    """The end of the minute that holds a moment."""
    return now.replace(second=0, microsecond=0) + NOW_UNIT


def _matches(etags: str, etag: str) -> bool:
    return etags.strip() == "*" or etag in (each.strip() for each in etags.split(","))


def _with(complete: bool, body: bytes) -> bytes:
    """An answer with whether it is complete, which is not kept: events may have been acknowledged since."""
    return b'{"complete":' + (b"true," if complete else b"false,") + body[1:]
