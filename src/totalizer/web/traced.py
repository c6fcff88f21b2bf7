"""The front where requests are traced: a span around each, and its trace in the journal's records."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from totalizer import tracing
from totalizer.event import with_trace
from totalizer.journal import Journal
from totalizer.tracing import Kept, Tracing
from totalizer.web.exchange import Exchange
from totalizer.web.front import Front


class TracedJournal:
    """A journal whose records say which trace they belong to, if they belong to one that is kept.

    Args:
        journal: keeps them.
        tracing: of this process.
    """

    def __init__(self, journal: Journal, tracing: Tracing) -> None:
        self._append, self._tracing = journal.append, tracing

    def append(self, payload: bytes, token: object) -> None:
        """As `Journal.append`."""
        trace = self._tracing.current()
        self._append(payload if trace is None else with_trace(payload, trace), token)


class TracedFront(Front):
    """As `Front`, with a span around each HTTP request that is kept."""

    def __rsgi__(self, scope: Any, proto: Any) -> Awaitable[None]:
        on = tracing.ON
        kept = None if on is None or scope.proto != "http" else on.kept(scope.headers)
        if on is None or kept is None:
            return super().__rsgi__(scope, proto)
        return self._traced(scope, proto, on, kept)

    async def _traced(self, scope: Any, proto: Any, on: Tracing, kept: Kept) -> None:
        path, routes = scope.path, None
        if scope.method == "POST":
            routes = self._ingest.routes.get(path)
        exchange = Exchange(proto, "" if routes is None else path, self.closing)
        with on.request(scope.method, kept) as span:
            try:
                await (self._ask(scope, exchange) if routes is None else self._ingest(scope, exchange, routes))
            finally:
                route = exchange.route or "other"
                span.update_name(f"{scope.method} {route}")
                span.set_attribute("http.route", route)
                span.set_attribute("totalizer.request_id", exchange.request_id)
                if exchange.status:
                    span.set_attribute("http.response.status_code", exchange.status)
