"""Ids of events, and batches as they stand in the journal."""

from __future__ import annotations

import itertools
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.event import (
    BatchHeader,
    Section,
    SingleEventEncoder,
    decode_batch,
    encode_batch,
    event_uuid,
    is_canonical_uuid,
    new_event_ids,
)

ORGANIZATION = "00000000-0000-4000-8000-000000000001"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(TEXTS, TEXTS)
def test_a_senders_id_becomes_one_uuid_of_version_8(source: str, event_id: str) -> None:
    stored = event_uuid(source, event_id)
    assert is_canonical_uuid(stored)
    assert stored == event_uuid(source, event_id)
    if stored != event_id.lower():
        assert (uuid.UUID(stored).version, uuid.UUID(stored).variant) == (8, uuid.RFC_4122)


def test_stored_ids_never_change_between_releases() -> None:
    """Literals: a resend after an upgrade must find what an earlier release has stored."""
    assert event_uuid("", "order-1") == "96e62876-02f4-82e9-b549-a88d0490e43a"
    assert event_uuid("shop", "order-1") == "0770e96c-bf4d-8d08-9f07-58b88335c7c8"


def test_the_source_separates_equal_ids() -> None:
    ids = {event_uuid(source, event_id) for source in ("", "a", "ab", "b") for event_id in ("", "b", "1", "b1")}
    assert len(ids) == 16


@given(st.uuids(), st.sampled_from([str.upper, str.lower, str.title]))
def test_a_uuid_without_source_is_kept_in_lower_case(number: uuid.UUID, spell: type) -> None:
    assert event_uuid("", spell(str(number))) == str(number)


def test_a_uuid_with_a_source_is_hashed_like_any_other_id() -> None:
    number = str(uuid.uuid4())
    assert event_uuid("shop", number) != number
    assert event_uuid("shop", number) != event_uuid("other", number)


@pytest.mark.parametrize(
    "text",
    ["", "x" * 36, "{12345678-1234-1234-1234-123456789abc}", "12345678123412341234123456789abc", "1" * 36, "١" * 36],
)
def test_what_only_resembles_a_uuid_is_hashed(text: str) -> None:
    assert event_uuid("", text) != text
    assert not is_canonical_uuid(text)
    assert not is_canonical_uuid(str(uuid.uuid4()).upper())
    assert not is_canonical_uuid(f"{uuid.uuid4()}\n")


@given(st.integers(min_value=0, max_value=253_402_300_799_999_999_999))
def test_new_ids_are_of_version_7_increasing_and_carry_their_time(now_ns: int) -> None:
    ids = list(itertools.islice(new_event_ids(now_ns), 1000))
    assert ids == sorted(set(ids))
    for text in (ids[0], ids[-1]):
        number = uuid.UUID(text)
        assert str(number) == text
        assert (number.version, number.variant) == (7, uuid.RFC_4122)
        assert number.int >> 80 == now_ns // 1_000_000


def test_counting_up_carries_from_the_low_part_into_the_high_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random bits end in 62 ones: the next id must be greater, and still of version 7."""
    low_full = (5 << 62 | (1 << 62) - 1) << 7
    monkeypatch.setattr("os.urandom", lambda size: low_full.to_bytes(size, "big"))
    first, second = itertools.islice(new_event_ids(1_000_000), 2)
    assert first < second
    assert (uuid.UUID(second).version, uuid.UUID(second).variant) == (7, uuid.RFC_4122)


def test_ids_of_two_requests_in_one_millisecond_differ() -> None:
    assert next(new_event_ids(1)) != next(new_event_ids(1))


def section(lines: list[bytes], name: str = "commits", *, keyed: bool = False) -> Section:
    return Section(name, ("organization_id", "committed_at", "id"), keyed, len(lines), len(b"".join(lines)))


@given(
    st.lists(
        st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"") + b"\n"), min_size=1, max_size=5)
    )
)
def test_what_is_encoded_is_decoded(blocks: list[list[bytes]]) -> None:
    sections = tuple(section(lines, f"type_{number}", keyed=number % 2 == 0) for number, lines in enumerate(blocks))
    header = BatchHeader(ORGANIZATION, "2025-09-05T10:00:00.000000Z", sections)
    payload = encode_batch(header, b"".join(b"".join(lines) for lines in blocks))
    assert decode_batch(payload) == (header, [b"".join(lines) for lines in blocks])


HEADER = BatchHeader(ORGANIZATION, "2025-09-05T10:00:00.000000Z", (section([b"one\n", b"two\n"]),))
PAYLOAD = encode_batch(HEADER, b"one\ntwo\n")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"\n",
        b"{}\n",
        b"[]\none\n",
        b"\xff\n",
        PAYLOAD[:-1],
        PAYLOAD + b"\n",
        PAYLOAD[1:],
        PAYLOAD.replace(b'"size":8', b'"size":-8'),
        PAYLOAD.replace(b'"size":8', b'"size":"8"'),
        PAYLOAD.replace(b'"rows":2', b'"rows":3'),
        PAYLOAD.replace(b'"rows":2', b'"rows":1'),
        PAYLOAD.replace(b"two\n", b"two "),
        encode_batch(
            BatchHeader(ORGANIZATION, "", (section([b"a\n"] * 9), Section("commits", (), False, 0, -2))), b"a\n" * 8
        ),
    ],
)
def test_a_damaged_payload_raises_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's message or ours
        decode_batch(payload)


def test_every_cut_of_a_payload_is_refused() -> None:
    for length in range(len(PAYLOAD)):
        with pytest.raises(ValueError):  # noqa: PT011 - msgspec's message or ours
            decode_batch(PAYLOAD[:length])


def test_the_header_reads_what_an_older_release_wrote() -> None:
    """Journals outlive an upgrade, so the names of the header's members are a format."""
    old = (
        b'{"organization_id":"o","received_at":"t","sections":'
        b'[{"event_type":"e","columns":["a"],"keyed":true,"rows":1,"size":2}]}\nx\n'
    )
    header, blocks = decode_batch(old)
    assert header == BatchHeader("o", "t", (Section("e", ("a",), True, 1, 2),))
    assert blocks == [b"x\n"]
    assert msgspec.json.encode(header) == old.partition(b"\n")[0]


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("line", ["x\tü\n", "\\N\n", "plain\n"])
def test_a_single_event_is_encoded_as_a_batch_of_one(line: str, keyed: bool) -> None:
    columns = ("organization_id", "at", "id", "number_0")
    single = SingleEventEncoder("type_0", columns, keyed=keyed).encode("o-0", "2025-01-01", line)
    section = Section("type_0", columns, keyed, 1, len(line.encode()))
    assert single == encode_batch(BatchHeader("o-0", "2025-01-01", (section,)), line.encode())
