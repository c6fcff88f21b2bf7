"""Sorting journalled lines by where they go, and the buckets they make dirty."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from totalizer.event import BatchHeader, Section, encode_batch
from totalizer.load.gather import gather, marks_of
from totalizer.store.loading import Target
from totalizer.window import base_bucket

ORGANIZATIONS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
NAMES = {"sales": ("organization_id", "sold_at", "id", "shop"), "visits": ("organization_id", "came_at", "id")}
TARGETS = st.tuples(st.sampled_from(sorted(NAMES)), st.booleans())
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))


def line(organization: str, moment: datetime, number: int) -> bytes:
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)
    return f"{organization}\t{text}\t{number:08x}-0000-7000-8000-000000000000\tx\n".encode()


def batch(organization: str, sections: list[tuple[tuple[str, bool], list[bytes]]]) -> bytes:
    header = BatchHeader(
        organization,
        "2025-09-05T10:00:00.000000Z",
        tuple(Section(name, NAMES[name], keyed, len(lines), len(b"".join(lines))) for (name, keyed), lines in sections),
    )
    return encode_batch(header, b"".join(b"".join(lines) for _, lines in sections))


SECTIONS = st.lists(st.tuples(TARGETS, st.lists(MOMENTS, min_size=1, max_size=4)), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.sampled_from(ORGANIZATIONS), SECTIONS), max_size=5))
def test_every_line_goes_to_its_target_in_order_of_arrival(
    batches: list[tuple[str, list[tuple[tuple[str, bool], list[datetime]]]]],
) -> None:
    number, payloads, expected = 0, [], dict[Target, list[bytes]]()
    for organization, sections in batches:
        rendered = []
        for (name, keyed), moments in sections:
            lines = [line(organization, moment, number + index) for index, moment in enumerate(moments)]
            number += len(lines)
            rendered.append(((name, keyed), lines))
            expected.setdefault(Target(name, NAMES[name], keyed), []).extend(lines)
        payloads.append(batch(organization, rendered))
    gathered = gather(payloads, 10**6)
    assert gathered.lines == expected
    assert gathered.rows == number
    assert gathered.unreadable == []


def test_columns_that_have_grown_are_another_target() -> None:
    """A journal may hold batches from before and after a new field."""
    one = line(ORGANIZATIONS[0], datetime(2025, 9, 5, tzinfo=UTC), 1)
    payloads = [
        encode_batch(BatchHeader("o", "t", (Section("sales", columns, False, 1, len(one)),)), one)
        for columns in (("a", "b", "c"), ("a", "b", "c", "d"))
    ]
    assert [target.columns for target in gather(payloads, 10**6).lines] == [("a", "b", "c"), ("a", "b", "c", "d")]


def test_what_is_no_batch_is_kept_with_the_reason_and_the_rest_is_loaded() -> None:
    good = batch(ORGANIZATIONS[0], [(("sales", False), [line(ORGANIZATIONS[0], datetime(2025, 1, 1, tzinfo=UTC), 1)])])
    bad = [b"", b"no batch", b"\xff\xfe\n", good[:-1], b"{}\n"]
    gathered = gather([bad[0], good, *bad[1:], good], 10**6)
    assert [unreadable.payload for unreadable in gathered.unreadable] == bad
    assert all(unreadable.reason for unreadable in gathered.unreadable)
    assert gathered.rows == 2


@given(st.lists(st.tuples(st.sampled_from(ORGANIZATIONS), MOMENTS), max_size=20))
def test_the_marks_are_the_base_buckets_of_the_lines(events: list[tuple[str, datetime]]) -> None:
    target = Target("sales", NAMES["sales"], False)
    marks = marks_of(target, [line(organization, moment, 1) for organization, moment in events])
    expected = Counter((organization, base_bucket(moment)) for organization, moment in events)
    assert {(organization, datetime.fromisoformat(bucket)) for organization, _, bucket in marks} == set(expected)
    assert len(marks) == len(expected), "each bucket is marked once"
    assert {name for _, name, _ in marks} <= {"sales"}
