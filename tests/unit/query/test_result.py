"""Rows as they are answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import Catalog
from totalizer.query.choose import choose
from totalizer.query.combine import Work
from totalizer.query.plan import Marks, Period, make_plan
from totalizer.query.question import Filter, Metric, Query
from totalizer.query.result import about, is_exact, plain, shape_rows

QueryOf = Callable[..., Query]
WINDOW = datetime(2025, 9, 5, tzinfo=UTC)
AS_OF = datetime(2025, 9, 5, 10, 7, 30, 500, tzinfo=UTC)
USER = UUID("aaaaaaaa-0000-4000-8000-000000000001")


def work_of(sales: Catalog, query: Query, zone: str = "UTC", *, stale: bool = False) -> Work:
    periods = [Period(query.start, query.end, query.windows, ZoneInfo(zone))]
    if query.compare is not None:
        periods.append(Period(*query.compare, query.windows, ZoneInfo(zone)))
    choice = choose(sales, query)
    marks = Marks([query.start], ()) if stale else Marks()
    plans = [[make_plan(period, marks, {}, stale=stale) for _ in choice.parts] for period in periods]
    return Work(query, choice, periods, plans)


def one_row(sales: Catalog, query: Query, *values: Any) -> dict[str, Any]:
    [row] = shape_rows(work_of(sales, query), [(WINDOW, *values, [], WINDOW)])
    return row


def test_an_answer_says_how_fresh_and_exact_it_is_and_what_was_asked(sales: Catalog, query_of: QueryOf) -> None:
    query = query_of(group_by=("customer",), filters=(Filter("gift", "in", ("true",)),), limit=5)
    row = (WINDOW, USER, 3, Decimal("7.50"), Decimal("2.5"), [False, True, False], WINDOW, False, str(USER))
    work = work_of(sales, query, "Europe/Berlin")
    assert list(shape_rows(work, [row])) == [{
        "window_start": "2025-09-05T02:00:00+02:00", "customer": str(USER), "sales": 3,
        "revenue": Decimal("7.5"), "mean": Decimal("2.5"),
    }]  # fmt: skip
    assert about(work, [row], AS_OF) == {
        "as_of": "2025-09-05T10:07:30.000500+00:00", "exact": True, "source": "1h+events", "dirty_buckets": 0,
        "estimates": ["revenue"],
        "query": {
            "event_type": "sales", "rollup": "by_all", "start_date": "2025-09-01T02:00:00+02:00",
            "end_date": "2025-09-05T12:07:30+02:00", "aggregation_window": "total", "time_zone": "Europe/Berlin",
            "group_by": ["customer"], "filters": {"gift": ["true"]}, "measures": ["sales", "revenue", "mean"],
            "order": ["window"], "fill": "none", "limit": 5,
        },
    }  # fmt: skip


def test_what_is_stale_is_named(sales: Catalog, query_of: QueryOf) -> None:
    work = work_of(sales, query_of(), stale=True)
    told = about(work, [], AS_OF)
    assert (told["exact"], is_exact(work), told["dirty_buckets"]) == (False, False, 1)
    assert told["stale"] == [{"start_date": "2025-09-01T00:00:00+00:00", "end_date": "2025-09-01T00:15:00+00:00"}]


def test_the_period_before_stands_beside_and_how_much_has_changed(sales: Catalog, query_of: QueryOf) -> None:
    query = query_of(compare=(WINDOW, AS_OF))
    row = one_row(sales, query, 3, Decimal("7.50"), 5, None)
    assert row["previous"] == {"sales": 5, "revenue": None}
    assert row["change"] == {"sales": -2, "revenue": None}
    assert about(work_of(sales, query), [], AS_OF)["query"]["compare"]["start_date"] == WINDOW.isoformat()


def test_a_metric_is_told_with_its_rollup_its_conditions_and_what_it_is_divided_by(
    sales: Catalog, query_of: QueryOf
) -> None:
    gift = (Filter("gift", "in", ("true",)), Filter("pieces", "gte", ("2",)), Filter("pieces", "lt", ("5",)))
    share = Metric("share", "sales", "sales", gift, Metric("sales", "sales", "sales"))
    told = about(work_of(sales, query_of(metrics=(share,))), [], AS_OF)["query"]["metrics"]
    assert told == [{
        "name": "share", "event_type": "sales", "measure": "sales", "rollup": "by_all",
        "filters": {"gift": ["true"], "pieces": {"gte": "2", "lt": "5"}},
        "over": {"name": "sales", "event_type": "sales", "measure": "sales", "rollup": "by_shop"},
    }]  # fmt: skip


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity"), None])
def test_what_json_has_no_number_for_is_null(sales: Catalog, query_of: QueryOf, value: Any) -> None:
    row = one_row(sales, query_of(group_by=("gift",)), True, 1, value, Decimal("2.5"))
    assert row["revenue"] is None
    assert (row["gift"], row["sales"], row["mean"]) == (True, 1, Decimal("2.5"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None), (0, 0), (Decimal(0), 0), (Decimal("0.00"), 0), (Decimal("3.000"), 3),
        (Decimal("-3.10"), Decimal("-3.1")), (Decimal("0.000000001"), Decimal("1E-9")), (Decimal("NaN"), None),
        (Decimal("12345678901234567890123456789012345.123456789012345678"),
         Decimal("12345678901234567890123456789012345.123456789012345678")),
        (Decimal("1" + "0" * 60), 10**60),
    ],
)  # fmt: skip
def test_a_decimal_has_no_needless_digits(value: Any, shown: Any) -> None:
    assert plain(value) == shown
    assert type(plain(value)) is type(shown)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**30), max_value=10**30))
def test_sums_survive_the_way_through_json(sales: Catalog, query_of: QueryOf, value: Decimal) -> None:
    row = one_row(sales, query_of(), 1, value)
    text = msgspec.json.Encoder(decimal_format="number").encode(row)
    assert json.loads(text, parse_float=Decimal)["revenue"] == value
