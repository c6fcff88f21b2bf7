"""Where an exact answer comes from: the coarsest stored grain for every part of the range, and events for the rest."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from totalizer.query.sources import Days, Pieces, Source, divided, joined
from totalizer.query.spans import Span, aligned, coarsened, cut_at, merged, of_buckets, within, without
from totalizer.query.windows import Edges, Windows
from totalizer.window import BASE, Grain

#: Above this many separate spans of events, and of any grain, near ones are read together with what is between them.
PIECES_MAX = 500
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
_DAY = timedelta(days=1)


class Period(NamedTuple):
    """A range and its windows.

    Attributes:
        start, end: the moments that are counted, end excluded.
        windows: how it is divided.
        zone: whose days.
        edges: of windows of the calendar; None for others.
        days_of: the organisation's zone, if its days serve: it is the same, or there is one window only; else None.
        whole_hours: True if the zone's hours begin with UTC hours all through the range.
    """

    start: datetime
    end: datetime
    windows: Windows
    zone: ZoneInfo
    edges: Edges | None = None
    days_of: ZoneInfo | None = None
    whole_hours: bool = False


class Marks(NamedTuple):
    """What the database says of a rollup's being behind.

    Attributes:
        events: base buckets to be computed anew from events.
        days: base buckets whose local day is not to be used, nor the week and month it is in.
        behind: from where on everything is taken to be marked, since there are so many marks; None for nothing.
    """

    events: Sequence[datetime] = ()
    days: Sequence[datetime] = ()
    behind: datetime | None = None

    def spans(self, end: datetime) -> list[Span]:
        """The spans to be computed anew, up to a moment."""
        rest = [] if self.behind is None else [Span(self.behind, end)]
        return merged([*of_buckets(self.events), *rest])


class Floors(NamedTuple):
    """What is removed: rows of each grain from before a moment; None for nothing.

    Attributes:
        events, base, hours: before these moments.
        days: before that local day. Weeks and months are kept for ever.
    """

    events: datetime | None = None
    base: datetime | None = None
    hours: datetime | None = None
    days: date | None = None


class Plan(NamedTuple):
    """Where the numbers of one part come from.

    Attributes:
        pieces: what is read.
        dirty: spans that the rollups are behind in.
        stale: those of them that are told from the rollups all the same; the answer is not exact then.
        missing: what would have to be read and is removed; the answer lacks it.
    """

    pieces: Pieces
    dirty: list[Span]
    stale: list[Span]
    missing: list[Span]


def clean_spans(period: Period, dirty: Sequence[Span]) -> list[Span]:
    """The parts of a range that rollups answer: whole base buckets without a mark."""
    inner = aligned(Span(period.start, period.end), BASE)
    return [] if inner is None else without([inner], coarsened(dirty, PIECES_MAX))


def days_to_look_up(period: Period, clean: Sequence[Span], unusable: Sequence[datetime] = ()) -> list[date]:
    """The days whose starts `make_plan` needs; none if the rollup's days cannot serve this range.

    PostgreSQL knows them best: it keeps the days, and its time zone database need not be Python's.

    Args:
        period: the range.
        clean: the parts of it that rollups answer.
        unusable: base buckets whose local day is not to be used.
    """
    if period.days_of is None or not period.windows.days_fit:
        return []
    edges = {
        moment.astimezone(period.days_of).date() for moment in (*(each for span in clean for each in span), *unusable)
    }
    return sorted({day + timedelta(days=near) for day in edges for near in (-1, 0, 1, 2)})


def make_plan(
    period: Period,
    marks: Marks,
    day_starts: Mapping[date, datetime],
    *,
    kept: Container[Source] = tuple(Source),
    minutes_from: datetime | None = None,
    stale: bool = False,
    floors: Floors = Floors(),  # noqa: B008 - it never changes
) -> Plan:
    """Where the numbers of a range come from.

    Args:
        period: the range.
        marks: what the rollup is behind in.
        day_starts: when each of `days_to_look_up` begins.
        kept: the grains that the rollup keeps.
        minutes_from: from when on it keeps minutes; None if it keeps none.
        stale: True to take the rollups for clean where they are behind.
        floors: what is removed.
    """
    dirty = _within(marks.spans(max(period.end, period.start)), period)
    clean = clean_spans(period, [] if stale else dirty)
    days = _whole_days(period, clean, marks.days, day_starts) if Source.DAY in kept else []
    by_day = [Span(day_starts[first], day_starts[end]) for first, end in days]
    spans = _fine(period, without(clean, by_day), hourly=Source.HOUR in kept)
    minutes = _minutes(period, [] if stale else dirty, minutes_from, spans, by_day)
    held = merged([*by_day, *(span for parts in spans.values() for span in parts), *minutes])
    spans[Source.MINUTE] = minutes
    spans[Source.EVENTS] = without([Span(period.start, period.end)], held)
    # A week or month that is behind may be so in other places than its marks name.
    alone = _dates_of(dirty, period.days_of or period.zone) if stale else set()
    pieces, missing = _above(Pieces(_coarse(period, days, kept, alone), spans), floors, day_starts)
    return Plan(pieces, dirty, dirty if stale else [], missing)


def _above(pieces: Pieces, floors: Floors, day_starts: Mapping[date, datetime]) -> tuple[Pieces, list[Span]]:
    """The pieces that are still there, and the spans of the others."""
    missing: list[Span] = []
    spans = dict(pieces.spans)
    limits = {
        Source.EVENTS: floors.events,
        Source.MINUTE: floors.base,
        Source.BASE: floors.base,
        Source.HOUR: floors.hours,
    }
    for source, floor in limits.items():
        if floor is not None and spans.get(source):
            missing += within(spans[source], Span(spans[source][0].start, floor))
            spans[source] = within(spans[source], Span(floor, spans[source][-1].end))
    days = dict(pieces.days)
    if floors.days is not None and days.get(Source.DAY):
        gone = [Days(first, min(end, floors.days)) for first, end in days[Source.DAY] if first < floors.days]
        missing += [Span(_starts(first, day_starts), _starts(end, day_starts)) for first, end in gone]
        days[Source.DAY] = [Days(max(first, floors.days), end) for first, end in days[Source.DAY] if end > floors.days]
    return Pieces(days, spans), merged(missing)


def _starts(day: date, day_starts: Mapping[date, datetime]) -> datetime:
    """When a day begins; the day itself in UTC where nobody looked that up: what is missing is told, not counted."""
    return day_starts.get(day, datetime(day.year, day.month, day.day, tzinfo=UTC))


def _within(spans: Sequence[Span], period: Period) -> list[Span]:
    return [span for span in spans if span.end > period.start and span.start < period.end]


def _whole_days(
    period: Period, clean: Sequence[Span], unusable: Sequence[datetime], day_starts: Mapping[date, datetime]
) -> list[Days]:
    """The local days that lie wholly in clean spans, but for those that are not to be used."""
    if not day_starts or period.days_of is None:
        return []
    known = sorted(day_starts)  # and so are their starts
    result = []
    # Near a clock change the local date of a bucket may be off by one: the days beside it are left out too.
    without_days = {
        bucket.astimezone(period.days_of).date() + timedelta(days=near) for bucket in unusable for near in (-1, 0, 1)
    }
    for span in clean:
        first = bisect_left(known, span.start, key=day_starts.__getitem__)
        end = bisect_right(known, span.end, key=day_starts.__getitem__) - 1
        if first < end:
            result += _leaving_out(Days(known[first], known[end]), without_days)
    return result


def _leaving_out(days: Days, left_out: set[date]) -> list[Days]:
    result, first = [], days.first
    for day in sorted(day for day in left_out if days.first <= day < days.end):
        if first < day:
            result.append(Days(first, day))
        first = day + timedelta(days=1)
    if first < days.end:
        result.append(Days(first, days.end))
    return result


def _dates_of(spans: Sequence[Span], zone: ZoneInfo) -> set[date]:
    """The local days that spans may lie in; near a clock change the day beside is one."""
    found: set[date] = set()
    for span in spans:
        first, last = span.start.astimezone(zone).date() - _DAY, span.end.astimezone(zone).date() + _DAY
        found |= {first + timedelta(days=number) for number in range((last - first).days + 1)}
    return found


def _coarse(
    period: Period, days: Sequence[Days], kept: Container[Source], alone: set[date]
) -> dict[Source, list[Days]]:
    """Days as months, weeks and days, none reaching over the edge of a window; some of the days are read as such."""
    if period.windows.grain is Grain.DAY:
        return {Source.DAY: joined(list(days))}
    edges = [] if period.edges is None else period.edges.days
    found: dict[Source, list[Days]] = {Source.MONTH: [], Source.WEEK: [], Source.DAY: []}
    for part in days:
        inner = edges[bisect_right(edges, part.first) : bisect_left(edges, part.end)]
        cuts = [part.first, *inner, part.end]
        for window in (Days(*each) for each in pairwise(cuts)):
            found[Source.DAY] += [Days(day, day + _DAY) for day in sorted(alone) if window.first <= day < window.end]
            for rest in _leaving_out(window, alone):
                for source, parts in divided(rest).items():
                    found[source if source in kept else Source.DAY] += parts
    return {source: joined(parts) for source, parts in found.items()}


def _fine(period: Period, spans: Sequence[Span], *, hourly: bool) -> dict[Source, list[Span]]:
    """Spans as hours and base buckets; those that neither fits are left out."""
    grain = period.windows.grain
    if grain in (Grain.MINUTE, Grain.FIVE):
        return {}
    parts = cut_at(spans, [] if period.edges is None else period.edges.moments)
    hours: list[Span] = []
    if hourly and grain is not Grain.BASE and (grain is not Grain.HOUR or period.whole_hours):
        hours = merged(hour for part in parts if (hour := aligned(part, HOUR)))
    # A part that does not begin with a bucket, in a zone of long ago, leaves its edges to the events.
    base = without(merged(whole for part in parts if (whole := aligned(part, BASE))), hours)
    if len(hours) + len(base) > PIECES_MAX:
        hours, base = [], merged(whole for part in parts if (whole := aligned(part, BASE)))
    return {Source.HOUR: hours, Source.BASE: base}


def _minutes(
    period: Period,
    dirty: Sequence[Span],
    minutes_from: datetime | None,
    spans: Mapping[Source, Sequence[Span]],
    by_day: Sequence[Span],
) -> list[Span]:
    """The parts left that the rollup's minutes answer."""
    if minutes_from is None or minutes_from >= period.end:
        return []
    held = merged([*by_day, *(span for parts in spans.values() for span in parts), *coarsened(dirty, PIECES_MAX)])
    rest = without([Span(max(period.start, minutes_from), period.end)], held)
    cut = cut_at(rest, [] if period.edges is None else period.edges.moments)
    return merged(whole for part in cut if (whole := aligned(part, MINUTE)))
