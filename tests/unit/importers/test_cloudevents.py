"""CloudEvents: attributes become identity, type, time and subject."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from totalizer.catalog import load_catalog
from totalizer.ops.importers.cloudevents import CloudEventsSource
from totalizer.ops.importers.source import Broken, Line

CATALOG = load_catalog()
EVENT = {"specversion": "1.0", "type": "com.example.commits", "source": "/s", "id": "1", "data": {"repository": "r"}}
WIRED = """
[event_type.calls]
time = "called_at"
time_wire = "at"
subject = "user"
[event_type.calls.fields]
user = { type = "text", wire = "userId" }
"""


def read(event: Any, event_type: Any = None, catalog: Any = CATALOG) -> Any:
    source = CloudEventsSource("-", catalog, event_type)
    result = source.read(Line(1, json.dumps(event).encode()))
    return result if isinstance(result, Broken) else (result.event_type, json.loads(msgspec.json.encode(result.fields)))


@pytest.mark.parametrize("name", ["commits", "com.example.commits"])
def test_the_type_is_the_full_name_or_its_last_part(name: Any) -> None:
    assert read(EVENT | {"type": name}) == ("commits", {"repository": "r", "id": "1", "source": "/s"})


def test_an_event_of_an_undeclared_type_is_kept_as_it_is() -> None:
    event = EVENT | {"type": "com.example.unheard", "subject": "s", "tenant": "t", "data": [1, 0.10]}

    assert read(event) == ("events", {
        "type": "com.example.unheard", "id": "1", "source": "/s", "subject": "s", "data": {"value": [1, 0.10]},
        "extensions": {"tenant": "t"},
    })  # fmt: skip


def test_a_given_type_overrides() -> None:
    assert read(EVENT | {"type": "whatever"}, "http_requests")[0] == "http_requests"


def test_time_and_subject_fill_what_data_leaves_out() -> None:
    event = EVENT | {"time": "2025-01-01T00:00:00Z", "subject": "Ada"}

    assert read(event)[1] | {"committed_at": "2025-01-01T00:00:00Z", "author": "Ada"} == read(event)[1]
    own = {"committed_at": "2024-01-01T00:00:00Z", "author": "Bob"}
    assert read(event | {"data": own})[1] == own | {"id": "1", "source": "/s"}
    assert read(event | {"data": {"author": None}})[1]["author"] == "Ada"


def test_time_and_subject_go_to_the_keys_the_catalog_names(tmp_path: Path) -> None:
    file = tmp_path / "calls.toml"
    file.write_text(WIRED)
    event = {"specversion": "1.0", "type": "calls", "source": "/s", "id": "1", "time": "T", "subject": "u"}

    assert read(event, catalog=load_catalog([file])) == ("calls", {"at": "T", "userId": "u", "id": "1", "source": "/s"})


def test_data_in_base64_is_unpacked() -> None:
    event = {**EVENT, "data_base64": base64.b64encode(b'{"repository":"b"}').decode()}
    del event["data"]

    assert read(event)[1]["repository"] == "b"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"specversion": "0.3"}, "specversion is '0.3'"),
        ({"id": ""}, "'id' is missing"),
        ({"source": None}, "'source' is missing"),
        ({"data": "text"}, "data is not a JSON object"),
        ({"data": None, "data_base64": "%%"}, "not base64"),
    ],
)
def test_what_is_no_event_is_told_why(change: Any, reason: str) -> None:
    assert reason in read(EVENT | change).reason


@pytest.mark.parametrize("head", ["", "\n\n  ", "\ufeff"])
def test_lines_and_arrays_are_told_apart(tmp_path: Path, head: Any) -> None:
    lines, array = tmp_path / "lines", tmp_path / "array"
    lines.write_text(head + "".join(json.dumps(EVENT | {"id": str(n)}) + "\n" for n in range(3)))
    array.write_text(head + json.dumps([EVENT | {"id": str(n)} for n in range(3)], indent=2))

    for file, noun in ((lines, "line"), (array, "element")):
        source = CloudEventsSource(str(file), CATALOG)
        events = [source.read(line) for line in source.lines() if line is not None]
        assert [event.fields["id"] for event in events] == ["0", "1", "2"]
        assert source.noun == noun
