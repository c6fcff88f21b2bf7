"""Arithmetic of half-open spans of time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from totalizer.window import BASE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """From `start` up to, not including, `end`."""

    start: datetime
    end: datetime


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same moments as disjoint spans in order; empty ones vanish."""
    result: list[Span] = []
    for span in sorted(spans):
        if span.start >= span.end:
            continue
        if result and span.start <= result[-1].end:
            result[-1] = Span(result[-1].start, max(span.end, result[-1].end))
        else:
            result.append(span)
    return result


def without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """What is left of `spans` when `holes` are cut out. Both are disjoint and in order."""
    result: list[Span] = []
    first = 0
    for span in spans:
        start = span.start
        while first < len(holes) and holes[first].end <= start:
            first += 1
        for hole in holes[first:]:
            if hole.start >= span.end:
                break
            if hole.start > start:
                result.append(Span(start, hole.start))
            start = max(start, hole.end)
        if start < span.end:
            result.append(Span(start, span.end))
    return result


def within(spans: Sequence[Span], bounds: Span) -> list[Span]:
    """The parts of spans that lie between two moments."""
    cut = (Span(max(span.start, bounds.start), min(span.end, bounds.end)) for span in spans)
    return [span for span in cut if span.start < span.end]


def cut_at(spans: Sequence[Span], edges: Sequence[datetime]) -> list[Span]:
    """The same moments, none of the spans reaching over an edge. Edges are in order."""
    result: list[Span] = []
    for span in spans:
        start, number = span.start, bisect_right(edges, span.start)
        while number < len(edges) and edges[number] < span.end:
            result.append(Span(start, edges[number]))
            start, number = edges[number], number + 1
        result.append(Span(start, span.end))
    return result


def coarsened(spans: Sequence[Span], count_max: int) -> list[Span]:
    """At most that many spans, which hold the others and the smallest gaps between them."""
    if len(spans) <= count_max:
        return list(spans)
    gaps = sorted(range(1, len(spans)), key=lambda at: spans[at].start - spans[at - 1].end)
    closed = set(gaps[: len(spans) - count_max])
    result: list[Span] = []
    for number, span in enumerate(spans):
        if number in closed:
            result[-1] = Span(result[-1].start, span.end)
        else:
            result.append(span)
    return result


def aligned(span: Span, length: timedelta) -> Span | None:
    """The longest part of a span that is made of whole lengths, counted from 1970 UTC; None if none fits in."""
    start = span.start + (_EPOCH - span.start) % length
    end = span.end - (span.end - _EPOCH) % length
    return Span(start, end) if start < end else None


def length_of(spans: Iterable[Span]) -> timedelta:
    """How long spans are together."""
    return sum((span.end - span.start for span in spans), timedelta())


def of_buckets(buckets: Iterable[datetime]) -> list[Span]:
    """The spans that base buckets cover."""
    return merged(Span(bucket, bucket + BASE) for bucket in buckets)
