"""Choosing where an exact answer comes from: whole clean days, clean base buckets, and events for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from totalizer.catalog import Catalog, EventType, Measure, Rollup
from totalizer.errors import Refusal, Refused
from totalizer.query.parse import Query
from totalizer.query.spans import Span, clipped, merged, of_buckets, without
from totalizer.window import base_bucket, ceil_base, day_start

#: Above this many separate pieces, dirty buckets are read together with the clean ones between them.
PIECES_MAX = 500


class Days(NamedTuple):
    """Local days from `first` up to, not including, `end`."""

    first: date
    end: date


class Plan(NamedTuple):
    """Where the answer comes from. Every moment of the range lies in exactly one piece.

    Attributes:
        event_type, rollup: what is read.
        measures: the numbers that are answered.
        zone: of the windows.
        days: pieces read from the rollup's days.
        base: pieces read from its 15-minute buckets.
        raw: pieces read from the events.
        dirty_buckets: marked buckets in the range.
    """

    event_type: EventType
    rollup: Rollup
    measures: tuple[Measure, ...]
    zone: ZoneInfo
    days: list[Days]
    base: list[Span]
    raw: list[Span]
    dirty_buckets: int

    @property
    def source(self) -> str:
        """The kinds of piece that are read, coarsest first."""
        names = (("1d", self.days), ("15m", self.base), ("events", self.raw))
        return "+".join(name for name, pieces in names if pieces) or "none"


def choose_rollup(catalog: Catalog, query: Query) -> tuple[Rollup, tuple[Measure, ...]]:
    """The smallest rollup that has the query's dimensions and measures.

    Raises:
        Refused: none has; the message says what there is.
    """
    needed = {*query.group_by, *query.filters}
    candidates = [
        rollup
        for rollup in catalog.rollups_of(query.event_type)
        if needed <= set(rollup.dimensions) and all(rollup.measure(name) for name in query.measures)
    ]
    if not candidates:
        there = "; ".join(
            f"{rollup.name} has {', '.join(rollup.dimensions)} with {', '.join(m.name for m in rollup.measures)}"
            for rollup in catalog.rollups_of(query.event_type)
        )
        wanted = ", ".join([*sorted(needed), *query.measures])
        raise Refused(
            Refusal.INVALID_QUERY, f"no rollup of {query.event_type} has {wanted}: {there or 'none declared'}"
        )
    rollup = min(candidates, key=lambda candidate: len(candidate.dimensions))
    measures = tuple(m for m in rollup.measures if not query.measures or m.name in query.measures)
    return rollup, measures


def make_plan(catalog: Catalog, query: Query, own_zone: ZoneInfo, dirty: Sequence[datetime]) -> Plan:
    """The plan of a query.

    Args:
        catalog: the rollups.
        query: the question.
        own_zone: the zone in which the organisation's days are kept.
        dirty: starts of the marked base buckets that touch the range.
    """
    rollup, measures = choose_rollup(catalog, query)
    zone = ZoneInfo(query.time_zone) if query.time_zone else own_zone
    whole = Span(query.start, query.end)
    inner = Span(ceil_base(query.start), base_bucket(query.end))
    edges = without([whole], [inner] if inner.start < inner.end else [])
    behind = of_buckets(dirty)
    if len(behind) > PIECES_MAX:
        behind = [Span(behind[0].start, behind[-1].end)]
    raw = merged([*edges, *clipped(behind, whole)])
    clean = without([whole], raw)
    days: list[Days] = []
    if zone.key == own_zone.key and (query.grain is None or query.grain.calendar):
        days = list(_whole_days(clean, zone))
    base = without(clean, [Span(day_start(first, zone), day_start(end, zone)) for first, end in days])
    return Plan(
        catalog.event_types[query.event_type], rollup, measures, zone, days, base, raw, len(dirty)
    )  # fmt: skip


def _whole_days(spans: Sequence[Span], zone: ZoneInfo) -> Iterator[Days]:
    """The local days that lie wholly in a span."""
    for span in spans:
        first = span.start.astimezone(zone).date()
        while day_start(first, zone) < span.start:
            first += timedelta(days=1)
        end = span.end.astimezone(zone).date()
        while day_start(end, zone) > span.end:
            end -= timedelta(days=1)
        if first < end:
            yield Days(first, end)
