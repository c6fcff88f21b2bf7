"""An organisation's own events in quarantine: tried again as they are or mended, or dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg import Connection

from totalizer.collect import Collector
from totalizer.collect.unrender import mended, sent_form
from totalizer.errors import Refusal, Refused, StoreUnavailable
from totalizer.load.copy_text import values_of
from totalizer.load.drop import drop_locked
from totalizer.load.retry import DeadLetterLoader, Mended, Retried
from totalizer.store import dead_letters
from totalizer.store.connect import connect, is_gone
from totalizer.store.dead_letters import DeadLetter
from totalizer.web.audit import Who, actor_of

T = TypeVar("T")


class Quarantine:
    """Changes what is in quarantine, as the writer, the one role that stores events; over a connection of its own.

    Every call names the organisation, and touches nothing of another's.

    Args:
        dsn: of the writer role.
        collector: checks what is mended, as it checks what is sent.
    """

    def __init__(self, dsn: str, collector: Collector) -> None:
        self._dsn, self._collector = dsn, collector

    def event_of(self, event_type: str, columns: list[str], line: bytes) -> dict[str, Any]:
        """What was sent, as far as it can be told; empty if it cannot."""
        tools, values = self._collector.tools.get(event_type), values_of(columns, line)
        if values is None:
            return {}
        return dict(values) if tools is None else sent_form(tools.event_type, values)

    async def replay(self, who: Who, letter_id: int, corrections: dict[str, Any]) -> Retried:
        """Try an event again.

        Args:
            who: asks for it; it must be of their organisation.
            letter_id: its number.
            corrections: fields to replace, by their keys in sent events; null takes one away.

        Raises:
            Refused: 404, there is none; 422, what it is mended to is not accepted; 503, the database is away.
        """
        owner = who.organization_id
        return await self._working(who, lambda connection: self._replay(connection, owner, letter_id, corrections))

    async def drop(self, who: Who, letter_id: int) -> dict[str, Any]:
        """Remove an event for good; returns what was sent.

        Raises:
            Refused: 404, there is none; 503, the database is away.
        """
        return await self._working(who, lambda connection: self._drop(connection, who.organization_id, letter_id))

    def _replay(
        self, connection: Connection[Any], organization_id: str, letter_id: int, corrections: dict[str, Any]
    ) -> Retried:
        fixed = None
        if corrections:
            letter = _own(dead_letters.read_letter(connection, letter_id), organization_id, letter_id)
            fixed = Mended(self._mended(letter, corrections), tuple(sorted(corrections)))
        retried = DeadLetterLoader(connection).retry(letter_id, organization_id, fixed)
        if not any(retried.fate):
            raise missing(letter_id)
        return retried

    def _mended(self, letter: DeadLetter, corrections: dict[str, Any]) -> bytes:
        tools = self._collector.tools.get(letter.event_type)
        if tools is None:
            known = ", ".join(self._collector.tools)
            raise Refused(Refusal.UNKNOWN_EVENT_TYPE, f"{letter.event_type}: unknown event type; there are {known}")
        event = self.event_of(letter.event_type, letter.columns, letter.line)
        body = msgspec.json.encode(mended(tools.event_type, event, corrections))
        return self._collector.admit_one(letter.organization_id, tools.event_type.route, body).payload

    def _drop(self, connection: Connection[Any], organization_id: str, letter_id: int) -> dict[str, Any]:
        with connection.transaction():
            found = dead_letters.lock_letters(connection, [letter_id])
            letter = _own(found[0] if found else None, organization_id, letter_id)
            drop_locked(connection, [letter])
        return self.event_of(letter.event_type, letter.columns, letter.line)

    async def _working(self, who: Who, work: Callable[[Connection[Any]], T]) -> T:
        """Do something over a connection, in a thread: storing is the loader's code, which waits."""

        def run() -> T:
            with connect(self._dsn, autocommit=True, actor=actor_of(who)) as connection:
                return work(connection)

        try:
            return await asyncio.to_thread(run)
        except (psycopg.Error, StoreUnavailable) as error:
            if isinstance(error, psycopg.Error) and not is_gone(error):
                raise
            raise Refused(
                Refusal.DATABASE_UNAVAILABLE, "the database cannot answer at present; try again", retry_after_s=5
            ) from error


def missing(letter_id: int) -> Refused:
    """There is no such event in the organisation's quarantine."""
    return Refused(Refusal.NOT_FOUND, f"no event {letter_id} in quarantine; GET /api/metrics/quarantine shows them")


def _own(letter: DeadLetter | None, organization_id: str, letter_id: int) -> DeadLetter:
    if letter is None or letter.organization_id != organization_id:
        raise missing(letter_id)
    return letter
