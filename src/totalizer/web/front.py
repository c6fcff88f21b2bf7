"""The RSGI application: ingest routes answered at once, everything else handed to the API behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.health.figures import Figures
from totalizer.web.asgi_bridge import AsgiBridge
from totalizer.web.ingest import Ingest
from totalizer.web.live_socket import LiveSocket

#: Something done on the event loop before or after all requests.
Step = Callable[[], Coroutine[Any, Any, None]]

Headers = list[tuple[str, str]]
CLOSE = ("connection", "close")
#: Where queries are.
ASKED = "/api/metrics/"
#: Not those of health, nor answers that last for as long as somebody listens.
_NOT_ASKED = tuple(f"{ASKED}{route}" for route in ("health", "performance", "live", "export"))


class Front:
    """What the server calls for each request.

    Args:
        ingest: the hot path.
        bridge: the API behind it.
        socket: the WebSocket.
        start: run on the event loop before the first request.
        stop: run on it after the last.
        figures: told how long queries took.

    Attributes:
        closing: True to close each connection with the next answer on it.
    """

    def __init__(
        self, ingest: Ingest, bridge: AsgiBridge, socket: LiveSocket, start: Step, stop: Step, figures: Figures,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._ingest, self._bridge, self._socket, self._start, self._stop = ingest, bridge, socket, start, stop
        self._queried, self._monotonic = figures.queried, clock.monotonic
        self.closing = False

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._start())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._stop())

    def __rsgi__(self, scope: Any, proto: Any) -> Awaitable[None]:
        if self.closing and scope.proto == "http":
            proto = _Closing(proto)
        # What opens a WebSocket is a GET.
        if scope.method == "POST" and (routes := self._ingest.routes.get(scope.path)):
            return self._ingest(scope, proto, routes)
        if scope.proto != "http":
            return self._socket(scope, proto)
        answer = self._bridge(scope, proto)
        path = scope.path
        return self._timed(answer) if path.startswith(ASKED) and not path.startswith(_NOT_ASKED) else answer

    async def _timed(self, answer: Awaitable[None]) -> None:
        began = self._monotonic()
        await answer
        self._queried(self._monotonic() - began)


class _Closing:
    """A request whose answer says that the connection ends with it."""

    def __init__(self, proto: Any) -> None:
        self._proto = proto

    def __call__(self) -> Any:
        return self._proto()

    def __aiter__(self) -> Any:
        return self._proto.__aiter__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proto, name)

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        self._proto.response_bytes(status, [*headers, CLOSE], body)

    def response_stream(self, status: int, headers: Headers) -> Any:
        return self._proto.response_stream(status, [*headers, CLOSE])
