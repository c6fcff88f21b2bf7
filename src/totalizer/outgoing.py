"""Spans of the requests that a program sends, where it traces itself with OpenTelemetry.

It is not imported for that: a program that traces has imported it. Nothing is done in any other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Name of the instrumentation.
SCOPE = "totalizer"


class Outgoing:
    """One request that is sent.

    Args:
        span: its span; None where nothing is traced.

    Attributes:
        headers: hand the trace on to the server; none where nothing is traced.
    """

    def __init__(self, span: Any = None) -> None:
        self._span = span
        self.headers: dict[str, str] = {}

    def answered(self, status: int) -> None:
        """Note the status of the answer."""
        if self._span is not None:
            self._span.set_attribute("http.response.status_code", status)


@contextmanager
def outgoing(method: str, url: str, route: str = "", **attributes: str) -> Iterator[Outgoing]:
    """A span around a request.

    Args:
        method, url: of the request, the latter without its query.
        route: names the span, if the path is always the same.
        attributes: further ones, under `totalizer.`.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield Outgoing()
        return
    from opentelemetry.propagate import inject

    told = {"http.request.method": method, "url.full": url}
    told |= {f"totalizer.{name}": value for name, value in attributes.items()}
    with trace.get_tracer(SCOPE).start_as_current_span(
        f"{method} {route}".strip(), kind=trace.SpanKind.CLIENT, attributes=told
    ) as span:
        request = Outgoing(span)
        inject(request.headers)
        yield request
