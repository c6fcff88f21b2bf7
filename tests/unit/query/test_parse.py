"""From request parameters to a query."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import Catalog
from totalizer.errors import Refusal, Refused
from totalizer.query.parse import parse_body, parse_parameters
from totalizer.query.question import Filter, Metric, Order, Query
from totalizer.query.windows import Windows
from totalizer.window import Grain

NOW = datetime(2025, 9, 5, 10, 7, 30, tzinfo=UTC)
USER = "AAAAAAAA-0000-4000-8000-000000000001"


def parsed(catalog: Catalog, own_zone: str = "UTC", **parameters: Any) -> Query:
    sent = {"event_type": "sales"} | parameters
    lists = {name: [value] if isinstance(value, str) else value for name, value in sent.items()}
    return parse_parameters(catalog, lists, NOW, own_zone)


def test_everything_has_a_default(sales: Catalog) -> None:
    assert parsed(sales) == Query(
        event_type="sales", start=NOW - timedelta(days=1), end=NOW, windows=Windows(Grain.HOUR), limit=1000,
    )  # fmt: skip


def test_commands_are_counted_when_nothing_is_named(catalog: Catalog) -> None:
    assert parse_parameters(catalog, {}, NOW, "UTC").event_type == "command_executions"


def test_everything_may_be_named(sales: Catalog) -> None:
    assert parsed(
        sales, start_date="2025-09-01T00:00:00Z", end_date="2025-09-02T02:00:00+02:00", aggregation_window="1mo",
        group_by=["shop, gift", "pieces,shop"], measures="sales", time_zone="Europe/Berlin", limit="10", cursor="abc",
        shop=["a", "b,c", ""], customer=USER, pieces="-5", gift="true",
    ) == Query(
        event_type="sales", start=datetime(2025, 9, 1, tzinfo=UTC), end=datetime(2025, 9, 2, tzinfo=UTC),
        windows=Windows(Grain.MONTH), group_by=("shop", "gift", "pieces"),
        filters=(Filter("shop", "in", ("a", "b,c", "")), Filter("customer", "in", (USER,)),
                 Filter("pieces", "in", ("-5",)), Filter("gift", "in", ("true",))),
        metrics=(Metric("sales", "sales", "sales"),), time_zone="Europe/Berlin", limit=10, cursor="abc",
    )  # fmt: skip


@pytest.mark.parametrize("grain", [*Grain, None])
def test_every_window_may_be_asked_for(sales: Catalog, grain: Grain | None) -> None:
    assert parsed(sales, aggregation_window=grain.value if grain else "total").windows.grain is grain


# Zone, start, end, what they mean in UTC. A plain end date is the last day of the range.
DATES = [
    ("UTC", "2025-09-05", "2025-09-05", "2025-09-05T00:00Z", "2025-09-06T00:00Z"),
    ("Europe/Berlin", "2025-03-30", "2025-03-30", "2025-03-29T23:00Z", "2025-03-30T22:00Z"),
    ("Europe/Berlin", "2025-10-26", "2025-10-26", "2025-10-25T22:00Z", "2025-10-26T23:00Z"),
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
    ("Asia/Kathmandu", "2025-01-01", "2025-12-31", "2024-12-31T18:15Z", "2025-12-31T18:15Z"),
    ("Australia/Lord_Howe", "2025-10-05", "2025-10-05", "2025-10-04T13:30Z", "2025-10-05T13:00Z"),
]


@pytest.mark.parametrize(("zone", "first", "last", "start", "end"), DATES)
def test_plain_dates_are_days_of_the_zone(
    sales: Catalog, zone: str, first: str, last: str, start: str, end: str
) -> None:
    own = parsed(sales, own_zone=zone, start_date=first, end_date=last)
    named = parsed(sales, own_zone="Pacific/Auckland", time_zone=zone, start_date=first, end_date=last)
    for query in (own, named):
        assert (query.start, query.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))


def test_a_plus_that_arrives_as_a_space_is_a_plus(sales: Catalog) -> None:
    assert parsed(sales, start_date="2025-09-05T10:00:00 02:00").start == datetime(2025, 9, 5, 8, tzinfo=UTC)


WHEN = "must be a date (2025-09-05) or an RFC 3339 time with its zone"
# Parameter, its value or values, how the value is shown, words of the reason.
WRONG = [
    ("event_type", "buys", "buys", "unknown; use one of sales, visits"),
    ("event_type", ["sales", "visits"], "['sales', 'visits']", "may be given once"),
    *(("start_date", value, value, WHEN) for value in (
        "", "yesterday", "2025-09-05T10:00:00", "2025-02-30", "2025-13-01", "20250905T10", "٢٠٢٥-09-05", "1757066400",
    )),
    ("end_date", "2025-09-05 10:00", "2025-09-05 10:00", WHEN),
    ("start_date", "1899-12-31", "1899-12-31", "must lie in the years 1900 to 9900"),
    ("start_date", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "must lie in the years 1900 to 9900"),
    ("start_date", "0001-01-01T00:00:00+10:00", "0001-01-01", WHEN),
    ("end_date", "9999-12-31", "9999-12-31", WHEN),
    ("end_date", "9999-12-30", "9999-12-30", "must lie in the years 1900 to 9900"),
    ("end_date", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "must lie in the years 1900 to 9900"),
    ("start_date", "2025-09-06", "2025-09-06T00:00:00+00:00", "must be before end_date 2025-09-05T10:07:30+00:00"),
    ("start_date", "2025-09-05T10:07:30Z", "2025-09-05T10:07:30+00:00", "must be before end_date"),
    ("start_date", ["2025-09-01", "2025-09-02"], "['2025-09-01', '2025-09-02']", "may be given once"),
    ("aggregation_window", "2h", "2h", "use one of 1m, 5m, 15m, 1h, 1d, 1w, 1mo, 1q, 1y, total"),
    ("aggregation_window", "1H", "1H", "use one of"),
    ("group_by", "amount", "amount", "sales can be divided by shop, customer, pieces, gift"),
    ("group_by", "shop,colour", "colour", "sales can be divided by shop"),
    ("group_by", "note", "note", "sales can be divided by shop"),
    ("time_zone", "Mars/Olympus", "Mars/Olympus", "unknown time zone 'Mars/Olympus'; use an IANA name"),
    ("time_zone", "../etc/passwd", "../etc/passwd", "unknown time zone"),
    *(("limit", value, value, "must be a whole number from 1 to 10000")
      for value in ("0", "10001", "-1", "1.5", "x", "", "٣", "000001000000")),
    ("limit", "1" * 5000, "111", "must be a whole number from 1 to 10000"),
    ("time_zone", "Mars" * 1000, "MarsMars", "unknown time zone"),
    ("x" * 1000, "1", "", "unknown parameter"),
    ("colour", "red", "red", "unknown parameter for sales; use some of aggregation_window, week_start, fiscal_start"),
    ("colour", ["red", "blue"], "red,blue", "cursor, exact, explain, shop, customer, pieces, gift"),
    ("amount", "1", "1", "sales can be divided by shop"),
    ("customer", "x", "x", "is no uuid"),
    ("customer", f"{USER}\n", USER, "is no uuid"),
    ("pieces", "1.0", "1.0", "is no integer"),
    ("pieces", "٣", "٣", "is no integer"),
    ("pieces", str(2**63), str(2**63), "does not fit 64 bits"),
    ("pieces", str(-(2**63) - 1), str(-(2**63) - 1), "does not fit 64 bits"),
    ("pieces", "9" * 5000, "999", "is no integer"),
    ("gift", "yes", "yes", "is no boolean"),
    ("shop", "a\0b", "a\0b", "is no text"),
    ("week_start", "sunday", "sunday", "goes with aggregation_window=1w only"),
    ("anchor", "2025-01-31", "2025-01-31", "goes with aggregation_window=1mo, 1q or 1y only"),
    ("fiscal_start", "04-06", "04-06", "goes with aggregation_window=1mo, 1q or 1y only"),
    *(("rolling", value, value, "must be a number of days from 1d to 366d") for value in ("7", "0d", "367d", "7h", "")),
    ("exact", "yes", "yes", "must be true or false"),
    ("metrics", "sales", "sales", "is a member of POST /api/metrics/query"),
    ("group_by", ",".join(f"g{n}" for n in range(11)), "11 dimensions", "give at most 10"),
    ("measures", ",".join(f"m{n}" for n in range(21)), None, "give at most 20"),
    ("shop", ["x"] * 101, "101 values", "at most 100"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "shown", "words"), WRONG)
def test_a_wrong_parameter_is_named_with_its_value_and_what_can_be(
    sales: Catalog, name: str, value: str | list[str], shown: str | None, words: str
) -> None:
    with pytest.raises(Refused) as caught:
        parsed(sales, "UTC", **{name: value})
    assert caught.value.refusal is Refusal.INVALID_QUERY
    assert shown is None or caught.value.detail.startswith(f"{name[:100]}={shown}")
    assert words in caught.value.detail
    assert len(caught.value.detail) < 600


@pytest.mark.parametrize("value", [str(2**63 - 1), str(-(2**63)), "0", "-7"])
def test_every_whole_number_of_64_bits_can_be_asked_for(sales: Catalog, value: str) -> None:
    assert parsed(sales, pieces=value).filters == (Filter("pieces", "in", (value,)),)


@given(
    st.dictionaries(
        st.sampled_from(["start_date", "end_date", "limit", "group_by", "time_zone", "shop", "pieces", "x", "cursor"]),
        st.lists(st.text(max_size=30) | st.dates().map(str), max_size=3),
    )
)
def test_any_parameters_are_a_query_or_refused(sales: Catalog, parameters: dict[str, list[str]]) -> None:
    try:
        query = parse_parameters(sales, {"event_type": ["sales"], **parameters}, NOW, "Europe/Berlin")
    except Refused:
        return
    assert query.start < query.end
    assert 1 <= query.limit <= 10_000


# A body's members, the member the refusal names, words of the reason.
WRONG_BODIES: list[tuple[dict[str, Any], str, str]] = [
    ({"limit": True}, "limit=True", "whole number"),
    ({"limit": 1.5}, "limit=1.5", "whole number"),
    ({"exact": "true"}, "exact", "Expected `bool`"),
    ({"group_by": "shop"}, "group_by", "Expected `array`"),
    ({"fill": "some"}, "fill", "Invalid enum value 'some'"),
    ({"compare": {"start_date": "2025-01-01"}}, "compare", "missing required field `end_date`"),
    ({"compare": {"start_date": "2025-01-02", "end_date": "2025-01-01"}}, "compare.start_date=", "must be before"),
    ({"aggregation_window": "1w", "week_start": "noday"}, "week_start=noday", "use one of monday"),
    ({"aggregation_window": "1mo", "anchor": "2025-02-30"}, "anchor=2025-02-30", "must be a date"),
    ({"aggregation_window": "1y", "fiscal_start": "02-29"}, "fiscal_start=02-29", "every year has"),
    ({"aggregation_window": "1y", "fiscal_start": "04-06", "anchor": "2025-01-01"}, "anchor=", "not both"),
    ({"aggregation_window": "1h", "rolling": "7d"}, "rolling=7d", "aggregation_window=1d only"),
    ({"rolling": "7d", "week_start": "monday"}, "week_start=monday", "does not go with rolling"),
    ({"filters": {"shop": {"like": "a"}}}, "shop=like", "unknown condition; use eq, in, not, gte, gt, lte, lt"),
    ({"filters": {"shop": {"gt": "a"}}}, "shop=gt a", "is no number but text"),
    ({"filters": {"shop": {}}}, "shop={}", "use some of"),
    ({"filters": {"shop": []}}, "shop=0 values", "at least one"),
    ({"filters": {"pieces": {"gte": None}}}, "pieces=None", "is no integer"),
    ({"filters": {"pieces": 1.5}}, "pieces=1.5", "is no integer"),
    ({"filters": {"pieces": {"gt": [1]}}}, "pieces=[1]", "is no integer"),
    ({"filters": {"shop": [["a"]]}}, "shop=['a']", "is no text"),
    ({"filters": {"shop": "\ud800"}}, "shop=", "holds what is no character"),
    ({"metrics": ["dreams.sales"]}, "event_type=dreams", "unknown; use one of sales, visits"),
    ({"metrics": ["sales", "sales"]}, "metrics=sales", "two numbers have this name"),
    ({"metrics": [{"measure": "sales", "name": "shop"}], "group_by": ["shop"]}, "metrics=shop", "something else"),
    ({"metrics": [{"measure": "sales", "name": "previous"}]}, "metrics=previous", "something else"),
    ({"metrics": [{"measure": "sales", "if": 1}]}, "metrics[0]", "unknown field `if`"),
    ({"metrics": ["sales"], "order": ["revenue"]}, "order=revenue", "use window, sales"),
    ({"metrics": ["sales", "visits.count"], "gift": True}, "gift=True", "unknown parameter for visits"),
    (
        {"metrics": [{"measure": "sales", "over": {"measure": "sales", "over": {"measure": "sales"}}}]},
        "over=sales", "has no divisor itself",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("content", "start", "words"), WRONG_BODIES)
def test_a_wrong_body_is_named_by_member(sales: Catalog, content: dict[str, Any], start: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_body(sales, {"event_type": "sales", **content}, NOW, "UTC")
    assert caught.value.refusal is Refusal.INVALID_QUERY
    assert caught.value.detail.startswith(start)
    assert words in caught.value.detail


def test_a_body_may_ask_for_much(sales: Catalog) -> None:
    query = parse_body(
        sales,
        {
            "event_type": "sales", "start_date": "2025-03-01", "end_date": "2025-03-31", "aggregation_window": "1w",
            "week_start": "Sunday", "gift": True, "filters": {"pieces": {"gte": 1, "lt": 9}, "shop": {"not": None}},
            "metrics": [{"measure": "sales", "name": "share", "filters": {"gift": True}, "over": {"measure": "sales"}}],
            "order": ["-share", "window"], "fill": "zero", "compare": "previous", "exact": True,
        },
        NOW, "Europe/Berlin",
    )  # fmt: skip
    assert query.windows == Windows(Grain.WEEK, week_start=6)
    assert query.filters == (
        Filter("gift", "in", ("true",)), Filter("pieces", "gte", ("1",)), Filter("pieces", "lt", ("9",)),
        Filter("shop", "not", (None,)),
    )  # fmt: skip
    [share] = query.metrics
    assert (share.filters, share.over) == ((Filter("gift", "in", ("true",)),), Metric("sales", "sales", "sales"))
    assert query.order == (Order("share", descending=True), Order("window"))
    # March has a clock change; the period before is February, of whole days too.
    assert query.compare == (datetime(2025, 1, 31, 23, tzinfo=UTC), query.start)


# Zone, window, range, where the period before begins.
PREVIOUS = [
    ("UTC", "1h", "2025-09-05T10:00:00Z", "2025-09-05T12:00:00Z", "2025-09-05T08:00:00Z"),
    ("UTC", "total", "2025-03-01", "2025-03-31", "2025-02-01"),
    ("Europe/Berlin", "1d", "2025-03-30", "2025-03-30", "2025-03-28T23:00:00Z"),
    ("Europe/Berlin", "1h", "2025-03-29T23:00:00Z", "2025-03-30T22:00:00Z", "2025-03-29T00:00:00Z"),
    ("UTC", "1mo", "2025-01-31T00:00:00Z", "2025-03-10T00:00:00Z", "2024-11-30T00:00:00Z"),
    ("UTC", "1y", "2024-01-01", "2024-12-31", "2023-01-01"),
]


@pytest.mark.parametrize(("zone", "window", "start", "end", "before"), PREVIOUS)
def test_the_period_before_is_as_long_by_the_calendar(
    sales: Catalog, zone: str, window: str, start: str, end: str, before: str
) -> None:
    content = {"event_type": "sales", "start_date": start, "end_date": end, "aggregation_window": window}
    query = parse_body(sales, {**content, "compare": "previous"}, NOW, zone)
    assert query.compare is not None
    assert query.compare == (datetime.fromisoformat(before).replace(tzinfo=UTC), query.start)


def test_metric_types_may_be_shares_and_figures_of_senders(catalog: Catalog) -> None:
    """The body as the metrics service documents it."""
    query = parse_body(
        catalog,
        {"start_date": "2025-09-05T00:00:00Z", "end_date": "2025-09-05T23:59:59Z", "user_id": USER,
         "aggregation_window": "1h", "metric_types": ["productivity_score", "error_rate", "executions"]},
        NOW, "UTC",
    )  # fmt: skip
    score, rate, executions = query.metrics
    assert (score.event_type, score.measure) == ("productivity_metrics", "metric_value_avg")
    assert score.filters == (Filter("metric_type", "in", ("productivity_score",)),)
    assert rate.filters == (Filter("status", "in", ("error",)),)
    assert rate.over == Metric("error_rate", "command_executions", "executions")
    assert executions == Metric("executions", "command_executions", "executions")
    assert query.event_types() == ["command_executions", "productivity_metrics"]
