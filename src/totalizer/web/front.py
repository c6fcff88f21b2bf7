"""The RSGI application: ingest routes answered at once, everything else handed to the API behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.metrics import MEASURES
from totalizer.metrics.measures import Series
from totalizer.metrics.table import REQUESTS
from totalizer.telemetry import logger
from totalizer.web.answered import Answered
from totalizer.web.asgi_bridge import AsgiBridge
from totalizer.web.exchange import REQUEST_ID, Exchange
from totalizer.web.ingest import Ingest
from totalizer.web.live_socket import LiveSocket

#: Something done on the event loop before or after all requests.
Step = Callable[[], Coroutine[Any, Any, None]]

#: Where queries are.
ASKED = "/api/metrics/"
#: Not those of health, nor answers that last for as long as somebody listens.
_NOT_ASKED = tuple(f"{ASKED}{route}" for route in ("health", "performance", "live", "export"))
#: Methods that are told apart in metrics.
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
#: The first digit of a status → its class.
_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Front:
    """What the server calls for each request.

    Args:
        ingest: the hot path.
        bridge: the API behind it.
        socket: the WebSocket.
        start: run on the event loop before the first request.
        stop: run on it after the last.
        clock: for how long requests take.

    Attributes:
        taken_in: requests whose events were taken; a slow sender is not our slowness, and does not count.
        queried: requests that asked.
        closing: True to close each connection with the next answer on it.
    """

    def __init__(
        self, ingest: Ingest, bridge: AsgiBridge, socket: LiveSocket, start: Step, stop: Step,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._ingest, self._bridge, self._socket, self._start, self._stop = ingest, bridge, socket, start, stop
        self._monotonic = clock.monotonic
        self.taken_in, self.queried = Answered(), Answered()
        #: Of the hot path, by path and status.
        self._series: dict[tuple[str, int], Series] = {}
        ingest.on_answered = self._note
        #: Of each request, if that is logged: asking the logger each time would cost more than most of the rest.
        self._log = logger() if logger().is_enabled_for(logging.DEBUG) else None
        self.closing = False

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._start())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._stop())

    def __rsgi__(self, scope: Any, proto: Any) -> Awaitable[None]:
        # What opens a WebSocket is a GET.
        if scope.method == "POST" and (routes := self._ingest.routes.get(path := scope.path)):
            return self._ingest(scope, Exchange(proto, path, self.closing), routes)
        if scope.proto != "http":
            return self._socket(scope, proto)
        return self._ask(scope, Exchange(proto, "", self.closing))

    def _note(self, scope: Any, exchange: Exchange) -> None:
        """Note a request of the hot path that has ended. No coroutine around each: that would cost more than this."""
        ended = self._monotonic()
        took = ended - exchange.began
        series = self._series.get((exchange.route, exchange.status))
        if series is None:
            series = self._series_of(exchange.route, exchange.status)
        series.observe(took)
        if exchange.read_at:
            taken_in = self.taken_in
            taken_in.requests += 1
            taken_in.seconds += ended - exchange.read_at
        if self._log is not None:
            self._tell(scope, exchange, took)

    def _series_of(self, path: str, status: int) -> Series:
        series = MEASURES.series(REQUESTS, "ingest", "POST", path, _CLASSES[status // 100])
        self._series[path, status] = series
        return series

    async def _ask(self, scope: Any, exchange: Exchange) -> None:
        began = self._monotonic()
        given = scope.headers.get(REQUEST_ID)
        if given is not None:
            exchange.take_id(given)
        try:
            await self._bridge(scope, exchange)
        finally:
            ended, method = self._monotonic(), scope.method
            took = ended - began
            MEASURES.observe(
                REQUESTS, took, "ask", method if method in _METHODS else "other", exchange.route or "other",
                _CLASSES[exchange.status // 100],
            )  # fmt: skip
            if scope.path.startswith(ASKED) and not scope.path.startswith(_NOT_ASKED):
                self.queried.requests += 1
                self.queried.seconds += took
            self._tell(scope, exchange, took)

    def _tell(self, scope: Any, exchange: Exchange, took_s: float) -> None:
        if self._log is not None:
            self._log.debug(
                "request answered", request_id=exchange.request_id, method=scope.method, path=scope.path,
                status=exchange.status, duration_ms=round(took_s * 1000, 3),
            )  # fmt: skip
