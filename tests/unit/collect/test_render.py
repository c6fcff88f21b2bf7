"""COPY lines: every type of field, escaped or not, as PostgreSQL would read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import Catalog
from totalizer.collect import Admission, Collector
from totalizer.collect.render import Renderer, Stamps, renderer
from totalizer.collect.validator import event_struct
from totalizer.event import ID, KEY, MINUTE_KEY, ORGANIZATION, TIME, decode_batch, event_uuid, new_event_ids

ORGANIZATION_ID = "00000000-0000-4000-8000-000000000001"
RECEIVED_AT = "2025-09-05T10:00:00.123456Z"
CLASS_KEY = "it's {a} key"
TIME_KEY = "when it's {now}"

WHOLE_EVENT = {
    CLASS_KEY: "über", TIME_KEY: "2025-09-05T09:58:07Z", "line": "a\tb\\n\nc", "import": "of\tf", "whole": -5,
    "wide": 2**63 - 1, "part": 1.5, "price": "12.50", "flag": True, "maybe": False,
    "who": "AAAAAAAA-0000-4000-8000-000000000001", "data": {"a\n": "\\"}, "id": "or\tder", "source": "sh\\op",
}  # fmt: skip


def columns(admission: Admission) -> list[str]:
    """The columns of an admission's only line."""
    _, [block] = decode_batch(admission.payload)
    [line] = block.decode().splitlines(keepends=True)
    return line.removesuffix("\n").split("\t")


def test_every_type_of_field_stands_in_its_column(admit_one: Callable[..., Admission]) -> None:
    admission = admit_one(WHOLE_EVENT, "everything")
    assert columns(admission) == [
        ORGANIZATION_ID, "2025-09-05T09:58:07.000000Z", event_uuid("sh\\op", "or\tder"), "sh\\\\op", "or\\tder",
        RECEIVED_AT, "über", "a\\tb\\\\n\\nc", "of\\tf", "-5", str(2**63 - 1), "1.5", "12.50", "t", "f",
        "AAAAAAAA-0000-4000-8000-000000000001", '{"a\\\\n":"\\\\\\\\"}',
    ]  # fmt: skip
    assert admission.event_id == event_uuid("sh\\op", "or\tder")
    [section] = decode_batch(admission.payload)[0].sections
    assert section.keyed
    assert section.columns[:4] == ("organization_id", "from", "id", "source")


def test_what_is_left_out_is_null_and_the_time_that_of_receipt(admit_one: Callable[..., Admission]) -> None:
    admission = admit_one({CLASS_KEY: "x", "whole": 1, "flag": False}, "everything")
    line = columns(admission)
    assert line[1:6] == [RECEIVED_AT, admission.event_id, "\\N", "\\N", RECEIVED_AT]
    assert line[6:] == ["x", "\\N", "\\N", "1", "\\N", "\\N", "\\N", "f", "\\N", "\\N", "\\N"]
    assert not decode_batch(admission.payload)[0].sections[0].keyed


def test_a_text_that_looks_like_null_is_not_null(admit_one: Callable[..., Admission]) -> None:
    line = columns(admit_one({CLASS_KEY: "\\N", "whole": 1, "flag": True, "line": ""}, "everything"))
    assert line[6:8] == ["\\\\N", ""]


def test_a_uuid_as_id_is_kept_and_needs_no_external_id(admit_one: Callable[..., Admission]) -> None:
    sent = "AAAAAAAA-0000-4000-8000-000000000001"
    line = columns(admit_one({CLASS_KEY: "x", "whole": 1, "flag": True, "id": sent, "source": ""}, "everything"))
    assert line[2:5] == [sent.lower(), "\\N", "\\N"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (TIME_KEY, "yesterday", f"{TIME_KEY}: 'yesterday' is not an RFC 3339 time"),
        (CLASS_KEY, "a\0", f"{CLASS_KEY}: holds the character NUL"),
        ("id", "a\0", "id: holds the character NUL"),
        ("source", "a\0", "source: holds the character NUL"),
        ("data", {"a": {"\0": 1}}, "data: holds the character NUL"),
        ("price", "0.001", "price: 0.001 has more than"),
    ],
)
def test_an_event_that_cannot_be_rendered_names_its_field(
    everything: Catalog, collector: Collector, key: str, value: Any, words: str
) -> None:
    """The index is that of the event in what was given, and the good ones around it are rendered."""
    kind = everything.event_types["everything"]
    good = {CLASS_KEY: "x", "whole": 1, "flag": True}
    body = msgspec.json.encode([good, {**good, key: value}, good])
    events = msgspec.json.decode(body, type=list[event_struct(kind)])  # type: ignore[misc]
    rejected: list[tuple[int, str]] = []
    stamps = Stamps(ORGANIZATION_ID, RECEIVED_AT, RECEIVED_AT, RECEIVED_AT, partial(next, new_event_ids(1)))
    render = renderer(kind, escaping=True)
    keyed, unkeyed = render(events, stamps, lambda index, field, reason: rejected.append((index, f"{field}: {reason}")))
    assert (len(keyed), len(unkeyed)) == (0, 2)
    [(index, message)] = rejected
    assert index == 1
    assert message.startswith(words)


PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), min_size=1, max_size=20)
EVENTS = st.fixed_dictionaries(
    {CLASS_KEY: PLAIN, "whole": st.integers(-5, 2**63 - 1), "flag": st.booleans()},
    optional={
        "line": PLAIN, "import": st.sampled_from(["on", "off it"]), "wide": st.integers(-(2**63), 2**63 - 1),
        "part": st.floats(max_value=100, allow_nan=False, allow_infinity=False),
        "price": st.decimals(0, 1000, places=2).map(str), "maybe": st.none() | st.booleans(),
        "who": st.uuids().map(str), "data": st.dictionaries(PLAIN, PLAIN | st.integers() | st.none(), max_size=3),
        "id": PLAIN | st.uuids().map(str), "source": PLAIN,
        TIME_KEY: st.sampled_from(["2025-09-05T09:58:07Z", 1_757_066_000_000, "2025-09-05T11:58:07.5+02:00"]),
    },
)  # fmt: skip


@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_both_ways_of_rendering_agree_where_nothing_is_to_escape(
    everything: Catalog, renderers: tuple[Renderer, Renderer], events: list[Any]
) -> None:
    kind = everything.event_types["everything"]
    decoded = msgspec.json.decode(msgspec.json.encode(events), type=list[event_struct(kind)])  # type: ignore[misc]
    results = [
        render(decoded, Stamps(ORGANIZATION_ID, RECEIVED_AT, RECEIVED_AT, RECEIVED_AT, str), refuse)
        for render in renderers
    ]
    assert results[0] == results[1]


def refuse(index: int, field: str, reason: str) -> None:
    raise AssertionError(f"{index}: {field}: {reason}")


@pytest.fixture(scope="module")
def renderers(everything: Catalog) -> tuple[Renderer, Renderer]:
    kind = everything.event_types["everything"]
    return renderer(kind, escaping=False), renderer(kind, escaping=True)


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
WILD_EVENTS = st.fixed_dictionaries(
    {CLASS_KEY: ANY_TEXT, "whole": st.integers(-5, 10), "flag": st.booleans()},
    optional={"line": ANY_TEXT, "data": st.dictionaries(ANY_TEXT, ANY_TEXT), "id": ANY_TEXT, "source": ANY_TEXT,
              "import": st.sampled_from(["on", "of\tf", "o\\ff"])},
)  # fmt: skip


@given(st.lists(WILD_EVENTS, min_size=1, max_size=8), st.booleans())
def test_every_accepted_batch_has_whole_lines_in_the_sizes_its_header_says(
    collector: Collector, events: list[Any], ascii_only: bool
) -> None:
    """Spelt with escapes or without, what is journalled can be cut into lines, columns and keys."""
    body = json.dumps({"everything": events}, ensure_ascii=ascii_only).encode()
    admission = collector.admit_batch(ORGANIZATION_ID, body)
    assert admission.accepted == len(events)
    header, blocks = decode_batch(admission.payload)
    assert header.organization_id == ORGANIZATION_ID
    assert sum(section.rows for section in header.sections) == len(events)
    ids = []
    for section, block in zip(header.sections, blocks, strict=True):
        lines = block.splitlines(keepends=True)
        assert len(lines) == section.rows
        for line in lines:
            assert line.count(b"\t") == len(section.columns) - 1
            assert line[ORGANIZATION].decode() == ORGANIZATION_ID
            assert line[TIME].decode() == RECEIVED_AT
            assert line[MINUTE_KEY].decode() == f"{ORGANIZATION_ID}\t2025-09-05T10:00"
            assert line[KEY] + b"\t" == line[:102]
            ids.append(line[ID].decode())
    keyed = [event_uuid(event.get("source") or "", event["id"]) for event in events if "id" in event]
    assert ids[: len(keyed)] == keyed
    assert len(set(ids[len(keyed) :])) == len(events) - len(keyed)


@pytest.mark.parametrize("value", ["1e16", "1.7976931348623157e308", "-5e-324", "0.1", "-0.0", "100"])
def test_numbers_keep_every_bit(admit_one: Callable[..., Admission], value: str) -> None:
    event = {"user_id": "AAAAAAAA-0000-4000-8000-000000000001", "metric_type": "x", "metric_value": 0}
    body = msgspec.json.encode(event).replace(b'"metric_value":0', f'"metric_value":{value}'.encode())
    assert float(columns(admit_one(body, "productivity"))[9]) == float(value)


def test_a_decimal_may_be_sent_as_a_number_or_as_text(admit_one: Callable[..., Admission]) -> None:
    body = msgspec.json.encode({CLASS_KEY: "x", "whole": 1, "flag": True, "price": 0})
    for spelling in (b"12.50", b'"12.50"', b"1250e-2"):
        line = columns(admit_one(body.replace(b'"price":0', b'"price":' + spelling), "everything"))
        assert Decimal(line[12]) == Decimal("12.50")
