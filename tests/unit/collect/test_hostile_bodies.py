"""Bodies made to do harm: every one gets a refusal or answers per item, and never another exception."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.collect import Admission, Collector
from totalizer.errors import Refusal, Refused
from totalizer.event import decode_batch

ORGANIZATION_ID = "00000000-0000-4000-8000-000000000001"
GOOD = b'{"userId":"u","action":"edit"}'


def entry(member: bytes) -> bytes:
    """A time entry with one more member, as raw JSON."""
    return GOOD[:-1] + b"," + member + b"}"


DEEP = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
# Name, body of one time entry, what it is refused with; None where it is accepted.
BODIES: list[tuple[str, bytes, Refusal | None]] = [
    ("nothing", b"", Refusal.BAD_JSON),
    ("spaces", b"   ", Refusal.BAD_JSON),
    ("NUL bytes", b"\0\0", Refusal.BAD_JSON),
    ("not UTF-8", entry(b'"taskId":"\xff"'), Refusal.BAD_JSON),
    ("overlong UTF-8", entry(b'"taskId":"\xc0\x80"'), Refusal.BAD_JSON),
    ("a surrogate in UTF-8", entry(b'"taskId":"\xed\xa0\x80"'), Refusal.BAD_JSON),
    ("a lone surrogate", entry(b'"taskId":"\\ud800"'), Refusal.BAD_JSON),
    ("a lone low surrogate", entry(b'"taskId":"\\udc00"'), Refusal.BAD_JSON),
    ("UTF-16", GOOD.decode().encode("utf-16"), Refusal.BAD_JSON),
    ("two byte order marks", b"\xef\xbb\xbf" * 2000 + GOOD, Refusal.BAD_JSON),
    ("cut off", GOOD[:-1], Refusal.BAD_JSON),
    ("two values", GOOD + GOOD, Refusal.BAD_JSON),
    ("NaN", entry(b'"duration":NaN'), Refusal.BAD_JSON),
    ("Infinity in JSON", entry(b'"metadata":{"a":-Infinity}'), Refusal.BAD_JSON),
    ("single quotes", GOOD.replace(b'"', b"'"), Refusal.BAD_JSON),
    ("a comment", b"/* */" + GOOD, Refusal.BAD_JSON),
    ("a trailing comma", GOOD[:-1] + b",}", Refusal.BAD_JSON),
    ("a raw newline in a text", entry(b'"taskId":"a\nb"'), Refusal.BAD_JSON),
    ("a raw tab in a text", entry(b'"taskId":"a\tb"'), Refusal.BAD_JSON),
    ("a raw NUL in a text", entry(b'"taskId":"a\0b"'), Refusal.BAD_JSON),
    ("a wrong escape", entry(b'"taskId":"\\x"'), Refusal.BAD_JSON),
    ("a long number", entry(b'"duration":' + b"9" * 5000), Refusal.INVALID_EVENT),
    ("a long number in JSON", entry(b'"metadata":{"a":' + b"9" * 5000 + b"}"), Refusal.INVALID_EVENT),
    ("a huge exponent", entry(b'"duration":1e999999999'), Refusal.INVALID_EVENT),
    ("a huge exponent in JSON", entry(b'"metadata":{"a":[1e999999999]}'), Refusal.INVALID_EVENT),
    ("deep JSON", entry(b'"metadata":' + DEEP), Refusal.BAD_JSON),
    ("JSON of depth 33", entry(b'"metadata":' + b'{"a":' * 33 + b"1" + b"}" * 33), Refusal.INVALID_EVENT),
    ("NUL", entry(b'"taskId":"\\u0000"'), Refusal.INVALID_EVENT),
    ("NUL in a key of JSON", entry(b'"metadata":{"\\u0000":1}'), Refusal.INVALID_EVENT),
    ("a key of the class", entry(b'"__class__":1'), Refusal.INVALID_EVENT),
    ("a key of the organisation", entry(b'"organization_id":"x"'), Refusal.INVALID_EVENT),
    ("a column's name for a key", entry(b'"user_id":"x"'), Refusal.INVALID_EVENT),
    ("a long key", entry(b'"' + b"k" * 1_000_000 + b'":1'), Refusal.INVALID_EVENT),
    ("a list", b"[" + GOOD + b"]", Refusal.INVALID_EVENT),
    ("null", b"null", Refusal.INVALID_EVENT),
    ("a text", b'"' + b"x" * 100_000 + b'"', Refusal.INVALID_EVENT),
    ("a long text", entry(b'"taskId":"' + b"x" * 1_000_000 + b'"'), Refusal.INVALID_EVENT),
    ("a key twice", entry(b'"action":"run"'), None),
    ("__proto__", entry(b'"metadata":{"__proto__":{"admin":true},"a":{"constructor":1}}'), None),
    ("tabs and newlines", entry(b'"taskId":"a\\tb\\nc\\rd\\\\e\\u000b"'), None),
    ("a whole line", entry(b'"taskId":"\\n00000000-0000-4000-8000-000000000002\\t2025"'), None),
    ("COPY's end", entry(b'"taskId":"\\\\."'), None),
    ("JSON of depth 32", entry(b'"metadata":' + b'{"a":' * 32 + b"1" + b"}" * 32), None),
    ("SQL", entry(b'"taskId":"\'); DROP TABLE events.time_entries; --"'), None),
    ("a template", entry(b'"taskId":"{event} %s {0}"'), None),
    ("a pair of surrogates", entry(b'"taskId":"\\ud83d\\ude00"'), None),
    ("line separators", entry('"taskId":"\u2028\u2029\x85"'.encode()), None),
]
NAMES = [name for name, _, _ in BODIES]


def check(admission: Admission, rows: int) -> None:
    """What is accepted is whole lines of the sender's own organisation."""
    header, blocks = decode_batch(admission.payload)
    [section] = header.sections
    lines = blocks[0].splitlines()
    assert len(lines) == section.rows == rows
    for line in lines:
        assert line.count(b"\t") == len(section.columns) - 1
        assert line.startswith(ORGANIZATION_ID.encode())
        assert b"__proto__" not in line
        assert b"constructor" not in line


@pytest.mark.parametrize(("name", "body", "refusal"), BODIES, ids=NAMES)
def test_alone(collector: Collector, name: str, body: bytes, refusal: Refusal | None) -> None:
    if refusal is None:
        check(collector.admit_one(ORGANIZATION_ID, "entries", body), 1)
        return
    with pytest.raises(Refused) as caught:
        collector.admit_one(ORGANIZATION_ID, "entries", body)
    assert caught.value.refusal is refusal
    assert 0 < len(caught.value.detail) < 500


@pytest.mark.parametrize(("name", "body", "refusal"), BODIES, ids=NAMES)
@pytest.mark.parametrize("first", [b"", b'{"userId":1},'], ids=["after a good one", "after a bad one"])
def test_in_a_batch(collector: Collector, name: str, body: bytes, refusal: Refusal | None, first: bytes) -> None:
    """One bad event costs itself alone, one that breaks the JSON costs the batch, wherever the first mistake is."""
    batch = b'{"time_entries":[' + first + GOOD + b"," + body + b"]}"
    bad = 1 if first else 0
    if refusal is Refusal.BAD_JSON:
        with pytest.raises(Refused) as caught:
            collector.admit_batch(ORGANIZATION_ID, batch)
        assert caught.value.refusal is Refusal.BAD_JSON
        assert len(caught.value.detail) < 500
        return
    admission = collector.admit_batch(ORGANIZATION_ID, batch)
    check(admission, 1 if refusal else 2)
    expected = [*([0] if first else []), *([1 + bad] if refusal else [])]
    assert [item.index for item in admission.items] == expected
    assert all(len(item.message) < 500 for item in admission.items)


@pytest.mark.parametrize(
    "batch",
    [
        b"", b"null", b"[]", b"5", b'"x"', b"[" + GOOD + b"]", b'{"time_entries":null}', b'{"time_entries":{}}',
        b'{"time_entries":"x"}', b'{"time_entries":1e999}', b'{"x":1}', b'{"x":{"y":[]}}', b'{"__proto__":{}}',
        b'{"time_entries":[' + GOOD + b'],"timestamp":NaN}', b'{"time_entries":[{}],"timestamp":"\xff"}',
        b'{"time_entries":[{}],"x":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}", b'{"' + b"k" * 100_000 + b'":1}',
        b'{"time_entries":[' + GOOD + b"," + b"[" * 200_000 + b"]" * 200_000 + b"]}",
        b'{"\xff":[]}', b'{"\\ud800":[1]}', b'{"time_entries":[{}],"timestamp":' + b"9" * 5000 + b"}",
        b'{"time_entries":[' + b"1," * 200 + b"1]}",
    ],
)  # fmt: skip
def test_hostile_batches_are_refused(collector: Collector, batch: bytes) -> None:
    with pytest.raises(Refused) as caught:
        collector.admit_batch(ORGANIZATION_ID, batch)
    assert 400 <= caught.value.status < 500
    assert len(caught.value.detail) < 500
    msgspec.json.encode(caught.value.extra)


def test_a_byte_order_mark_is_taken_for_nothing(collector: Collector) -> None:
    bom = b"\xef\xbb\xbf"
    check(collector.admit_batch(ORGANIZATION_ID, bom + b'{"time_entries":[' + GOOD + b"]}"), 1)
    check(collector.admit_batch(ORGANIZATION_ID, bom + b'{"time_entries":[' + GOOD + b",{}]}"), 1)
    assert collector.admit_one(ORGANIZATION_ID, "entries", bom + GOOD).payload


def test_the_last_of_two_equal_keys_counts(collector: Collector) -> None:
    admission = collector.admit_one(ORGANIZATION_ID, "entries", entry(b'"action":"run"'))
    assert decode_batch(admission.payload)[1][0].split(b"\t")[7] == b"run"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["userId", "action", "id", "source", "timestamp", "duration", "metadata", "taskId", "x"])


@given(st.dictionaries(MEMBERS, JSON_VALUES, max_size=6), st.binary(max_size=6), st.integers(0, 60))
def test_any_body_is_accepted_or_refused(collector: Collector, event: dict[str, Any], noise: bytes, at: int) -> None:
    whole = msgspec.json.encode(event, enc_hook=str) if _encodable(event) else GOOD
    broken = whole[:at] + noise + whole[at:]
    for body in (whole, broken, b'{"time_entries":[' + broken + b"," + GOOD + b"]}"):
        for admit in (collector.admit_batch, lambda who, body: collector.admit_one(who, "entries", body)):
            with contextlib.suppress(Refused):
                admission = admit(ORGANIZATION_ID, body)
                check(admission, admission.accepted)


def _encodable(event: Any) -> bool:
    try:
        msgspec.json.encode(event)
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError):
        return False
    return True
