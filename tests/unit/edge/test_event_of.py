"""What becomes of an entry on its way to the server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.collect.validator import ID_LENGTH_MAX
from totalizer.edge import event_of as module
from totalizer.edge.event_of import EVENT_TYPE, encode_event, event_of

ENTRY = {"id": "e1", "userId": "u", "action": "a", "timestamp": 1_757_066_400_000}


def test_an_entry_without_metadata_is_its_event() -> None:
    assert event_of(ENTRY) == ENTRY
    assert event_of({**ENTRY, "metadata": None}) == ENTRY


def test_what_the_metadata_says_of_the_session_is_lifted_and_kept() -> None:
    metadata = {"sessionId": "s", "taskId": "t", "duration": 1_800_000, "file": "x.py"}
    event = event_of({**ENTRY, "metadata": metadata})
    assert event == {
        **ENTRY, "metadata": metadata, "sessionId": "s", "taskId": "t", "duration": 1_800_000,
    }  # fmt: skip
    assert metadata == {"sessionId": "s", "taskId": "t", "duration": 1_800_000, "file": "x.py"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"sessionId": 5}, {"sessionId": None}, {"sessionId": "s" * 256}, {"taskId": ["t"]}, {"taskId": "a\0b"},
        {"duration": True}, {"duration": 1.5}, {"duration": -1}, {"duration": "5"}, {"duration": 31_536_000_001},
        {"duration": None}, {"Duration": 5}, {"nested": {"duration": 5}},
    ],
)  # fmt: skip
def test_what_does_not_fit_stays_in_the_metadata_alone(metadata: dict[str, Any]) -> None:
    assert event_of({**ENTRY, "metadata": metadata}) == {**ENTRY, "metadata": metadata}


def test_what_stands_outside_the_metadata_wins() -> None:
    assert event_of({**ENTRY, "duration": 1, "metadata": {"duration": 2}})["duration"] == 1


def test_the_limits_are_the_catalogs(catalog: Catalog) -> None:
    fields = {field.key: field for field in catalog.event_types[EVENT_TYPE].fields}
    assert fields["sessionId"].length_max == fields["taskId"].length_max == module.TEXT_LENGTH_MAX
    assert fields["duration"].maximum == module.DURATION_MS_MAX
    assert module.TEXT_LENGTH_MAX <= ID_LENGTH_MAX


@pytest.mark.parametrize(
    "metadata",
    [
        {"sessionId": "", "taskId": "t" * 255, "duration": 0},
        {"sessionId": "é\t\"\\\n", "duration": 31_536_000_000},
        {"sessionId": 5, "duration": "x", "taskId": "a" * 256},
    ],
)  # fmt: skip
def test_the_server_takes_what_is_made(catalog: Catalog, metadata: dict[str, Any]) -> None:
    body = b'{"%s":[%s]}' % (EVENT_TYPE.encode(), encode_event({**ENTRY, "metadata": metadata}))
    collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=10)
    admission = collector.admit_batch("00000000-0000-4000-8000-000000000001", body)
    assert (admission.accepted, admission.items) == (1, [])


@pytest.mark.parametrize("value", ["\ud800", object(), {5: {}, (1, 2): 3}, {"a": {1j}}])
def test_what_json_cannot_say_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="written as JSON"):
        encode_event({**ENTRY, "metadata": {"x": value}})


def test_a_metadata_without_end_is_a_value_error() -> None:
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    with pytest.raises(ValueError, match="written as JSON"):
        encode_event({**ENTRY, "metadata": metadata})


def test_numbers_keep_their_digits() -> None:
    sent = msgspec.json.decode(encode_event({**ENTRY, "metadata": {"big": 2**63 - 1, "part": 0.1}}))
    assert sent["metadata"] == {"big": 2**63 - 1, "part": 0.1}
