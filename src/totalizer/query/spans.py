"""Arithmetic of half-open spans of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from totalizer.window import BASE


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
    for span in spans:
        start = span.start
        for hole in holes:
            if hole.end <= start or hole.start >= span.end:
                continue
            if hole.start > start:
                result.append(Span(start, hole.start))
            start = max(start, hole.end)
        if start < span.end:
            result.append(Span(start, span.end))
    return result


def of_buckets(buckets: Iterable[datetime]) -> list[Span]:
    """The spans that base buckets cover."""
    return merged(Span(bucket, bucket + BASE) for bucket in buckets)
