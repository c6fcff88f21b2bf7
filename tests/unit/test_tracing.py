"""Traces where there is nothing to trace with, nothing to send to, and parents that are none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from totalizer import tracing
from totalizer.event import BatchHeader, Section, decode_batch, encode_batch, with_trace
from totalizer.load.gather import gather
from totalizer.outgoing import outgoing
from totalizer.settings import load_settings
from totalizer.tracing import SPANS_MAX, Tracing

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:1/v1/traces"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    monkeypatch.setattr(tracing, "END_S", 0.0)
    tracing.start(NOWHERE, "tests")
    assert tracing.ON is not None
    yield tracing.ON
    tracing.stop()


def batch(trace: str | None = None) -> bytes:
    line = b"org\ttime\tid\t}\n"
    section = Section("made", ("organization_id", "at", "id"), False, 1, len(line))
    return encode_batch(BatchHeader("org", "2026-01-01T00:00:00Z", (section,), trace), line)


def test_a_record_says_which_trace_it_belongs_to() -> None:
    assert b"trace" not in batch()
    assert with_trace(batch(), TRACE) == batch(TRACE)
    assert decode_batch(batch(TRACE))[0].trace == TRACE
    assert decode_batch(batch(TRACE))[1] == decode_batch(batch())[1]


def test_the_loader_looks_for_traces_only_where_some_are_made(on: Tracing) -> None:
    assert gather([batch(), batch(TRACE)], 10).traces == (TRACE,)
    tracing.stop()
    assert gather([batch(), batch(TRACE)], 10).traces == ()


def test_work_for_several_has_a_span_for_each_that_is_one(on: Tracing) -> None:
    with on.work("load", [TRACE, "nonsense", TRACE], {}) as spans:
        assert [span.split("-")[1] for span in spans] == [TRACE.split("-")[1]]
        assert spans[0] != TRACE
    many = [f"00-{number:032x}-{number:016x}-01" for number in range(1, SPANS_MAX + 3)]
    with on.work("load", many, {}) as spans:
        assert len(spans) == SPANS_MAX


def test_what_the_sender_does_not_keep_is_not_handed_on(on: Tracing) -> None:
    assert on.kept({"traceparent": f"{TRACE[:-1]}0"}) is None
    kept = on.kept({"traceparent": TRACE})
    assert kept is not None
    assert on.current() is None
    with on.request("POST", kept):
        handed = on.current()
        assert handed is not None
        assert handed.startswith(TRACE[:36])
    assert on.current() is None


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}])
def test_a_share_of_what_nobody_has_begun_is_kept_each_in_the_trace_it_was_decided_for(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch, on: Tracing
) -> None:
    tracing.stop()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    tracing.start(NOWHERE, "tests")
    assert tracing.ON is not None
    found = [tracing.ON.kept(headers) for _ in range(200)]
    assert 50 < len([each for each in found if each is None]) < 150
    for each in found:
        if each is not None:
            with tracing.ON.request("GET", each):
                assert (tracing.ON.current() or "").startswith(f"00-{each.trace_id:032x}-")


def test_of_an_error_a_span_tells_the_kind_and_not_the_words(on: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(on._provider._active_span_processor, "on_end", ended.append)
    with pytest.raises(ValueError, match="secret"), on.work("load", [TRACE], {}):
        raise ValueError("a secret")
    [span] = ended
    assert (span.status.is_ok, span.status.description, span.events) == (False, "ValueError", ())


def test_without_opentelemetry_it_is_said_once_and_all_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with capture_logs() as lines:
        tracing.start(NOWHERE, "api")
    assert tracing.ON is None
    [line] = lines
    assert line["log_level"] == "warning"
    assert "totalizer[traces]" in line["remedy"]


def test_a_program_that_traces_nothing_sends_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    with outgoing("GET", "http://host/path") as request:
        request.answered(200)
        assert request.headers == {}
    assert "opentelemetry.trace" not in sys.modules


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d"},
            "http://d",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_where_traces_go(given: dict[str, str], endpoint: str | None) -> None:
    assert load_settings(**given).traces_endpoint == endpoint
