"""Traces of the service's own processes, sent by OpenTelemetry over OTLP: off unless an endpoint is set.

What a batch is traced by goes with it: a request's span is current while it is answered, the journal's record has its
`traceparent`, the loader's spans are children of those, and the rollups' children of the loader's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any, NamedTuple

from totalizer import __version__
from totalizer.clock import SYSTEM_CLOCK
from totalizer.outgoing import SCOPE
from totalizer.telemetry import logger

#: Seconds that what is not delivered yet gets at the end of a process.
END_S = 2.0
#: Spans made of one piece of work at most, however many traced batches it holds.
SPANS_MAX = 100
#: Seconds until OpenTelemetry may say the same again.
REPEAT_S = 10.0
_FORM = "traceparent"


class Kept(NamedTuple):
    """A request's span that is kept.

    Attributes:
        parent: the context it begins in.
        trace_id: of its trace.
    """

    parent: Any
    trace_id: int


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
        from opentelemetry.context import Context
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # What the environment says of the service is stronger.
        resource = Resource.create({"service.name": SCOPE, "service.version": __version__})
        resource = resource.merge(OTELResourceDetector().detect())
        ids = RandomIdGenerator()
        self._provider = TracerProvider(
            resource=resource.merge(Resource({"totalizer.component": component})), shutdown_on_exit=False,
            id_generator=ids,
        )  # fmt: skip
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._api, self._tracer = trace, self._provider.get_tracer(SCOPE, __version__)
        self._form, self._sample = TraceContextTextMapPropagator(), self._provider.sampler.should_sample
        self._ids, self._draw, self._nothing = ids, ids.generate_trace_id, Context()

    def kept(self, headers: Mapping[str, str]) -> Kept | None:
        """How the span of a request begins, the child of the sender's if it names one; None if it is not kept.

        Asked before anything is made: what is not kept, which is most, costs a tenth of a span.

        Args:
            headers: of the request.
        """
        given = headers.get(_FORM)
        parent, trace_id = self._nothing, 0
        if given is not None:
            parent = self._form.extract({_FORM: given}, parent)
            trace_id = self._api.get_current_span(parent).get_span_context().trace_id
        trace_id = trace_id or self._draw()
        decision = self._sample(parent, trace_id, "request").decision
        return Kept(parent, trace_id) if decision.is_sampled() else None  # type: ignore[no-untyped-call]

    @contextmanager
    def request(self, method: str, kept: Kept) -> Iterator[Any]:
        """A span that is current while a request is answered.

        Args:
            method: of the request.
            kept: how it begins.
        """
        # The trace for which it was decided, and no other one, for which it would be decided again.
        self._ids.generate_trace_id = lambda: kept.trace_id  # type: ignore[method-assign]
        try:
            span = self._tracer.start_span(
                method, kept.parent, kind=self._api.SpanKind.SERVER, attributes={"http.request.method": method}
            )
        finally:
            self._ids.generate_trace_id = self._draw  # type: ignore[method-assign]
        with self._ended(span):
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
                stack.enter_context(self._ended(self._tracer.start_span(
                    name, parent, kind=self._api.SpanKind.CONSUMER, attributes=attributes
                )))
                for parent in self._contexts(parents)
            ]  # fmt: skip
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

    @contextmanager
    def _ended(self, span: Any) -> Iterator[Any]:
        """A span that is current within, and ends then. Of an error it tells the kind: its words may hold an event."""
        with self._api.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                span.set_status(self._api.StatusCode.ERROR, type(error).__name__)
                raise

    def _told(self, span: Any) -> str | None:
        if not span.get_span_context().trace_flags.sampled:
            return None
        carrier: dict[str, str] = {}
        self._form.inject(carrier, self._api.set_span_in_context(span))
        return carrier.get(_FORM)


class _Forward(logging.Handler):
    """What OpenTelemetry says, as lines of our log, each kind once in REPEAT_S: it says some for every span."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log it."""
        now = SYSTEM_CLOCK.monotonic()
        if now - self._said.get(str(record.msg), float("-inf")) >= REPEAT_S:
            self._said[str(record.msg)] = now
            logger().warning("traces are not delivered", reason=record.getMessage())


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
        theirs.addHandler(_Forward())
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
