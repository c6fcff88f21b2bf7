"""Where an exact answer comes from: every moment of the range exactly once.

range     |--------------------------------------------|
dirty              ██                     ██
months, weeks, days ├──────────────┤                        whole local days without a dirty bucket
hours        ├──┤                  ├────┤  ├──────┤         whole UTC hours for the rest
base       ├┤   ├┤                     ├─┤  ├┤              whole base buckets for the rest
events    ├┤       ├┤                     ├┤        ├──┤    dirty buckets and the ragged ends
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import Catalog
from totalizer.errors import Refusal, Refused
from totalizer.query.choose import choose
from totalizer.query.plan import PIECES_MAX, Floors, Marks, Period, Plan, clean_spans, days_to_look_up, make_plan
from totalizer.query.question import Filter, Metric, Order, Query
from totalizer.query.sources import Days, Source
from totalizer.query.spans import Span, of_buckets
from totalizer.query.windows import Edges, Windows, trimmed
from totalizer.window import BASE, Grain, base_bucket, day_start

QueryOf = Callable[..., Query]
ZONES = ["UTC", "America/Sao_Paulo", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana"]
#: Around the clock changes of those zones, and the ends of months.
STARTS = [
    datetime(2018, 11, 3),
    datetime(2018, 2, 16),
    datetime(2025, 3, 29),
    datetime(2025, 10, 4),
    datetime(2025, 11, 1),
]
WINDOWS = st.sampled_from(
    [
        *(Windows(grain) for grain in (*Grain, None)), Windows(Grain.WEEK, week_start=3),
        Windows(Grain.DAY, rolling_days=7),
        Windows(Grain.MONTH, anchor=date(2025, 1, 31)), Windows(Grain.YEAR, anchor=date(2001, 4, 6)),
    ]
)  # fmt: skip


def period_of(start: datetime, end: datetime, windows: Windows, own_zone: str, asked_zone: str | None = None) -> Period:
    zone = ZoneInfo(asked_zone or own_zone)
    edges = None
    if windows.calendar:
        days = windows.firsts(start.astimezone(zone).date() - timedelta(days=1), end.astimezone(zone).date())
        days = [*days, *windows.firsts(days[-1], days[-1])[1:]]
        edges = trimmed(Edges(days, [day_start(day, zone) for day in days]), start, end)
    whole = all(
        (start + timedelta(hours=number)).astimezone(zone).utcoffset() % timedelta(hours=1) == timedelta()  # type: ignore[operator]
        for number in range(int((end - start) / timedelta(hours=1)) + 2)
    )
    days_of = ZoneInfo(own_zone) if zone.key == own_zone or windows.grain is None else None
    return Period(start, end, windows, zone, edges, days_of, whole)


def plan_of(period: Period, marks: Marks = Marks(), **options: object) -> Plan:  # noqa: B008 - it never changes
    clean = clean_spans(period, marks.spans(period.end))
    days = days_to_look_up(period, clean, marks.days)
    starts = {day: day_start(day, period.days_of or period.zone) for day in days}
    return make_plan(period, marks, starts, **options)  # type: ignore[arg-type]


def by_day(plan: Plan, zone: ZoneInfo) -> list[Span]:
    return [
        Span(day_start(first, zone), day_start(end, zone)) for days in plan.pieces.days.values() for first, end in days
    ]


RANGES = st.tuples(
    st.sampled_from(STARTS), st.integers(-3 * 24 * 3600, 3 * 24 * 3600), st.integers(1, 50 * 24 * 3600)
).map(lambda drawn: (drawn[0].replace(tzinfo=UTC) + timedelta(seconds=drawn[1]), timedelta(seconds=drawn[2])))


@given(
    RANGES, st.sampled_from(ZONES), st.none() | st.sampled_from(ZONES), WINDOWS,
    st.lists(st.integers(-1, 50 * 24 * 4), max_size=12), st.lists(st.integers(0, 50 * 24 * 4), max_size=3),
    st.booleans(),
)  # fmt: skip
def test_every_moment_lies_in_exactly_one_piece(
    range_: tuple[datetime, timedelta], own_zone: str, asked_zone: str | None, windows: Windows,
    dirty_numbers: list[int], unusable_numbers: list[int], minutes: bool,
) -> None:  # fmt: skip
    start, length = range_
    period = period_of(start, start + length, windows, own_zone, asked_zone)
    first = base_bucket(start)
    numbered = [sorted({first + number * BASE for number in each}) for each in (dirty_numbers, unusable_numbers)]
    marks = Marks(*([bucket for bucket in each if first <= bucket < period.end] for each in numbered))
    plan = plan_of(period, marks, minutes_from=base_bucket(start) if minutes else None)
    days = by_day(plan, ZoneInfo(own_zone))
    spans = plan.pieces.spans
    pieces = sorted([*days, *(span for each in spans.values() for span in each)])
    assert pieces[0].start == period.start
    assert pieces[-1].end == period.end
    assert all(one.end == other.start for one, other in pairwise(pieces))
    assert all(piece.start < piece.end for piece in pieces)
    kept = [*days, *(span for source in (Source.HOUR, Source.BASE, Source.MINUTE) for span in spans.get(source, []))]
    for piece in kept:
        assert not any(piece.start < behind.end and behind.start < piece.end for behind in of_buckets(marks.events))
    for piece in days:
        assert not any(piece.start <= bucket < piece.end for bucket in marks.days)
    for source, size in ((Source.HOUR, 60), (Source.BASE, 15), (Source.MINUTE, 1)):
        for span in spans.get(source, []):
            assert span.start.timestamp() % (size * 60) == span.end.timestamp() % (size * 60) == 0
    if not windows.days_fit or (windows.grain is not None and (asked_zone or own_zone) != own_zone):
        assert not days
    if windows.grain in (Grain.MINUTE, Grain.FIVE):
        assert not spans.get(Source.HOUR)
        assert not spans.get(Source.BASE)
    if windows.grain in (Grain.BASE, Grain.MINUTE, Grain.FIVE):
        assert not spans.get(Source.HOUR)


@given(RANGES, st.sampled_from(ZONES), st.none() | st.sampled_from(ZONES), WINDOWS)
def test_no_row_reaches_over_the_edge_of_a_window(
    range_: tuple[datetime, timedelta], own_zone: str, asked_zone: str | None, windows: Windows
) -> None:
    start, length = range_
    period = period_of(start, start + length, windows, own_zone, asked_zone)
    plan = plan_of(period)
    if period.edges is None:
        return
    lengths = {Source.MONTH: 31, Source.WEEK: 7, Source.DAY: 1}
    for source, parts in plan.pieces.days.items():
        for first, end in parts:
            assert source is not Source.WEEK or first.weekday() == end.weekday() == 0
            assert source is not Source.MONTH or first.day == end.day == 1
            inner = [day for day in period.edges.days if first < day < end]
            if lengths[source] > 1:
                assert all(day.day == 1 if source is Source.MONTH else day.weekday() == 0 for day in inner)
    for span in plan.pieces.spans[Source.HOUR]:
        inner_moments = [edge for edge in period.edges.moments if span.start < edge < span.end]
        assert all(edge.timestamp() % 3600 == 0 for edge in inner_moments)


def test_one_window_of_another_zone_is_read_from_the_organisations_days() -> None:
    start, end = (day_start(date(2025, 9, day), ZoneInfo("Asia/Tokyo")) for day in (1, 8))
    plan = plan_of(period_of(start, end, Windows(None), "UTC", "Asia/Tokyo"))
    assert plan.pieces.days[Source.DAY] == [Days(date(2025, 9, 1), date(2025, 9, 7))]
    hours = [Span(start, datetime(2025, 9, 1, tzinfo=UTC)), Span(datetime(2025, 9, 7, tzinfo=UTC), end)]
    assert plan.pieces.spans[Source.HOUR] == hours
    assert plan.pieces.sources == [Source.DAY, Source.HOUR]


def test_a_clean_range_of_whole_months_is_read_from_months_alone() -> None:
    zone = ZoneInfo("Europe/Berlin")
    start, end = (day_start(date(2025, month, 1), zone) for month in (3, 11))
    plan = plan_of(period_of(start, end, Windows(Grain.MONTH), zone.key))
    assert plan.pieces.days[Source.MONTH] == [Days(date(2025, 3, 1), date(2025, 11, 1))]
    assert plan.pieces.sources == [Source.MONTH]
    days = plan_of(period_of(start, end, Windows(Grain.MONTH), zone.key), kept=[Source.DAY, Source.BASE])
    assert days.pieces.sources == [Source.DAY]


def test_the_coarsest_grain_is_read_for_every_part() -> None:
    start = datetime(2025, 1, 29, 22, 50, 30, tzinfo=UTC)
    plan = plan_of(period_of(start, datetime(2025, 3, 12, 1, 20, tzinfo=UTC), Windows(None), "UTC"))
    days, spans = plan.pieces.days, plan.pieces.spans
    assert days[Source.MONTH] == [Days(date(2025, 2, 1), date(2025, 3, 1))]
    assert days[Source.WEEK] == [Days(date(2025, 3, 3), date(2025, 3, 10))]
    assert days[Source.DAY] == [
        Days(date(2025, 1, 30), date(2025, 2, 1)), Days(date(2025, 3, 1), date(2025, 3, 3)),
        Days(date(2025, 3, 10), date(2025, 3, 12)),
    ]  # fmt: skip
    hours = [(span.start.hour, (span.end - span.start) / timedelta(hours=1)) for span in spans[Source.HOUR]]
    assert hours == [(23, 1), (0, 1)]
    assert [(span.start.hour, span.start.minute) for span in spans[Source.BASE]] == [(1, 0)]
    assert len(spans[Source.EVENTS]) == 2


def test_a_range_within_one_bucket_is_read_from_events_or_minutes() -> None:
    start = datetime(2025, 9, 5, 10, 1, tzinfo=UTC)
    period = period_of(start, start + timedelta(minutes=5), Windows(None), "UTC")
    assert plan_of(period).pieces.sources == [Source.EVENTS]
    assert plan_of(period, minutes_from=start).pieces.sources == [Source.MINUTE]
    later = plan_of(period, minutes_from=start + timedelta(minutes=2, seconds=1))
    assert later.pieces.spans[Source.MINUTE] == [Span(start + timedelta(minutes=3), period.end)]


def test_very_many_dirty_pieces_are_read_with_the_smallest_gaps_between_them() -> None:
    start = datetime(2025, 9, 1, tzinfo=UTC)
    period = period_of(start, start + timedelta(days=30), Windows(None), "UTC")
    apart = [start + timedelta(days=1) + 2 * number * BASE for number in range(PIECES_MAX)]
    assert len(plan_of(period, Marks(apart)).pieces.spans[Source.EVENTS]) == PIECES_MAX
    plan = plan_of(period, Marks([*apart, period.end - BASE]))
    assert len(plan.pieces.spans[Source.EVENTS]) == PIECES_MAX
    assert plan.pieces.spans[Source.EVENTS][-1] == Span(period.end - BASE, period.end)


def test_what_is_stale_is_named_and_told_from_the_rollups() -> None:
    start = datetime(2025, 9, 1, tzinfo=UTC)
    period = period_of(start, start + timedelta(days=2), Windows(Grain.HOUR), "UTC")
    marks = Marks([start + BASE], behind=start + timedelta(days=1))
    plan = plan_of(period, marks, stale=True)
    assert plan.stale == [Span(start + BASE, start + 2 * BASE), Span(start + timedelta(days=1), period.end)]
    assert plan.pieces.sources == [Source.HOUR]
    assert plan_of(period, marks).pieces.spans[Source.EVENTS] == plan.stale


def test_what_is_stale_is_read_by_day_since_its_week_and_month_may_be_behind_elsewhere() -> None:
    period = period_of(datetime(2025, 9, 1, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC), Windows(None), "UTC")
    plan = plan_of(period, Marks([datetime(2025, 10, 15, 12, tzinfo=UTC)]), stale=True)
    assert plan.pieces.spans[Source.EVENTS] == []
    assert plan.pieces.days[Source.MONTH] == [
        Days(date(2025, 9, 1), date(2025, 10, 1)), Days(date(2025, 11, 1), date(2025, 12, 1)),
    ]  # fmt: skip
    assert plan.pieces.days[Source.WEEK] == [
        Days(date(2025, 10, 6), date(2025, 10, 13)), Days(date(2025, 10, 20), date(2025, 10, 27)),
    ]  # fmt: skip
    assert plan.pieces.days[Source.DAY] == [
        Days(date(2025, 10, 1), date(2025, 10, 6)), Days(date(2025, 10, 13), date(2025, 10, 20)),
        Days(date(2025, 10, 27), date(2025, 11, 1)),
    ]  # fmt: skip


def test_what_is_removed_is_missing_and_what_is_kept_of_it_is_told() -> None:
    start, floor = datetime(2025, 1, 10, 5, 20, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)
    period = period_of(start, datetime(2025, 4, 1, tzinfo=UTC), Windows(None), "UTC")
    floors = Floors(events=floor, base=floor, hours=floor, days=date(2025, 1, 12))
    plan = plan_of(period, floors=floors)
    # The first day of the range is not whole, the second is removed; weeks and months are there.
    assert plan.missing == [Span(start, datetime(2025, 1, 12, tzinfo=UTC))]
    assert plan.pieces.days[Source.MONTH] == [Days(date(2025, 2, 1), date(2025, 4, 1))]
    assert plan.pieces.days[Source.WEEK] == [Days(date(2025, 1, 13), date(2025, 1, 27))]
    assert plan.pieces.days[Source.DAY][0] == Days(date(2025, 1, 12), date(2025, 1, 13))
    hours = period_of(floor - timedelta(hours=3), floor + timedelta(hours=3), Windows(Grain.HOUR), "UTC")
    half = plan_of(hours, floors=floors)
    assert half.missing == [Span(hours.start, floor)]
    assert half.pieces.spans[Source.HOUR] == [Span(floor, hours.end)]


def sales_metric(measure: str, **members: object) -> Metric:
    return Metric(measure, "sales", measure, **members)  # type: ignore[arg-type]


def test_the_smallest_rollup_that_can_answer_is_chosen(sales: Catalog, query_of: QueryOf) -> None:
    def chosen(**members: object) -> list[tuple[str, list[str]]]:
        parts = choose(sales, query_of(**members)).parts
        return [(part.rollup.name, [measure.name for measure in part.measures]) for part in parts]

    assert chosen() == [("by_shop", ["sales", "revenue"])]
    assert chosen(group_by=("shop",), metrics=(sales_metric("revenue"),)) == [("by_shop", ["revenue"])]
    assert chosen(group_by=("gift",)) == [("by_all", ["sales", "revenue", "mean"])]
    assert chosen(filters=(Filter("pieces", "in", ("1",)),)) == [("by_all", ["sales", "revenue", "mean"])]
    assert chosen(metrics=(sales_metric("mean"), sales_metric("sales"))) == [("by_all", ["sales", "mean"])]
    gifts = sales_metric("sales", filters=(Filter("gift", "in", ("true",)),), over=sales_metric("sales"))
    assert chosen(metrics=(gifts,)) == [("by_all", ["sales"]), ("by_shop", ["sales"])]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            {"metrics": (sales_metric("profit"),)},
            "no rollup of sales has profit: by_all has shop, customer, pieces, gift with sales, ",
        ),
        ({"event_type": "visits"}, "no rollup of visits: none is declared"),
        ({"event_type": "visits", "group_by": ("shop",)}, "no rollup of visits has shop: none is declared"),
        ({"order": (Order("mean"),)}, "order=mean: use revenue, sales, window"),
    ],
)
def test_what_no_rollup_has_is_refused_with_what_there_is(
    sales: Catalog, query_of: QueryOf, members: dict[str, object], words: str
) -> None:
    with pytest.raises(Refused) as caught:
        choose(sales, query_of(**members))
    assert caught.value.refusal is Refusal.INVALID_QUERY
    assert words in caught.value.detail
