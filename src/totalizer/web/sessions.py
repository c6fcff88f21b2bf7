"""User sessions: started, updated, ended. Each is an event of its own, so they are counted as exactly as all others.

An update names its session alone. Who the session belongs to is remembered by the process that took its start; any
other asks the database, and waits a moment for a start that is on its way there.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import psycopg
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.clock import Clock, utc_datetime
from totalizer.collect import Collector
from totalizer.collect.members import members, text
from totalizer.errors import Refusal, Refused
from totalizer.event import event_uuid, is_canonical_uuid, new_event_ids, request_event_uuid
from totalizer.store.tenant import reading_as
from totalizer.web.described import taken
from totalizer.web.described.forms import Form
from totalizer.web.intake import Admitted, Request, Route
from totalizer.web.principal import Principal
from totalizer.web.schemas import UUID_EXAMPLE, event_schema

EVENT_TYPE = "user_sessions"
#: What the ids of session events are unique within.
SOURCE = "sessions"
#: Sessions remembered by a process; beyond it the oldest are asked for again.
REMEMBERED_MAX = 100_000
#: How far back the start of a session is looked for.
LENGTH_MAX = timedelta(days=31)
#: Looks for a start that may be on its way from the journal into the database, and the pause between two.
LOOKS_MAX, LOOK_PAUSE_S = 15, 0.2
_CONNECT_TIMEOUT_S = 2.0
_FIND = """
SELECT user_id::text, team_id::text FROM events.user_sessions
WHERE organization_id = %s AND occurred_at >= %s AND id = %s AND session_id = %s LIMIT 1
"""


class Started(NamedTuple):
    """Who a session belongs to."""

    user_id: str
    team_id: str | None


class Sessions:
    """The sessions that are known to have been started.

    Args:
        collector: admits their events.
        pool: connections as the app role.
        clock: for how far back to look.
    """

    def __init__(self, collector: Collector, pool: AsyncConnectionPool[Any], clock: Clock) -> None:
        self.collector, self._pool, self._clock = collector, pool, clock
        self.route = collector.tools[EVENT_TYPE].event_type.route
        self._started: dict[tuple[str, str], Started] = {}

    def remember(self, organization_id: str, session_id: str, started: Started) -> None:
        """A session was started here."""
        while len(self._started) >= REMEMBERED_MAX:
            del self._started[next(iter(self._started))]
        self._started[organization_id, session_id] = started

    async def find(self, organization_id: str, session_id: str) -> Started:
        """Who a session of this organisation belongs to.

        Raises:
            Refused: 404, none of that id was started; 503, the database is away and cannot be asked.
        """
        known = self._started.get((organization_id, session_id))
        try:
            for look in range(LOOKS_MAX):
                if known is not None:
                    return known
                if look:
                    await asyncio.sleep(LOOK_PAUSE_S)
                known = await self._ask(organization_id, session_id)
        except (psycopg.OperationalError, PoolTimeout):
            detail = f"who session {session_id} belongs to cannot be looked up at present; send user_id, or try again"
            raise Refused(Refusal.DATABASE_UNAVAILABLE, detail, retry_after_s=5) from None
        if known is not None:
            return known
        detail = f"no session {session_id} was started within {LENGTH_MAX.days} days; start it, or send its user_id"
        raise Refused(Refusal.NOT_FOUND, detail)

    async def _ask(self, organization_id: str, session_id: str) -> Started | None:
        since = utc_datetime(self._clock.now_ns()) - LENGTH_MAX
        async with (
            reading_as(self._pool, organization_id, timeout_s=_CONNECT_TIMEOUT_S) as connection,
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            start = event_uuid(SOURCE, start_id(session_id))
            await cursor.execute(_FIND, [organization_id, since, start, session_id])
            row = await cursor.fetchone()
        if row is None:
            return None
        started = Started(*row)
        self.remember(organization_id, session_id, started)
        return started


def start_id(session_id: str) -> str:
    """The id of the event that starts a session: a second start of the same session is the same event."""
    return f"{session_id}:start"


class SessionStart(Route):
    """Starts a session; the answer has its id.

    Args:
        sessions: remember it.
    """

    summary = "Start a session"
    answers = MappingProxyType({201: taken.SESSION})
    many = False
    receipts = True

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.body = Form(session_schema(sessions.collector, {"user_id"}), {"user_id": UUID_EXAMPLE})

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        sent = _members(body)
        session_id = (text(sent.get("session_id")) or self._fresh_id(identity)).lower()
        if not is_canonical_uuid(session_id):
            raise Refused(Refusal.INVALID_EVENT, f"session_id: must be a UUID, not {session_id[:80]!r}")
        event = sent | {"session_id": session_id, "action": "start", "id": start_id(session_id), "source": SOURCE}
        payload, _ = self._sessions.collector.admit_one(
            principal.organization_id, self._sessions.route, msgspec.json.encode(event)
        )
        started = Started(str(text(sent.get("user_id"))), text(sent.get("team_id")))
        self._sessions.remember(principal.organization_id, session_id, started)
        return payload, f'{{"accepted":1,"rejected":0,"items":[],"session_id":"{session_id}"}}'.encode(), 201, 1

    def _fresh_id(self, identity: bytes | None) -> str:
        if identity is None:
            return next(new_event_ids(self._sessions.collector.now_ns()))
        return request_event_uuid(identity, EVENT_TYPE, 0)


class SessionUpdate(Route):
    """Updates or ends one session. The same update sent again is the same event.

    Args:
        sessions: the sessions.
        session_id: which one.
        started: who it belongs to.
    """

    answers = MappingProxyType({202: taken.ONE})
    many = False
    receipts = True

    def __init__(self, sessions: Sessions, session_id: str, started: Started) -> None:
        self._sessions, self._session_id, self._started = sessions, session_id, started

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        sent: dict[str, object] = dict(_members(body))
        digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        event: dict[str, object] = {"action": "update", "id": f"{self._session_id}:{digest}"}
        if "ended_at" in sent:
            event |= {"action": "end", "occurred_at": sent.pop("ended_at")}
        event |= sent
        event |= {"session_id": self._session_id, "source": SOURCE, "user_id": self._started.user_id}
        event.setdefault("team_id", self._started.team_id)
        payload, event_id = self._sessions.collector.admit_one(
            principal.organization_id, self._sessions.route, msgspec.json.encode(event)
        )
        return payload, f'{{"accepted":1,"rejected":0,"items":[],"id":"{event_id}"}}'.encode(), 202, 1


def user_of(body: bytes) -> Started | None:
    """Who an update says that its session belongs to; None if it does not say.

    Raises:
        Refused: the body is no JSON object.
    """
    sent = _members(body)
    user_id = text(sent.get("user_id"))
    return None if user_id is None else Started(user_id, text(sent.get("team_id")))


def canonical_session_id(session_id: str) -> str:
    """A session's id from the path of a request.

    Raises:
        Refused: it is no UUID.
    """
    try:
        return str(uuid.UUID(session_id))
    except ValueError:
        raise Refused(Refusal.NOT_FOUND, f"session {session_id[:80]!r}: the id of a session is a UUID") from None


def session_schema(collector: Collector, required: set[str]) -> Schema:
    """The JSON schema of a start or an update."""
    whole = event_schema(collector.tools[EVENT_TYPE].event_type)
    properties = {name: schema for name, schema in (whole.properties or {}).items() if name not in ("action", "source")}
    if "user_id" not in required:
        del properties["session_id"]
        properties["ended_at"] = Schema(
            type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME, description="Ends the session then."
        )
    return Schema(type=OpenAPIType.OBJECT, title="Session", properties=properties, required=sorted(required))


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return members(body)
    except ValueError as error:
        raise Refused(Refusal.BAD_JSON, f"the body is not valid JSON: {error}") from None
