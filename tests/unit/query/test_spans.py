"""Spans as sets of minutes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from totalizer.query.spans import Span, aligned, coarsened, cut_at, merged, of_buckets, without
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


@given(SPANS.map(merged), st.sets(MINUTES, max_size=6).map(sorted))
def test_cut_spans_cover_the_same_and_reach_over_no_edge(spans: list[Span], edges: list[int]) -> None:
    moments = [EPOCH + timedelta(minutes=edge) for edge in edges]
    result = cut_at(spans, moments)
    assert merged(result) == spans
    assert_tidy(result)
    assert not any(span.start < edge < span.end for span in result for edge in moments)


@given(SPANS.map(merged), st.integers(1, 5))
def test_coarsened_spans_close_the_smallest_gaps(spans: list[Span], count: int) -> None:
    result = coarsened(spans, count)
    assert len(result) == min(len(spans), count)
    assert minutes(result) >= minutes(spans)
    assert_tidy(result)
    gaps = sorted(other.start - one.end for one, other in pairwise(spans))
    assert [one for one in gaps if one not in gaps[: len(spans) - len(result)]] == [
        gap for gap in sorted(other.start - one.end for one, other in pairwise(result))
        if gap not in gaps[: len(spans) - len(result)]
    ]  # fmt: skip


@given(MINUTES, MINUTES)
def test_the_aligned_part_is_the_longest_of_whole_lengths(start: int, end: int) -> None:
    if start >= end:
        return
    part = aligned(span(start, end), BASE)
    first, last = -(-start // 15) * 15, end // 15 * 15
    assert part == (span(first, last) if first < last else None)
