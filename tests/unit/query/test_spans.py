"""Spans as sets of minutes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from totalizer.query.spans import Span, merged, of_buckets, without
from totalizer.window import BASE

EPOCH = datetime(2025, 9, 5, tzinfo=UTC)
MINUTES = st.integers(0, 60)
SPANS = st.lists(st.tuples(MINUTES, MINUTES).map(lambda pair: span(*pair)), max_size=8)


def span(start: int, end: int) -> Span:
    return Span(EPOCH + timedelta(minutes=start), EPOCH + timedelta(minutes=end))


def minutes(spans: Iterable[Span]) -> set[int]:
    """The minutes that spans cover."""
    return {
        minute for start, end in spans
        for minute in range(*(int((moment - EPOCH) / timedelta(minutes=1)) for moment in (start, end)))
    }  # fmt: skip


def assert_tidy(spans: list[Span]) -> None:
    """Disjoint, in order, none empty."""
    assert all(span.start < span.end for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))


@given(SPANS)
def test_merged_covers_the_same_with_gaps_between(spans: list[Span]) -> None:
    result = merged(spans)
    assert minutes(result) == minutes(spans)
    assert_tidy(result)
    assert all(one.end < other.start for one, other in pairwise(result))


@given(SPANS.map(merged), SPANS.map(merged))
def test_without_is_the_difference(spans: list[Span], holes: list[Span]) -> None:
    result = without(spans, holes)
    assert minutes(result) == minutes(spans) - minutes(holes)
    assert_tidy(result)


@given(st.lists(st.integers(-10, 10)))
def test_buckets_cover_fifteen_minutes_each(numbers: list[int]) -> None:
    result = of_buckets(EPOCH + number * BASE for number in numbers)
    assert minutes(result) == {15 * number + minute for number in numbers for minute in range(15)}
    assert_tidy(result)
