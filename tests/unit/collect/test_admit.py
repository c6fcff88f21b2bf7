"""From a request's body to a batch, and an answer for every event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.collect import Admission, Collector
from totalizer.errors import Refusal, Refused
from totalizer.event import decode_batch

ORGANIZATION_ID = "00000000-0000-4000-8000-000000000001"
USER = "AAAAAAAA-0000-4000-8000-000000000001"
COMMAND = {"user_id": USER, "command_name": "build", "execution_time_ms": 5, "status": "success"}
ENTRY = {"userId": "u", "action": "edit"}
AdmitOne = Callable[..., Admission]
AdmitBatch = Callable[[Any], Admission]


def refusal_of(admit: Callable[..., Admission], *arguments: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        admit(*arguments)
    return caught.value


def items(admission: Admission) -> list[tuple[str, int, str, str]]:
    return [(item.event_type, item.index, item.code, item.message) for item in admission.items]


def test_one_good_event(admit_one: AdmitOne) -> None:
    admission = admit_one(COMMAND)
    header, [block] = decode_batch(admission.payload)
    assert header.sections[0].event_type == "command_executions"
    assert admission.event_id is not None
    assert block[65:101].decode() == admission.event_id


def test_every_event_type_has_its_route(collector: Collector) -> None:
    assert {event_type.route for event_type in collector.event_types} == {
        "activity", "agents", "commands", "commits", "credits", "entries", "events", "everything", "executions",
        "productivity", "requests", "sessions", "tracks", "usage",
    }  # fmt: skip


# Field, wrong value, the whole message.
WRONG_FIELDS = [
    ("user_id", "x", "user_id: must be a UUID, not 'x'"),
    ("user_id", 5, "user_id: must be a UUID, not 5"),
    ("user_id", None, "user_id: must be a UUID, not null"),
    ("user_id", f"{USER}\n", f"user_id: must be a UUID, not '{USER}\\n'"),
    ("user_id", f"{{{USER}}}", f"user_id: must be a UUID, not '{{{USER}}}'"),
    ("team_id", [], "team_id: must be a UUID, not []"),
    ("status", "bad", "status: must be one of success, error, timeout, cancelled, not 'bad'"),
    ("status", 1, "status: must be one of success, error, timeout, cancelled, not 1"),
    ("execution_time_ms", -1, "execution_time_ms: must be a whole number from 0 to 3600000, not -1"),
    ("execution_time_ms", 3_600_001, "execution_time_ms: must be a whole number from 0 to 3600000, not 3600001"),
    ("execution_time_ms", 1.5, "execution_time_ms: must be a whole number from 0 to 3600000, not 1.5"),
    ("execution_time_ms", True, "execution_time_ms: must be a whole number from 0 to 3600000, not true"),
    ("execution_time_ms", "5", "execution_time_ms: must be a whole number from 0 to 3600000, not '5'"),
    ("command_name", "", "command_name: must be a text of 1 to 255 characters, not ''"),
    ("command_name", "x" * 256, f"command_name: must be a text of 1 to 255 characters, not '{'x' * 79}…"),
    ("error_message", 1, "error_message: must be a text of at most 2000 characters, not 1"),
    ("context", [1], "context: must be a JSON object, not [1]"),
    ("context", "{}", "context: must be a JSON object, not '{}'"),
    ("command_name", "a\0", "command_name: holds the character NUL (\\u0000), which cannot be stored"),
    ("context", {"a": "\0"}, "context: holds the character NUL (\\u0000), which cannot be stored"),
    ("executed_at", 1.5, "executed_at: must be an RFC 3339 time or whole milliseconds since 1970, not 1.5"),
    ("executed_at", True, "executed_at: must be an RFC 3339 time or whole milliseconds since 1970, not true"),
    ("id", "", "id: must be a text of 1 to 255 characters, not ''"),
    ("id", 7, "id: must be a text of 1 to 255 characters, not 7"),
    ("source", "x" * 256, f"source: must be a text of at most 255 characters, not '{'x' * 79}…"),
    ("colour", "red", "colour: unknown field; command_executions has id, source, executed_at, user_id, team_id, "
     "project_id, command_name, execution_time_ms, status, error_message, context"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "message"), WRONG_FIELDS)
def test_a_wrong_field_is_named_with_its_value_alone_and_in_a_batch(
    admit_one: AdmitOne, admit_batch: AdmitBatch, field: str, value: Any, message: str
) -> None:
    wrong = {**COMMAND, field: value}
    refused = refusal_of(admit_one, wrong)
    assert (refused.refusal, refused.detail) == (Refusal.INVALID_EVENT, message)
    admission = admit_batch({"command_executions": [COMMAND, wrong]})
    assert items(admission) == [("command_executions", 1, "invalid_event", message)]


# The same for the types of field that commands do not have.
WRONG_OTHERS = [
    ("whole", -6, "whole: must be a whole number of at least -5, not -6"),
    ("wide", 2**63, f"wide: must be a whole number of at most 64 bits, not {2**63}"),
    ("part", 100.5, "part: must be a number of at most 100, not 100.5"),
    ("part", "1", "part: must be a number of at most 100, not '1'"),
    ("price", "much", "price: must be a decimal number from 0 to 1000, not 'much'"),
    ("price", True, "price: must be a decimal number from 0 to 1000, not true"),
    ("price", "1000.01", "price: 1000.01 is above 1000"),
    ("price", "NaN", "price: NaN is not a number"),
    ("flag", 1, "flag: must be true or false, not 1"),
    ("flag", "true", "flag: must be true or false, not 'true'"),
    ("it's {a} key", 1, "it's {a} key: must be a text of 1 to 20 characters, not 1"),
    ("when it's {now}", [], "when it's {now}: must be an RFC 3339 time or whole milliseconds since 1970, not []"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "message"), WRONG_OTHERS)
def test_every_type_of_field_says_what_it_must_be(admit_one: AdmitOne, field: str, value: Any, message: str) -> None:
    refused = refusal_of(admit_one, {"it's {a} key": "x", "whole": 1, "flag": True, field: value}, "everything")
    assert (refused.refusal, refused.detail) == (Refusal.INVALID_EVENT, message)


@pytest.mark.parametrize("field", ["user_id", "command_name", "execution_time_ms", "status"])
def test_a_missing_field_is_named_with_what_it_must_be(admit_one: AdmitOne, field: str) -> None:
    event = {key: value for key, value in COMMAND.items() if key != field}
    assert refusal_of(admit_one, event).detail.startswith(f"{field}: is missing; it must be ")


@pytest.mark.parametrize("time", ["yesterday", "2025-09-05T10:00:00", 1_757_066_400, "2030-01-01T00:00:00Z"])
def test_a_wrong_time_has_its_own_code(admit_one: AdmitOne, admit_batch: AdmitBatch, time: Any) -> None:
    wrong = {**COMMAND, "executed_at": time}
    refused = refusal_of(admit_one, wrong)
    assert refused.refusal is Refusal.INVALID_TIME
    assert refused.detail.startswith(f"executed_at: {time!r} ")
    [(_, index, code, message)] = items(admit_batch({"command_executions": [COMMAND, wrong]}))
    assert (index, code, message) == (1, "invalid_time", refused.detail)


def test_a_sender_may_be_five_minutes_ahead(admit_one: AdmitOne) -> None:
    admit_one({**COMMAND, "executed_at": "2025-09-05T10:05:00.123456Z"})
    assert "in the future" in refusal_of(admit_one, {**COMMAND, "executed_at": "2025-09-05T10:05:00.123457Z"}).detail


def test_a_batch_of_several_types(admit_batch: AdmitBatch) -> None:
    admission = admit_batch({"command_executions": [COMMAND, {**COMMAND, "id": "1"}], "time_entries": [ENTRY]})
    assert (admission.accepted, admission.items) == (3, [])
    header, _ = decode_batch(admission.payload)
    assert {(section.event_type, section.keyed, section.rows) for section in header.sections} == {
        ("command_executions", True, 1), ("command_executions", False, 1), ("time_entries", False, 1),
    }  # fmt: skip


WAYS_TO_BE_WRONG: list[tuple[Any, str]] = [
    ({**COMMAND, "user_id": "x"}, "invalid_event"),
    ({**COMMAND, "executed_at": "yesterday"}, "invalid_time"),
    ({**COMMAND, "error_message": "\0"}, "invalid_event"),
    ({}, "invalid_event"),
    (7, "invalid_event"),
    (None, "invalid_event"),
    ([], "invalid_event"),
]


@given(st.lists(st.none() | st.integers(0, len(WAYS_TO_BE_WRONG) - 1), min_size=1, max_size=20))
def test_each_wrong_event_is_answered_at_its_own_index(collector: Collector, ways: list[int | None]) -> None:
    """Good and bad ones mixed: those that do not decode, and those that cannot be rendered."""
    events = [
        {**COMMAND, "id": f"{index}"} if way is None else WAYS_TO_BE_WRONG[way][0] for index, way in enumerate(ways)
    ]
    expected = [(index, WAYS_TO_BE_WRONG[way][1]) for index, way in enumerate(ways) if way is not None]
    body = msgspec.json.encode({"command_executions": events, "time_entries": [ENTRY]})
    admission = collector.admit_batch(ORGANIZATION_ID, body)
    assert [(index, code) for _, index, code, _ in items(admission)] == expected
    assert admission.accepted == len(events) - len(expected) + 1
    header, blocks = decode_batch(admission.payload)
    kept = [index for index, way in enumerate(ways) if way is None]
    if kept:
        assert header.sections[0].rows == len(kept)
        assert [int(line.split(b"\t")[4]) for line in blocks[0].splitlines()] == kept


def test_an_unknown_event_type_is_answered_for_each_of_its_events(admit_batch: AdmitBatch) -> None:
    admission = admit_batch({"purchases": [{}, {}], "command_executions": [COMMAND]})
    assert admission.accepted == 1
    assert [item[:3] for item in items(admission)] == [
        ("purchases", 0, "unknown_event_type"), ("purchases", 1, "unknown_event_type"),
    ]  # fmt: skip
    assert "purchases: unknown event type; use one of commits, command_executions, " in admission.items[0].message


def test_a_batch_of_nothing_but_bad_events_is_refused_with_every_answer(admit_batch: AdmitBatch) -> None:
    refused = refusal_of(admit_batch, {"command_executions": [{**COMMAND, "status": "x"}, {}], "nothing": [1]})
    assert refused.refusal is Refusal.INVALID_EVENT
    assert refused.status == 422
    assert (refused.extra["accepted"], refused.extra["rejected"]) == (0, 3)
    assert [(item["event_type"], item["index"]) for item in refused.extra["items"]] == [
        ("command_executions", 0), ("command_executions", 1), ("nothing", 0),
    ]  # fmt: skip
    assert "none of the 3 events can be accepted; the first: status: must be one of" in refused.detail


@pytest.mark.parametrize("batch", [{}, {"timestamp": None}, {"command_executions": []}, {"nothing": []}])
def test_a_batch_without_events_is_refused(admit_batch: AdmitBatch, batch: Any) -> None:
    assert refusal_of(admit_batch, batch).refusal is Refusal.BATCH_EMPTY


@pytest.mark.parametrize("wrong", [[], [{}], ["x"]])
def test_the_most_events_of_a_batch(admit_batch: AdmitBatch, wrong: list[Any]) -> None:
    """The same whether all are good, so that they are decoded at once, or not."""
    assert admit_batch({"command_executions": [COMMAND] * (100 - len(wrong)) + wrong}).accepted == 100 - len(wrong)
    refused = refusal_of(
        admit_batch, {"command_executions": [COMMAND] * (100 - len(wrong)) + wrong, "time_entries": [ENTRY]}
    )
    assert refused.refusal is Refusal.BATCH_TOO_LARGE
    assert refused.detail == "101 events in one batch; send at most 100"


@pytest.mark.parametrize(
    ("timestamp", "time"),
    [
        ("2025-09-05T08:00:00Z", "2025-09-05T08:00:00.000000Z"),
        ("2025-09-05T10:00:00+02:00", "2025-09-05T08:00:00.000000Z"),
        (1_757_059_200_000, "2025-09-05T08:00:00.000000Z"),
        (None, "2025-09-05T10:00:00.123456Z"),
    ],
)
@pytest.mark.parametrize("others", [[], [{}]])
def test_the_batchs_time_is_that_of_events_without_one(
    admit_batch: AdmitBatch, timestamp: Any, time: str, others: list[Any]
) -> None:
    own = {**ENTRY, "timestamp": "2025-09-01T00:00:00Z"}
    admission = admit_batch({"timestamp": timestamp, "time_entries": [ENTRY, own, *others]})
    lines = b"".join(admission.blocks).decode().splitlines()
    assert [line[37:64] for line in lines] == [time, "2025-09-01T00:00:00.000000Z"]


@pytest.mark.parametrize("timestamp", ["yesterday", "2030-01-01T00:00:00Z", 5, 1.5, True, [], {}, "", 10**400])
@pytest.mark.parametrize("others", [[], [{}]])
def test_a_wrong_time_of_a_batch_refuses_it(admit_batch: AdmitBatch, timestamp: Any, others: list[Any]) -> None:
    body = msgspec.json.encode({"timestamp": 0, "time_entries": [ENTRY, *others]})
    refused = refusal_of(admit_batch, body.replace(b":0", b":" + json_of(timestamp)))
    assert refused.refusal is Refusal.INVALID_TIME
    assert refused.detail.startswith("timestamp: ")
    assert len(refused.detail) < 300


def json_of(value: Any) -> bytes:
    return str(value).encode() if isinstance(value, int) and value > 2**64 else msgspec.json.encode(value)
