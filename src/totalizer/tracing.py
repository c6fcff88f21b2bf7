"""Traces of the service's own processes, sent by OpenTelemetry over OTLP: off unless an endpoint is set.

What a batch is traced by goes with it: a request's span is current while it is answered, the journal's record has its
`traceparent`, the loader's spans are children of those, and the rollups' children of the loader's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any

from totalizer import __version__
from totalizer.outgoing import SCOPE
from totalizer.telemetry import logger

#: Seconds that what is not delivered yet gets at the end of a process.
END_S = 2.0
#: Spans made of one piece of work at most, however many traced batches it holds.
SPANS_MAX = 100
_FORM = "traceparent"


class Tracing:
    """Makes spans, and sends them in the background.

    Args:
        endpoint: address that OTLP over HTTP is sent to, with its path.
        component: this process' part.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, component: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # What the environment says of the service is stronger.
        resource = Resource.create({"service.name": SCOPE, "service.version": __version__})
        resource = resource.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(
            resource=resource.merge(Resource({"totalizer.component": component})), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._api, self._tracer = trace, self._provider.get_tracer(SCOPE, __version__)
        self._form = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """A span that is current while a request is answered, the child of the sender's if it names one.

        Args:
            method: of the request.
            headers: of the request.
        """
        given = headers.get(_FORM)
        parent = None if given is None else self._form.extract({_FORM: given})
        with self._tracer.start_as_current_span(
            method, parent, kind=self._api.SpanKind.SERVER, attributes={"http.request.method": method}
        ) as span:
            yield span

    def current(self) -> str | None:
        """What hands the current span on, if it is kept."""
        return self._told(self._api.get_current_span())

    @contextmanager
    def work(self, name: str, parents: Iterable[str], attributes: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
        """Spans around a piece of work that was done for several, one for each: what hands them on.

        Args:
            name: of the work.
            parents: what handed the parents on; of more than SPANS_MAX the first.
            attributes: of each span.
        """
        with ExitStack() as stack:
            made = [
                stack.enter_context(
                    self._tracer.start_as_current_span(
                        name, parent, kind=self._api.SpanKind.CONSUMER, attributes=attributes
                    )
                )
                for parent in self._contexts(parents)
            ]
            yield tuple(told for span in made if (told := self._told(span)) is not None)

    def done(self, name: str, parents: Iterable[str], began_ns: int) -> None:
        """Spans of work that ends now.

        Args:
            name: of the work.
            parents: as `work` has them.
            began_ns: when it began, nanoseconds since 1970 UTC.
        """
        for parent in self._contexts(parents):
            self._tracer.start_span(name, parent, kind=self._api.SpanKind.CONSUMER, start_time=began_ns).end()

    def close(self) -> None:
        """Deliver what is not delivered yet, for END_S at most: a collector that is away holds nobody up."""
        ending = Thread(target=self._provider.shutdown, name="last traces", daemon=True)
        ending.start()
        ending.join(END_S)

    def _contexts(self, parents: Iterable[str]) -> Iterator[Any]:
        for _, parent in zip(range(SPANS_MAX), dict.fromkeys(parents), strict=False):
            context = self._form.extract({_FORM: parent})
            # What cannot be read is no parent; it must not begin a trace of its own.
            if self._api.get_current_span(context).get_span_context().is_valid:
                yield context

    def _told(self, span: Any) -> str | None:
        if not span.get_span_context().trace_flags.sampled:
            return None
        carrier: dict[str, str] = {}
        self._form.inject(carrier, self._api.set_span_in_context(span))
        return carrier.get(_FORM)


class _Forward(logging.Handler):
    """What OpenTelemetry says, as a line of our log."""

    def emit(self, record: logging.LogRecord) -> None:
        logger().warning("traces", reason=record.getMessage())


#: That of this process; None while nothing is traced, which is all that anybody asks then.
ON: Tracing | None = None


def start(endpoint: str | None, component: str) -> None:
    """Trace from now on; say so if that cannot be, since OpenTelemetry is not installed.

    Args:
        endpoint: as `Tracing` has it; None to trace nothing.
        component: this process' part.
    """
    global ON
    if endpoint is None:
        return
    try:
        ON = Tracing(endpoint, component)
    except ImportError as error:
        logger().warning(
            "nothing is traced: an endpoint for traces is set, but OpenTelemetry is not installed",
            missing=error.name, remedy="pip install 'totalizer[traces]', or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        )  # fmt: skip
        return
    theirs = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Forward) for handler in theirs.handlers):
        theirs.addHandler(_Forward(logging.WARNING))
        theirs.propagate = False


def stop() -> None:
    """Trace no more, and deliver what there is."""
    global ON
    tracing, ON = ON, None
    if tracing is not None:
        tracing.close()


@contextmanager
def traced(endpoint: str | None, component: str) -> Iterator[None]:
    """Trace as from `start` on, until `stop`, within."""
    start(endpoint, component)
    try:
        yield
    finally:
        stop()
