"""A local collector of traces: what OpenTelemetry's exporters send to."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """A span as it arrived.

    Attributes:
        component: of the process it comes from; empty if it says none.
        attributes: its own, by name.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    component: str
    attributes: dict[str, Any]


class Collector:
    """Takes spans by OTLP over HTTP, and keeps them.

    Attributes:
        url: what exporters are told as OTEL_EXPORTER_OTLP_ENDPOINT.
        spans: in the order in which they came.
        bodies: as they came.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.bodies.append(body)
                outer.spans += _spans(body)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def children(self, parent: Span) -> list[Span]:
        """The spans below one."""
        return [span for span in list(self.spans) if span.parent_id == parent.span_id]

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def collector() -> Iterator[Collector]:
    """One for the length of a with-block."""
    made = Collector()
    try:
        yield made
    finally:
        made.close()


def _spans(body: bytes) -> Iterator[Span]:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    for resource_spans in request.resource_spans:
        component = _attributes(resource_spans.resource.attributes).get("totalizer.component", "")
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Span(
                    span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), component,
                    _attributes(span.attributes),
                )  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
