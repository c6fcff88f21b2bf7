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
from totalizer.query.cursor import decode_cursor
from totalizer.query.parse import Query
from totalizer.query.plan import Plan, make_plan
from totalizer.query.result import shape_answer

QueryOf = Callable[..., Query]
WINDOW = datetime(2025, 9, 5, tzinfo=UTC)
AS_OF = datetime(2025, 9, 5, 10, 7, 30, 500, tzinfo=UTC)
USER = UUID("aaaaaaaa-0000-4000-8000-000000000001")


def plan_of(sales: Catalog, query: Query, zone: str = "UTC") -> Plan:
    return make_plan(sales, query, ZoneInfo(zone), [], {})


def one_row(sales: Catalog, query: Query, *values: Any) -> dict[str, Any]:
    answer = shape_answer(query, plan_of(sales, query), [(WINDOW, *values, WINDOW)], AS_OF, complete=True)
    row: dict[str, Any] = answer["data"][0]
    return row


def test_an_answer_says_how_fresh_exact_and_complete_it_is_and_what_was_asked(
    sales: Catalog, query_of: QueryOf
) -> None:
    query = query_of(group_by=("customer",), filters={"gift": ("true",)}, limit=5)
    row = (WINDOW, USER, 3, Decimal("7.50"), Decimal("2.5"), WINDOW, False, str(USER))
    answer = shape_answer(query, plan_of(sales, query, "Europe/Berlin"), [row], AS_OF, complete=False)
    assert answer == {
        "data": [{
            "window_start": "2025-09-05T02:00:00+02:00", "customer": str(USER), "sales": 3,
            "revenue": Decimal("7.5"), "mean": Decimal("2.5"),
        }],
        "next_cursor": None, "as_of": "2025-09-05T10:07:30.000500+00:00", "exact": True, "complete": False,
        "source": "15m+events", "dirty_buckets": 0,
        "query": {
            "event_type": "sales", "rollup": "by_all", "start_date": "2025-09-01T02:00:00+02:00",
            "end_date": "2025-09-05T12:07:30+02:00", "aggregation_window": "total", "time_zone": "Europe/Berlin",
            "group_by": ["customer"], "filters": {"gift": ["true"]}, "measures": ["sales", "revenue", "mean"],
            "limit": 5,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None), (0, 0), (Decimal(0), 0), (Decimal("0.00"), 0), (Decimal("3.000"), 3),
        (Decimal("-3.10"), Decimal("-3.1")),
        (Decimal("0.000000001"), Decimal("1E-9")),
        (Decimal("12345678901234567890123456789012345.123456789012345678"),
         Decimal("12345678901234567890123456789012345.123456789012345678")),
        (Decimal("1" + "0" * 60), 10**60),
    ],
)  # fmt: skip
def test_a_sum_is_told_to_its_last_digit(sales: Catalog, query_of: QueryOf, value: Any, shown: Any) -> None:
    row = one_row(sales, query_of(), 1, value)
    assert row["revenue"] == shown
    assert type(row["revenue"]) is type(shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None), (Decimal(1) / Decimal(3), Decimal("0.333333")), (Decimal("99.9999999"), 100),
        (Decimal("2.5000000000"), Decimal("2.5")), (Decimal("1e40") / 3, Decimal("1e40") / 3),
    ],
)  # fmt: skip
def test_an_average_has_six_digits_after_the_point(sales: Catalog, query_of: QueryOf, value: Any, shown: Any) -> None:
    row = one_row(sales, query_of(group_by=("gift",)), True, 1, Decimal(1), value)
    assert row["mean"] == shown
    assert (row["gift"], row["sales"], row["revenue"]) == (True, 1, 1)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**30), max_value=10**30))
def test_sums_survive_the_way_through_json(sales: Catalog, query_of: QueryOf, value: Decimal) -> None:
    row = one_row(sales, query_of(), 1, value)
    text = msgspec.json.Encoder(decimal_format="number").encode(row)
    assert json.loads(text, parse_float=Decimal)["revenue"] == value


def test_a_full_page_has_a_cursor_after_its_last_row(sales: Catalog, query_of: QueryOf) -> None:
    query = query_of(group_by=("shop",), limit=2)
    rows = [(WINDOW, shop, 1, Decimal(1), WINDOW, shop is None, shop or "") for shop in ("a", None, "b")]
    answer = shape_answer(query, plan_of(sales, query), rows, AS_OF, complete=True)
    assert [row["shop"] for row in answer["data"]] == ["a", None]
    cursor = msgspec.structs.replace(query, cursor=answer["next_cursor"])
    assert decode_cursor(cursor) == [WINDOW.isoformat(), True, ""]
    assert shape_answer(query, plan_of(sales, query), rows[:2], AS_OF, complete=True)["next_cursor"] is None


def test_no_rows_are_an_empty_answer(sales: Catalog, query_of: QueryOf) -> None:
    answer = shape_answer(query_of(), plan_of(sales, query_of()), [], AS_OF, complete=True)
    assert (answer["data"], answer["next_cursor"], answer["complete"]) == ([], None, True)
