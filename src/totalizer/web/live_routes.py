"""Live windows over HTTP: asked for once, or told of changes as Server-Sent Events.

Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.params import Parameter
from litestar.response import Stream

from totalizer.errors import Refused
from totalizer.live import Ask, Frame, LiveWindows
from totalizer.web.answer import json_answer
from totalizer.web.described import asked
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
from totalizer.web.live_channel import Channel, Seats
from totalizer.web.live_socket import CHECK_PAUSE_S, HEARTBEAT_S

EVENTS_PATH = "/api/metrics/live/events"
#: Told to browsers: how long to wait before they come back, milliseconds.
RETRY_MS = 1000
#: Bytes of one connection. The server takes whatever it is given, and does not tell how much of it its reader has
#: taken: so much waits at most for one who reads nothing.
SENT_BYTES_MAX = 16 << 20

_EventType = Annotated[str | None, Parameter(description="Kind of event; command_executions by default.")]
_GroupBy = Annotated[str | None, Parameter(description="Dimensions, by commas: a row for each of their values.")]
_Measures = Annotated[str | None, Parameter(description="Numbers to answer; all by default.")]


def live_routes(authenticator: Authenticator, live: LiveWindows, seats: Seats) -> list[Any]:
    """The routes.

    Args:
        authenticator: who is it?
        live: what is asked for.
        seats: how many are told of changes.
    """

    @get(
        "/api/metrics/real-time/{window:str}", summary="Totals of the latest minutes, hours or day",
        **described(asked.LIVE_TAG, "query", asked.LIVE, asked={"window": "5m", "group_by": "command_name"}),
    )  # fmt: skip
    async def real_time(
        request: Request[Any, Any, Any],
        window: str,
        event_type: _EventType = None,
        group_by: _GroupBy = None,
        measures: _Measures = None,
    ) -> Response[bytes]:
        """Includes what is not in the database yet. Any other parameter filters by the dimension of its name."""
        principal = await enter(authenticator, request)
        ask = live.asks.parse(window, _parameters(request))
        return json_answer(await live.answer(principal.organization_id, ask))

    @get(
        EVENTS_PATH, summary="Be told of changes, as Server-Sent Events", media_type="text/event-stream",
        **described(asked.LIVE_TAG, "query", asked.LIVE_EVENTS, asked={"window": "5m"}),
    )  # fmt: skip
    async def events(
        request: Request[Any, Any, Any],
        window: Annotated[str, Parameter(description="Length of the live window, such as 5m.")],
        event_type: _EventType = None,
        group_by: _GroupBy = None,
        measures: _Measures = None,
    ) -> Stream:
        """A snapshot, then what changes. The header Last-Event-ID goes on where an earlier connection ended."""
        principal = await enter(authenticator, request)
        parameters = _parameters(request)
        parameters.pop("window", None)
        ask = live.asks.parse(window, parameters)
        told = _Told(live, principal.organization_id, ask, seats)
        await told.begin(request.headers.get("last-event-id"))
        authorization = request.headers.get("authorization")
        return Stream(
            told.run(authenticator, authorization),
            media_type="text/event-stream",
            # Proxies that gather answers would keep the events from their reader.
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    return [real_time, events]


class _Told:
    """One reader of events."""

    def __init__(self, live: LiveWindows, organization_id: str, ask: Ask, seats: Seats) -> None:
        self._live, self._organization_id, self._ask, self._seats = live, organization_id, ask, seats
        self._channel = Channel()

    async def begin(self, cursor: str | None) -> None:
        """Take a seat.

        Raises:
            Refused: there is none, or the window cannot be shown.
        """
        self._seats.take(self._organization_id, self._channel)
        try:
            for frame in await self._live.watch(self._organization_id, self._ask, self._listen, cursor):
                self._listen(frame)
        except BaseException:
            self._end()
            raise

    async def run(self, authenticator: Authenticator, authorization: str | None) -> AsyncIterator[bytes]:
        """The events, to the end of the connection."""
        quiet, sent = 0.0, 0
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while True:
                message = await self._channel.get(CHECK_PAUSE_S)
                if message is not None:
                    quiet, sent = 0.0, sent + len(message)
                    yield message
                    if sent > SENT_BYTES_MAX:
                        self._channel.end(1000, "a connection has so much and no more; go on from your cursor")
                    continue
                if self._channel.code:
                    break
                quiet += CHECK_PAUSE_S
                if quiet >= HEARTBEAT_S:
                    quiet = 0.0
                    yield b": heartbeat\n\n"
                await self._check(authenticator, authorization)
            # Who has had enough goes on at once.
            retry_ms = 0 if self._channel.code == 1000 else RETRY_MS
            closing = f"{self._channel.code} {self._channel.reason}"
            yield f"retry: {retry_ms}\nevent: closing\ndata: {closing}\n\n".encode()
        finally:
            self._end()

    def _listen(self, frame: Frame) -> None:
        self._channel.put(
            b"event: %s\nid: %s\ndata: {%s}\n\n" % (frame.kind.encode(), frame.cursor.encode(), frame.body)
        )
        if frame.kind == "gone":
            self._channel.end(1013, "the window had to make room; connect again later")

    async def _check(self, authenticator: Authenticator, authorization: str | None) -> None:
        try:
            await authenticator.authenticate(authorization, "query")
        except Refused as refused:
            if refused.status in (401, 403):
                self._channel.end(1008, refused.detail)

    def _end(self) -> None:
        self._live.unwatch(self._organization_id, self._ask, self._listen)
        self._seats.give_back(self._organization_id, self._channel)


def _parameters(request: Request[Any, Any, Any]) -> dict[str, list[str]]:
    return {name: request.query_params.getall(name) for name in request.query_params}
