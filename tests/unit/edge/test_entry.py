"""Entries on their way in: what is taken, what is refused and how, and that a server takes what is taken here."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import Catalog
from totalizer.collect import Collector
from totalizer.collect.sanitise import DANGEROUS_KEYS as SERVERS_DANGEROUS_KEYS
from totalizer.collect.sanitise import JSON_DEPTH_MAX
from totalizer.collect.times import FUTURE_TOLERANCE
from totalizer.collect.times import MILLISECONDS_MIN as SERVERS_MILLISECONDS_MIN
from totalizer.collect.validator import ID_LENGTH_MAX
from totalizer.edge import ValidationError, validate_entry
from totalizer.edge import entry as limits
from totalizer.edge.entry import EntryEncoder
from totalizer.edge.event_of import event_of
from unit.edge.parts import MONDAY_NS, SetClock, entry

NOW_MS = MONDAY_NS // 1_000_000
CLOCK = SetClock()


def encoded(value: Any, **options: Any) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(EntryEncoder(clock=CLOCK, **options).encode(value))
    return document


def refusal(value: Any, **options: Any) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        encoded(value, **options)
    return refused.value


def test_an_entry_is_kept_as_it_is_and_gets_an_id() -> None:
    given_entry = entry(7, metadata={"a": [1, 2.5, None, True, {"b": "ü"}], "": -1})
    result = encoded(given_entry)
    assert uuid.UUID(result.pop("id")).version == 7
    assert result == given_entry
    assert "id" not in given_entry


def test_an_id_of_the_callers_is_kept() -> None:
    assert encoded(entry(id="order 17"))["id"] == "order 17"


def test_ids_are_all_different() -> None:
    encoder = EntryEncoder(clock=CLOCK)
    ids = {msgspec.json.decode(encoder.encode(entry()))["id"] for _ in range(2000)}
    ids |= {encoded(entry())["id"] for _ in range(200)}
    assert len(ids) == 2200


def test_metadata_may_be_left_out_or_none() -> None:
    bare = {"userId": "u", "action": "a", "timestamp": NOW_MS}
    assert "metadata" not in encoded(bare)
    assert "metadata" not in encoded(bare | {"metadata": None})
    assert encoded(bare | {"metadata": {}})["metadata"] == {}


def test_mappings_and_tuples_are_taken_for_objects_and_arrays() -> None:
    result = encoded(OrderedDict(entry(metadata=OrderedDict(a=(1, (2,))))))
    assert result["metadata"] == {"a": [1, [2]]}


def test_a_whole_float_is_taken_for_a_timestamp() -> None:
    assert encoded(entry(timestamp=float(NOW_MS)))["timestamp"] == NOW_MS
    assert isinstance(encoded(entry(timestamp=float(NOW_MS)))["timestamp"], int)


WRONG: list[tuple[Any, str, str]] = [
    (None, "", "must be a mapping"),
    ([], "", "must be a mapping"),
    ({}, "userId", "is missing"),
    (entry(userId=""), "userId", "has 0 characters"),
    (entry(userId="x" * 256), "userId", "has 256 characters; 1 to 255"),
    (entry(userId=None), "userId", "None is not a text"),
    (entry(userId=7), "userId", "7 is a int, not a text"),
    (entry(action=b"x"), "action", "is a bytes, not a text"),
    (entry(action=""), "action", "has 0 characters"),
    (entry(id=""), "id", "has 0 characters"),
    (entry(id="x" * 256), "id", "has 256 characters"),
    (entry(id=7), "id", "7 is a int"),
    (entry(timestamp=None), "timestamp", "None is not a whole number"),
    (entry(timestamp=True), "timestamp", "True is not a whole number"),
    (entry(timestamp="1757000000000"), "timestamp", "is not a whole number"),
    (entry(timestamp=NOW_MS + 0.5), "timestamp", "is not a whole number"),
    (entry(timestamp=float("nan")), "timestamp", "nan is not a whole number"),
    (entry(timestamp=float("inf")), "timestamp", "inf is not a whole number"),
    (entry(timestamp=NOW_MS // 1000), "timestamp", "looks like seconds"),
    (entry(timestamp=-1), "timestamp", "is negative"),
    (entry(timestamp=NOW_MS + 300_001), "timestamp", "more than five minutes in the future"),
    (entry(timestamp=10**400), "timestamp", "a number without end"),
    (entry(user="x"), "user", "unknown member"),
    (entry(metadata=[]), "metadata", "is a list, not an object"),
    (entry(metadata="x"), "metadata", "is a str, not an object"),
    (entry(metadata={"a": float("nan")}), "metadata.a", "nan is not a number that JSON has"),
    (entry(metadata={"a": {"b": [1, float("inf")]}}), "metadata.a.b[1]", "inf is not"),
    (entry(metadata={"a": 2**63}), "metadata.a", "does not fit 64 bits"),
    (entry(metadata={"a": -(2**63) - 1}), "metadata.a", "does not fit 64 bits"),
    (entry(metadata={"a": [10**5000]}), "metadata.a[0]", "a number without end does not fit"),
    (entry(metadata={"a": Decimal(1)}), "metadata.a", "is a Decimal, which JSON does not have"),
    (entry(metadata={"a": {1}}), "metadata.a", "is a set"),
    (entry(metadata={"a": b"x"}), "metadata.a", "is a bytes"),
    (entry(metadata={1: "x"}), "metadata", "the key 1 is a int, not text"),
    (entry(metadata={"a": {None: 1}}), "metadata", "the key None"),
    (entry(metadata={"__proto__": 1}), "metadata.__proto__", "dangerous"),
    (entry(metadata={"a": [{"constructor": 1}]}), "metadata.constructor", "dangerous"),
    (entry(metadata={"prototype": {}}), "metadata.prototype", "dangerous"),
    (entry(userId="a\0b"), "userId", "NUL"),
    (entry(id="\0"), "id", "NUL"),
    (entry(metadata={"a": ["x", "\0"]}), "metadata.a[1]", "NUL"),
    (entry(metadata={"a\0": 1}), "metadata.a\\u0000", "NUL"),
    (entry(action="\ud800"), "action", "half of a surrogate pair"),
    (entry(metadata={"a": {"b": "\udfff"}}), "metadata.a.b", "half of a surrogate pair"),
    (entry(metadata={"\udfff": 1}), "metadata.\\udfff", "half of a surrogate pair"),
]


@pytest.mark.parametrize(("value", "field", "reason"), WRONG)
def test_what_is_refused_is_refused_with_its_field_and_reason(value: Any, field: str, reason: str) -> None:
    error = refusal(value)
    assert error.field == field
    assert reason in error.reason
    assert error.code == "VALIDATION_ERROR"
    assert error.name == "ValidationError"


@pytest.mark.parametrize("value", [value for value, _, _ in WRONG])
def test_a_refusal_is_short_whatever_was_sent_and_can_be_written(value: Any) -> None:
    assert len(str(refusal(value)).encode()) < 500


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert encoded(entry(metadata={"a": "\\u0000"}))["metadata"] == {"a": "\\u0000"}


def nested(depth: int, kind: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = kind(value)
    return value


@pytest.mark.parametrize("kind", [lambda value: {"a": value}, lambda value: [value]])
def test_metadata_may_be_as_deep_as_a_server_takes(kind: Callable[[Any], Any]) -> None:
    encoded(entry(metadata={"a": nested(limits.METADATA_DEPTH_MAX - 1, kind)}))
    error = refusal(entry(metadata={"a": nested(limits.METADATA_DEPTH_MAX, kind)}))
    assert "nested more than 32 deep" in error.reason
    assert "nested more than 32 deep" in refusal(entry(metadata={"a": nested(900, kind)})).reason


def test_an_entry_has_a_longest_length() -> None:
    fits = entry(id="x", metadata={"a": ""})
    size = len(EntryEncoder(clock=CLOCK).encode(fits))
    fits["metadata"]["a"] = "y" * (1000 - size)
    assert encoded(fits, entry_bytes_max=1000) == fits
    fits["metadata"]["a"] += "y"
    assert "takes 1001 bytes as JSON, at most 1000" in refusal(fits, entry_bytes_max=1000).reason


def test_secrets_are_blacked_out_wherever_they_are() -> None:
    secret = {
        "password": "x", "dbPassword": "x", "X-Api-Key": "x", "api_key": {"a": 1}, "accessToken": "x", "TOKEN": 5,
        "Authorization": "Bearer x", "nested": [{"client_secret": "x", "fine": 1}],
    }  # fmt: skip
    given_entry = entry(metadata=secret)
    assert encoded(given_entry)["metadata"] == {
        **dict.fromkeys(list(secret)[:-1], "[redacted]"), "nested": [{"client_secret": "[redacted]", "fine": 1}]
    }  # fmt: skip
    assert given_entry["metadata"]["password"] == "x"


def test_keys_that_only_sound_like_secrets_are_left() -> None:
    harmless = {"tokens": 5, "token_count": 7, "secretary": "Ann", "passwordless": True, "author": "x"}
    assert encoded(entry(metadata=harmless))["metadata"] == harmless


def test_which_keys_are_secret_can_be_said() -> None:
    metadata = {"password": "x", "socialSecurityNumber": "x"}
    assert encoded(entry(metadata=metadata), redact_keys=())["metadata"] == metadata
    own = encoded(entry(metadata=metadata), redact_keys=("social_security_number",))["metadata"]
    assert own == {"password": "x", "socialSecurityNumber": "[redacted]"}


def test_more_different_keys_than_are_remembered_go_through() -> None:
    encoder = EntryEncoder(clock=CLOCK)
    for number in range(5000):
        encoder.encode(entry(metadata={f"key {number}": 1}))
    assert msgspec.json.decode(encoder.encode(entry(metadata={"password": 1, "x": 1})))["metadata"]["password"] != 1


def test_validate_entry_says_yes_or_why_not() -> None:
    assert validate_entry(entry(timestamp=NOW_MS), clock=CLOCK)
    with pytest.raises(ValidationError, match="timestamp"):
        validate_entry(entry(timestamp=5), clock=CLOCK)


def test_the_limits_are_the_servers() -> None:
    assert limits.METADATA_DEPTH_MAX == JSON_DEPTH_MAX
    assert limits.DANGEROUS_KEYS == SERVERS_DANGEROUS_KEYS
    assert limits.MILLISECONDS_MIN == SERVERS_MILLISECONDS_MIN
    assert limits.TEXT_LENGTH_MAX == ID_LENGTH_MAX
    assert FUTURE_TOLERANCE.total_seconds() * 1000 == limits.FUTURE_TOLERANCE_MS


TEXTS = st.text(max_size=260) | st.sampled_from(["sessionId", "taskId", "duration", "password", "\0", "\ud800", "\\"])
NUMBERS = st.integers() | st.integers(-(2**65), 2**65) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | TEXTS | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
METADATA = st.dictionaries(TEXTS, JSON, max_size=5)
ENTRIES = st.fixed_dictionaries(
    {"userId": TEXTS, "action": TEXTS, "timestamp": st.integers(NOW_MS - 10**9, NOW_MS + 400_000) | NUMBERS},
    optional={"id": TEXTS, "metadata": METADATA},
)


@given(ENTRIES)
def test_what_is_taken_here_is_taken_by_a_server(catalog: Catalog, value: dict[str, Any]) -> None:
    try:
        taken = encoded(value)
    except ValidationError:
        return
    collector = Collector(catalog, CLOCK, batch_events_max=10)
    body = msgspec.json.encode({"time_entries": [event_of(taken)]})
    admission = collector.admit_batch("00000000-0000-0000-0000-000000000001", body)
    assert (admission.accepted, admission.items) == (1, [])


@given(ENTRIES)
def test_the_short_way_and_the_long_way_agree(value: dict[str, Any]) -> None:
    """A mapping that is no dict goes the long way."""
    value = {"id": "x", **value}
    outcomes = []
    for each in (value, OrderedDict(value)):
        try:
            outcomes.append(encoded(each))
        except ValidationError as error:
            outcomes.append({"field": error.field})
    assert outcomes[0] == outcomes[1]
