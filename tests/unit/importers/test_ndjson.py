"""JSON lines: type, identity, and values exactly as written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from totalizer.ops.importers.ndjson import NdjsonSource
from totalizer.ops.importers.source import Broken, Event, Line


@pytest.fixture
def file(tmp_path: Path) -> Any:
    path = tmp_path / "events.ndjson.1"
    path.touch()
    return str(path)


def read(source: Any, text: str | bytes, number: Any = 1) -> Any:
    event = source.read(Line(number, text if isinstance(text, bytes) else text.encode()))
    return event if isinstance(event, Broken) else (event.event_type, json.loads(msgspec.json.encode(event.fields)))


@pytest.mark.parametrize("member", ["event_type", "type"])
def test_a_line_names_its_type(file: str, member: Any) -> None:
    event_type, fields = read(NdjsonSource(file), f'{{"{member}": "usage", "id": "1", "n": 2}}')

    assert event_type == "usage"
    assert fields == {"id": "1", "n": 2, "source": "events.ndjson"}


def test_event_type_goes_before_type_which_stays_a_field(file: str) -> None:
    assert read(NdjsonSource(file), '{"event_type": "a", "type": "b", "id": "1"}') == (
        "a", {"type": "b", "id": "1", "source": "events.ndjson"},
    )  # fmt: skip


def test_a_given_type_leaves_the_members_alone(file: str) -> None:
    event_type, fields = read(NdjsonSource(file, "usage"), '{"type": "b", "event_type": "usage", "id": "1"}')

    assert (event_type, fields) == ("usage", {"type": "b", "id": "1", "source": "events.ndjson"})


def test_numbers_keep_their_digits(file: str) -> None:
    line = b'{"event_type":"usage","id":7,"cost":0.10,"big":123456789012345678901234567890,"deep":{"x":[1.00]}}'
    event = NdjsonSource(file).read(Line(1, line))
    assert isinstance(event, Event)

    encoded = msgspec.json.encode(event.fields)
    assert b'"cost":0.10' in encoded
    assert b"123456789012345678901234567890" in encoded
    assert b'{"x":[1.00]}' in encoded
    assert b'"id":"7"' in encoded


def test_an_event_without_id_gets_one_from_source_number_and_bytes(file: str, tmp_path: Path) -> None:
    def id_of(source: Any, text='{"n":1}', number: Any = 1) -> Any:
        return read(source, text, number)[1]["id"]

    source = NdjsonSource(file, "usage")
    rotated = tmp_path / "events.ndjson.2"
    rotated.touch()

    assert id_of(source) == id_of(NdjsonSource(str(rotated), "usage"))
    others = {
        id_of(source), id_of(source, number=2), id_of(source, '{"n":2}'), id_of(NdjsonSource(file, "usage", "other")),
    }  # fmt: skip
    assert len(others) == 4
    assert id_of(source, '{"n":1,"id":null}') != id_of(source)


def test_a_source_in_the_line_is_kept(file: str) -> None:
    assert read(NdjsonSource(file, "usage", "given"), '{"id":"1","source":"own"}')[1]["source"] == "own"


def test_an_empty_source_sends_none(file: str) -> None:
    assert "source" not in read(NdjsonSource(file, "usage", ""), '{"id":"1"}')[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "no usable JSON object"),
        (b'{"event_type":"a","x":"\xff"}', "not UTF-8"),
        (b'{"event_type":"a","x":1e999}', "out of range"),
        (b'{"event_type":"a","x":NaN}', "not JSON"),
        (b'{"event_type":"a","x":"\\ud800"}', "not JSON"),
        (b'{"x":1}', "--event-type"),
        (b'{"event_type":5.5}', "--event-type"),
        (b'{"event_type":""}', "--event-type"),
        (b'{"event_type":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_is_no_event_is_told_why(file: str, text: bytes, reason: str) -> None:
    assert reason in read(NdjsonSource(file), text).reason
