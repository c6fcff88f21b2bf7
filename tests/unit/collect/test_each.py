"""Events one by one, fields that are not declared, times too long ago."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog.read import parse_catalog
from totalizer.clock import SYSTEM_CLOCK, utc_text
from totalizer.collect import Admission, Collector, Sent, Wrong, admit_each, admit_lines
from totalizer.errors import CatalogError, Refusal, Refused
from totalizer.event import decode_batch

ORGANIZATION_ID = "00000000-0000-4000-8000-000000000001"
CALLS = """
[event_type.calls]
time = "called_at"
subject = "user"
{}
[event_type.calls.fields]
user = {{ type = "text", required = true }}
amount = {{ type = "decimal" }}
rest = {{ type = "json" }}
"""


def collector_of(options: str) -> Collector:
    catalog = parse_catalog([("calls.toml", CALLS.format(options))])
    return Collector(catalog, SYSTEM_CLOCK, batch_events_max=10)


def columns(payload: bytes) -> dict[str, str]:
    header, [block] = decode_batch(payload)
    return dict(zip(header.sections[0].columns, block.decode().rstrip("\n").split("\t"), strict=True))


@pytest.fixture
def keeping() -> Collector:
    return collector_of('unknown_fields = "keep:rest"')


def test_unknown_fields_are_kept_as_they_were_written(keeping: Collector) -> None:
    body = b'{"user":"u","amount":123456789012345.25,"a":0.10,"rest":{"b":1,"c":2},"c":[1,"x"],"b":"other"}'
    stored = columns(keeping.admit_one(ORGANIZATION_ID, "calls", body).payload)
    assert json.loads(stored["rest"]) == {"a": 0.10, "b": 1, "c": 2}
    assert stored["amount"] == "123456789012345.25"


def test_unknown_fields_are_kept_in_batches(keeping: Collector) -> None:
    admission = keeping.admit_batch(ORGANIZATION_ID, b'{"calls":[{"user":"u"},{"user":"v","x":"a\\tb"}]}')
    assert (admission.accepted, admission.items) == (2, [])
    assert b'{"x":"a\\\\tb"}' in admission.payload


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (b'"__proto__":{"a":1}', None),
        (b'"x":"\\u0000"', "rest: holds the character NUL"),
        (b'"x":' + b'{"a":' * 33 + b"1" + b"}" * 33, "rest: is nested more than 32 deep"),
        (b'"x":1,"rest":5', "rest: must be a JSON object"),
        (b'"x":1e999', "Number out of range"),
        (b'"x":1,"amount":"x"', "amount: must be a decimal number"),
    ],
)
def test_what_is_kept_must_be_storable(keeping: Collector, member: bytes, reason: str | None) -> None:
    body = b'{"user":"u",' + member + b"}"
    if reason is None:
        assert json.loads(columns(keeping.admit_one(ORGANIZATION_ID, "calls", body).payload)["rest"]) == {}
        return
    with pytest.raises(Refused, match=reason):
        keeping.admit_one(ORGANIZATION_ID, "calls", body)


def test_unknown_fields_are_refused_otherwise() -> None:
    for options in ("", 'unknown_fields = "refuse"'):
        with pytest.raises(Refused, match="x: unknown field"):
            collector_of(options).admit_one(ORGANIZATION_ID, "calls", b'{"user":"u","x":1}')


@pytest.mark.parametrize("value", ["keep", "keep:", "keep:user", "keep:nothing", "drop"])
def test_only_a_json_field_keeps(value: str) -> None:
    with pytest.raises(CatalogError, match=r"unknown_fields: must be 'refuse'"):
        collector_of(f'unknown_fields = "{value}"')


def test_times_too_long_ago_are_refused() -> None:
    collector, now = collector_of('past_max = "2h"'), SYSTEM_CLOCK.now_ns()
    old, recent = (utc_text(now - minutes * 60_000_000_000) for minutes in (122, 118))
    sent: list[Any] = [{"user": "u", "called_at": old}, {"user": "u", "called_at": recent}, {"user": "u"}]
    admission = admit_each(collector, ORGANIZATION_ID, [Sent("calls", json.dumps(one).encode()) for one in sent])
    assert admission.accepted == 2
    [item] = admission.items
    assert (item.index, item.code) == (0, "invalid_time")
    assert "longer ago than this event type takes, 2:00:00" in item.message


def test_the_time_of_a_whole_batch_is_measured_too() -> None:
    body = json.dumps({"timestamp": "2020-01-01T00:00:00Z", "calls": [{"user": "u"}]}).encode()
    with pytest.raises(Refused, match="longer ago"):
        collector_of('past_max = "30m"').admit_batch(ORGANIZATION_ID, body)
    assert collector_of('past_max = "999999d"').admit_batch(ORGANIZATION_ID, body).accepted == 1


@pytest.mark.parametrize("value", ["2", "h", "0h", "-1d", "2w", "2 h", "1234567d"])
def test_spans_are_a_number_and_a_unit(value: str) -> None:
    with pytest.raises(CatalogError, match="past_max: must be a number of minutes, hours or days"):
        collector_of(f'past_max = "{value}"')


def test_each_answer_names_the_place_in_the_request() -> None:
    sent: list[Sent | Wrong] = [
        Sent("calls", b'{"user":"u"}'), Wrong("it is none"), Sent("unheard", b"{}"), Sent("calls", b"{"),
        Sent("calls", b'{"user":5}'), Sent("calls", b'{"user":"a\\tb"}'), Sent("calls", b"[" * 100_000),
        Sent("calls", b'{"user":"\xff"}'),
    ]  # fmt: skip
    admission = admit_each(collector_of(""), ORGANIZATION_ID, sent)
    assert admission.accepted == 2
    assert [(item.index, item.code) for item in admission.items] == [
        (1, "invalid_event"), (2, "unknown_event_type"), (3, "bad_json"), (4, "invalid_event"), (6, "invalid_event"),
        (7, "bad_json"),
    ]  # fmt: skip
    assert b"\ta\\tb\t" in admission.payload
    assert Refusal(admission.items[0].code) is Refusal.INVALID_EVENT


LINES = [
    b'{"id":"a","user":"x"}', b'{"id":"b","user":"t\\tb","rest":{"k":[1]}}', b'{"id":"c","user":"y","amount":"1.5"}',
    b'{"id":"a","user":"again"}', b'{"id":"d","user":"x","called_at":"2999-01-01T00:00:00Z"}', b'{"user":5}', b"{bad",
    b'{"id":"e","user":"x"}{"id":"f","user":"x"}', b'{"id":"g","user":"x","rest":{"k":[{}', b"{}]}}", b"", b" \r",
    b"[]", b'{"id":"h","user":"\xff"}', b'{"id":"i","user":"x"}\r', b'{"id":"j","user":"x","more":1}',
    b'{"user":"\\u0000"}',
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=6), st.booleans())
def test_lines_become_what_they_would_become_one_by_one(lines: list[bytes], keep: bool) -> None:
    collector = collector_of('unknown_fields = "keep:rest"' if keep else "")
    together = admit_lines(collector, ORGANIZATION_ID, "calls", lines)
    apart = admit_each(collector, ORGANIZATION_ID, (Sent("calls", line) if line.strip() else None for line in lines))
    assert told(together) == told(apart)


def told(admission: Admission) -> Any:
    """What was admitted, but for the times of receipt."""
    if not admission.accepted:
        return 0, admission.items
    header, blocks = decode_batch(admission.payload)
    rows = [[line.split("\t")[2:5] + line.split("\t")[6:] for line in block.decode().splitlines()] for block in blocks]
    return admission.accepted, admission.items, [(s.keyed, s.rows, s.places) for s in header.sections], rows
