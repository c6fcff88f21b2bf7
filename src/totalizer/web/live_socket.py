"""The WebSocket of the live windows: `/api/metrics/live` (docs/reference/live.md).

It speaks RSGI, since the adapter to ASGI knows HTTP only. RSGI sends no close code and names no subprotocol: so the
last message says why a connection ends, and a browser, which cannot set headers, sends its key in its first message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from totalizer.clock import Clock, utc_text
from totalizer.errors import Refusal, Refused
from totalizer.live import Ask, Frame, LiveWindows
from totalizer.telemetry import logger
from totalizer.web.identity import Authenticator
from totalizer.web.live_channel import Channel, Seats
from totalizer.web.principal import Principal

PATH = "/api/metrics/live"
#: Longest message of a client, bytes; how soon it must say who it is; how often it hears that the connection lives.
MESSAGE_BYTES_MAX, AUTH_TIMEOUT_S, HEARTBEAT_S = 64 << 10, 5.0, 15.0
#: Connections that have not said who they are.
STRANGERS_MAX = 100
#: How often it is asked whether the key still holds.
CHECK_PAUSE_S = 1.0
#: Longest time that the last message may take.
FAREWELL_S = 1.0
#: RSGI's kind of a text message.
_TEXT = 2
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class LiveSocket:
    """Serves WebSockets.

    Args:
        authenticator: who is it?
        live: what they ask for.
        seats: how many there are.
        clock: for heartbeats.
        subscriptions_max: of one connection.
    """

    def __init__(
        self, authenticator: Authenticator, live: LiveWindows, seats: Seats, clock: Clock, *, subscriptions_max: int
    ) -> None:
        self.authenticator, self.live, self.seats, self.clock = authenticator, live, seats, clock
        self.subscriptions_max = subscriptions_max
        self._strangers = 0

    async def __call__(self, scope: Any, proto: Any) -> None:
        """Serve one connection to its end."""
        if scope.path != PATH:
            proto.close(404)
            return
        authorization = scope.headers.get("authorization")
        channel = Channel()
        try:
            principal = None
            if authorization is not None:
                principal = await self._enter(authorization, channel)
            elif self._strangers >= STRANGERS_MAX:
                raise Refused(Refusal.LIVE_LIMIT, "too many connections have not said who they are")
        except Refused as refused:
            proto.close(refused.status)
            return
        try:
            transport = await proto.accept()
            if principal is None:
                authorization, principal = await self._introduce(transport, channel)
            if principal is not None and authorization is not None:
                await _Connection(self, transport, channel, principal, authorization).run()
            await _farewell(transport, channel)
        finally:
            if principal is not None:
                self.seats.give_back(principal.organization_id, channel)
            proto.close()

    async def _enter(self, authorization: str, channel: Channel) -> Principal:
        principal = await self.authenticator.authenticate(authorization, "query")
        await principal.meters.reads.spend(1)
        self.seats.take(principal.organization_id, channel)
        return principal

    async def _introduce(self, transport: Any, channel: Channel) -> tuple[str | None, Principal | None]:
        """Wait for the first message, which must say who it is."""
        self._strangers += 1
        try:
            message = await asyncio.wait_for(transport.receive(), AUTH_TIMEOUT_S)
            content = _decode(message.data) if message.kind == _TEXT else {}
            token = content.get("token")
            if content.get("type") != "auth" or not isinstance(token, str):
                raise Refused(Refusal.UNAUTHENTICATED, 'send {"type": "auth", "token": "<API key or token>"} first')
            authorization = f"Bearer {token}"
            return authorization, await self._enter(authorization, channel)
        except Refused as refused:
            channel.put(_error(None, refused))
            channel.end(1008, refused.detail)
        except TimeoutError:
            channel.end(1008, f"no credentials within {AUTH_TIMEOUT_S:.0f} s")
        except (msgspec.DecodeError, UnicodeDecodeError):
            channel.end(1007, "the first message is no JSON object")
        except RuntimeError:  # RSGI's way to say that the other side has gone
            channel.end(1001, "the client has gone")
        finally:
            self._strangers -= 1
        return None, None


class _Connection:
    """One connection of somebody known."""

    def __init__(
        self, socket: LiveSocket, transport: Any, channel: Channel, principal: Principal, authorization: str
    ) -> None:
        self._socket, self._transport, self._channel = socket, transport, channel
        self._principal, self._authorization = principal, authorization
        self._subscriptions: dict[str, tuple[Ask, Any]] = {}

    async def run(self) -> None:
        """Until either side ends it."""
        self._channel.put(_encode({"type": "welcome", "heartbeat_s": HEARTBEAT_S}))
        tasks = [asyncio.ensure_future(work) for work in (self._receive(), self._send(), self._keep_checking())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None:
                    logger().error("a live connection failed", exc_info=error)
                    self._channel.end(1011, "something went wrong here; it has been logged")
        finally:
            for ask, listener in self._subscriptions.values():
                self._socket.live.unwatch(self._principal.organization_id, ask, listener)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> None:
        while not self._channel.code:
            try:
                message = await self._transport.receive()
            except RuntimeError:
                self._channel.end(1001, "the client has gone")
                return
            if message.kind == 0:
                self._channel.end(1000, "the client has closed")
                return
            if message.kind != _TEXT or len(message.data) > MESSAGE_BYTES_MAX:
                self._channel.end(1009, f"send texts of at most {MESSAGE_BYTES_MAX} bytes")
                return
            await self._handle(message.data)

    async def _handle(self, text: str) -> None:
        name: str | None = None
        try:
            content = _decode(text)
            name = content["id"] if isinstance(content.get("id"), str) and len(content["id"]) <= 100 else None
            match content.get("type"):
                case "subscribe":
                    await self._subscribe(name, content)
                case "unsubscribe":
                    self._unsubscribe(name)
                case "ping":
                    self._channel.put(_encode({"type": "pong"}))
                case kind:
                    detail = f"type={str(kind)[:80]!r}: send subscribe, unsubscribe or ping"
                    raise Refused(Refusal.BAD_REQUEST, detail)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._channel.put(_error(None, Refused(Refusal.BAD_JSON, "the message is no JSON object")))
        except Refused as refused:
            self._channel.put(_error(name, refused))

    async def _subscribe(self, name: str | None, content: Mapping[str, Any]) -> None:
        if name is None:
            raise Refused(Refusal.BAD_REQUEST, "id: give the subscription a name of 1 to 100 characters")
        if name in self._subscriptions:
            raise Refused(Refusal.BAD_REQUEST, f"id={name!r}: there is such a subscription; unsubscribe it first")
        if len(self._subscriptions) >= self._socket.subscriptions_max:
            limit = self._socket.subscriptions_max
            raise Refused(Refusal.LIVE_LIMIT, f"{limit} subscriptions are all that one connection may have")
        await self._principal.meters.reads.spend(1)
        live, organization_id = self._socket.live, self._principal.organization_id
        ask = live.asks.parse(str(content.get("window")), parameters_of(content))
        head = b'{"id":' + _encode(name) + b","
        channel, subscriptions = self._channel, self._subscriptions

        def listener(frame: Frame) -> None:
            channel.put(head + frame.body + b"}")
            if frame.kind == "gone":
                subscriptions.pop(name, None)

        cursor = content.get("cursor")
        frames = await live.watch(organization_id, ask, listener, cursor if isinstance(cursor, str) else None)
        subscriptions[name] = ask, listener
        channel.put(_encode({"id": name, "type": "subscribed", "query": live.echo(ask)}))
        for frame in frames:
            listener(frame)

    def _unsubscribe(self, name: str | None) -> None:
        found = self._subscriptions.pop(name or "", None)
        if found is None:
            raise Refused(Refusal.BAD_REQUEST, "id: there is no such subscription")
        self._socket.live.unwatch(self._principal.organization_id, *found)
        self._channel.put(_encode({"id": name, "type": "unsubscribed"}))

    async def _send(self) -> None:
        while True:
            message = await self._channel.get(HEARTBEAT_S)
            if message is None and self._channel.code:
                return
            if message is None:
                message = _encode({"type": "heartbeat", "at": utc_text(self._socket.clock.now_ns())})
            try:
                await self._transport.send_str(message.decode())
            except RuntimeError:
                self._channel.end(1001, "the client has gone")
                return

    async def _keep_checking(self) -> None:
        """Until the key or token does not hold any more."""
        while not self._channel.code:
            await asyncio.sleep(CHECK_PAUSE_S)
            try:
                await self._socket.authenticator.authenticate(self._authorization, "query")
            except Refused as refused:
                if refused.status in (401, 403):
                    self._channel.end(1008, refused.detail)


def parameters_of(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters of a question as a query string would have them.

    Raises:
        Refused: they are of another form.
    """
    filters = content.get("filters") or {}
    if not isinstance(filters, dict):
        raise Refused(Refusal.BAD_REQUEST, "filters: send an object of dimensions and their values")
    own = {name: content[name] for name in ("event_type", "group_by", "measures") if content.get(name) is not None}
    return {str(name): _texts(str(name), value) for name, value in {**filters, **own}.items()}


def _texts(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str | int | bool) for each in values):
        raise Refused(Refusal.BAD_REQUEST, f"{name:.100}: send a text, or a list of texts")
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]


def _error(name: str | None, refused: Refused) -> bytes:
    named = {} if name is None else {"id": name}
    return _encode({**named, "type": "error", "code": refused.refusal.value, "detail": refused.detail})


async def _farewell(transport: Any, channel: Channel) -> None:
    """Send what still waits, and say why it ends; not to who is too slow or gone."""
    try:
        async with asyncio.timeout(FAREWELL_S):
            while (message := await channel.get(0.0)) is not None:
                await transport.send_str(message.decode())
            closing = {"type": "closing", "code": channel.code, "reason": channel.reason}
            await transport.send_str(_encode(closing).decode())
    except (TimeoutError, RuntimeError):
        return
