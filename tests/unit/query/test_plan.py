"""Where an exact answer comes from: every moment of the range exactly once.

range     |--------------------------------------------|
dirty              ██                     ██
days            ├──────────────┤                            whole local days without a dirty bucket
base       ├───┤ ├┤            ├─────────┤  ├──────┤        whole base buckets for the rest
raw       ├┤       ├┤                     ├┤        ├──┤    dirty buckets and the ragged ends
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
from totalizer.query.parse import Query
from totalizer.query.plan import PIECES_MAX, Days, Plan, choose_rollup, clean_spans, days_to_look_up, make_plan
from totalizer.query.spans import Span, of_buckets
from totalizer.window import BASE, Grain, base_bucket, day_start

QueryOf = Callable[..., Query]
ZONES = ["UTC", "America/Sao_Paulo", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana"]
#: Around the clock changes of those zones.
STARTS = [
    datetime(2018, 11, 3),
    datetime(2018, 2, 16),
    datetime(2025, 3, 29),
    datetime(2025, 10, 4),
    datetime(2025, 11, 1),
]


def plan_of(catalog: Catalog, query: Query, own_zone: str, dirty: list[datetime]) -> Plan:
    zone = ZoneInfo(own_zone)
    days = days_to_look_up(query, zone, clean_spans(query, dirty))
    return make_plan(catalog, query, zone, dirty, {day: day_start(day, zone) for day in days})


def of_days(plan: Plan) -> list[Span]:
    return [Span(day_start(first, plan.zone), day_start(end, plan.zone)) for first, end in plan.days]


RANGES = st.tuples(
    st.sampled_from(STARTS), st.integers(-3 * 24 * 3600, 3 * 24 * 3600), st.integers(1, 5 * 24 * 3600)
).map(lambda drawn: (drawn[0].replace(tzinfo=UTC) + timedelta(seconds=drawn[1]), timedelta(seconds=drawn[2])))


@given(
    RANGES, st.sampled_from(ZONES), st.none() | st.sampled_from(ZONES), st.sampled_from([*Grain, None]),
    st.lists(st.integers(-1, 5 * 24 * 4), max_size=12),
)  # fmt: skip
def test_every_moment_lies_in_exactly_one_piece(
    sales: Catalog, query_of: QueryOf, range_: tuple[datetime, timedelta], own_zone: str, asked_zone: str | None,
    grain: Grain | None, dirty_numbers: list[int],
) -> None:  # fmt: skip
    start, length = range_
    query = query_of(start=start, end=start + length, time_zone=asked_zone, grain=grain)
    dirty = [base_bucket(start) + number * BASE for number in dirty_numbers]
    dirty = [bucket for bucket in dirty if base_bucket(start) <= bucket < query.end]
    plan = plan_of(sales, query, own_zone, dirty)
    days = of_days(plan)

    pieces = sorted([*days, *plan.base, *plan.raw])
    assert pieces[0].start == query.start
    assert pieces[-1].end == query.end
    assert all(one.end == other.start for one, other in pairwise(pieces))
    assert all(piece.start < piece.end for piece in pieces)

    for piece in (*days, *plan.base):
        assert base_bucket(piece.start) == piece.start
        assert base_bucket(piece.end) == piece.end
        assert not any(piece.start < behind.end and behind.start < piece.end for behind in of_buckets(dirty))

    calendar = grain is None or grain.calendar
    if not calendar or (asked_zone or own_zone) != own_zone:
        assert not plan.days
    else:
        for piece in plan.base:  # no whole day is read in pieces
            first = piece.start.astimezone(plan.zone).date()
            for day in (first + timedelta(days=number) for number in range(7)):
                begins, ends = (day_start(day + timedelta(days=more), plan.zone) for more in (0, 1))
                assert not piece.start <= begins < ends <= piece.end
    assert plan.zone.key == (asked_zone or own_zone)
    assert plan.dirty_buckets == len(dirty)


def test_a_clean_range_of_whole_days_is_read_from_days_alone(sales: Catalog, query_of: QueryOf) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start, end = (day_start(date(2025, month, 1), zone) for month in (3, 11))
    plan = plan_of(sales, query_of(start=start, end=end, grain=Grain.MONTH), zone.key, [])
    assert (plan.days, plan.base, plan.raw) == ([Days(date(2025, 3, 1), date(2025, 11, 1))], [], [])
    assert plan.source == "1d"


def test_a_range_within_one_bucket_is_read_from_events(sales: Catalog, query_of: QueryOf) -> None:
    start = datetime(2025, 9, 5, 10, 1, tzinfo=UTC)
    plan = plan_of(sales, query_of(start=start, end=start + timedelta(minutes=5)), "UTC", [])
    assert (plan.days, plan.base, plan.raw) == ([], [], [Span(start, start + timedelta(minutes=5))])
    assert plan.source == "events"


def test_very_many_dirty_pieces_are_read_as_one(sales: Catalog, query_of: QueryOf) -> None:
    start = datetime(2025, 9, 1, tzinfo=UTC)
    query = query_of(start=start, end=start + timedelta(days=30))
    apart = [start + timedelta(days=1) + 2 * number * BASE for number in range(PIECES_MAX + 1)]
    assert len(plan_of(sales, query, "UTC", apart[:-1]).raw) == PIECES_MAX
    plan = plan_of(sales, query, "UTC", apart)
    assert plan.raw == [Span(apart[0], apart[-1] + BASE)]
    assert plan.source == "1d+15m+events"


def test_the_smallest_rollup_that_can_answer_is_chosen(sales: Catalog, query_of: QueryOf) -> None:
    def chosen(**members: object) -> tuple[str, list[str]]:
        rollup, measures = choose_rollup(sales, query_of(**members))
        return rollup.name, [measure.name for measure in measures]

    assert chosen() == ("by_shop", ["sales", "revenue"])
    assert chosen(group_by=("shop",), measures=("revenue",)) == ("by_shop", ["revenue"])
    assert chosen(group_by=("gift",)) == ("by_all", ["sales", "revenue", "mean"])
    assert chosen(filters={"pieces": ("1",)}) == ("by_all", ["sales", "revenue", "mean"])
    assert chosen(measures=("mean", "sales")) == ("by_all", ["sales", "mean"])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            {"measures": ("profit",)},
            "no rollup of sales has profit: by_all has shop, customer, pieces, gift with sales, ",
        ),
        ({"event_type": "visits"}, "no rollup of visits: none is declared"),
        ({"event_type": "visits", "group_by": ("shop",)}, "no rollup of visits has shop: none is declared"),
    ],
)
def test_what_no_rollup_has_is_refused_with_what_there_is(
    sales: Catalog, query_of: QueryOf, members: dict[str, object], words: str
) -> None:
    with pytest.raises(Refused) as caught:
        choose_rollup(sales, query_of(**members))
    assert caught.value.refusal is Refusal.INVALID_QUERY
    assert words in caught.value.detail
