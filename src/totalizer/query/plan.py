"""Choosing where an exact answer comes from: whole clean days, clean base buckets, and events for the rest."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from totalizer.catalog import Catalog, EventType, Measure, Rollup
from totalizer.errors import Refusal, Refused
from totalizer.query.parse import Query
from totalizer.query.spans import Span, of_buckets, without
from totalizer.window import base_bucket, ceil_base

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
        wanted = f" has {', '.join([*sorted(needed), *query.measures])}" if needed or query.measures else ""
        raise Refused(Refusal.INVALID_QUERY, f"no rollup of {query.event_type}{wanted}: {there or 'none is declared'}")
    rollup = min(candidates, key=lambda candidate: len(candidate.dimensions))
    measures = tuple(m for m in rollup.measures if not query.measures or m.name in query.measures)
    return rollup, measures


def clean_spans(query: Query, dirty: Sequence[datetime]) -> list[Span]:
    """The parts of a query's range that rollups answer: whole base buckets without a mark.

    Args:
        query: the question.
        dirty: starts of the marked base buckets that touch the range.
    """
    inner = Span(ceil_base(query.start), base_bucket(query.end))
    behind = of_buckets(dirty)
    if len(behind) > PIECES_MAX:
        behind = [Span(behind[0].start, behind[-1].end)]
    return without([inner] if inner.start < inner.end else [], behind)


def zone_of(query: Query, own_zone: ZoneInfo) -> ZoneInfo:
    """The zone of the answer's windows."""
    return ZoneInfo(query.time_zone) if query.time_zone else own_zone


def days_to_look_up(query: Query, own_zone: ZoneInfo, clean: Sequence[Span]) -> list[date]:
    """The days whose starts `make_plan` needs; none if the rollup's days cannot serve this query.

    PostgreSQL knows them best: it keeps the days, and its time zone database need not be Python's.
    """
    if zone_of(query, own_zone).key != own_zone.key or not (query.grain is None or query.grain.calendar):
        return []
    edges = {moment.astimezone(own_zone).date() for span in clean for moment in span}
    return sorted({day + timedelta(days=near) for day in edges for near in (-1, 0, 1, 2)})


def make_plan(
    catalog: Catalog,
    query: Query,
    own_zone: ZoneInfo,
    dirty: Sequence[datetime],
    day_starts: Mapping[date, datetime],
    stale_days: Sequence[datetime] = (),
) -> Plan:
    """The plan of a query.

    Args:
        catalog: the rollups.
        query: the question.
        own_zone: the zone in which the organisation's days are kept.
        dirty: starts of the marked base buckets that touch the range.
        day_starts: when each of `days_to_look_up` begins.
        stale_days: starts of base buckets that are right themselves, but not so the day they lie in.
    """
    rollup, measures = choose_rollup(catalog, query)
    clean = clean_spans(query, dirty)
    raw = without([Span(query.start, query.end)], clean)
    with_days = clean_spans(query, sorted([*dirty, *stale_days])) if stale_days else clean
    days = [days for span in with_days if day_starts and (days := _whole_days(span, day_starts))]
    base = without(clean, [Span(day_starts[first], day_starts[end]) for first, end in days])
    event_type = catalog.event_types[query.event_type]
    return Plan(event_type, rollup, measures, zone_of(query, own_zone), days, base, raw, len(dirty))


def _whole_days(span: Span, day_starts: Mapping[date, datetime]) -> Days | None:
    """The local days that lie wholly in a span."""
    days = sorted(day_starts)  # and so are their starts
    first = bisect_left(days, span.start, key=day_starts.__getitem__)
    end = bisect_right(days, span.end, key=day_starts.__getitem__) - 1
    return Days(days[first], days[end]) if first < end else None
