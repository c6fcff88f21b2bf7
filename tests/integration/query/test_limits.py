"""What a query may cost: hostile ones are refused with the limit's name before they cost anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from integration.query.conftest import Asker
from totalizer.errors import Refusal, Refused
from totalizer.query.cost import WAITING_EACH, QueryLimits, Turns

TEN_YEARS = {"start_date": "2015-01-01", "end_date": "2024-12-31"}
HOSTILE: list[tuple[dict[str, Any], Refusal, str]] = [
    ({**TEN_YEARS, "aggregation_window": "1m"}, Refusal.QUERY_TOO_LARGE, "TOTALIZER_QUERY_WINDOWS_MAX"),
    ({**TEN_YEARS, "aggregation_window": "15m", "fill": "zero"}, Refusal.QUERY_TOO_LARGE, "windows"),
    (
        {"aggregation_window": "1m", "compare": {"start_date": "2000-01-01", "end_date": "2010-01-01"},
         "start_date": "2000-01-01", "end_date": "2025-01-01"},
        Refusal.QUERY_TOO_LARGE, "TOTALIZER_QUERY_WINDOWS_MAX",
    ),
    ({"group_by": [f"g{number}" for number in range(50)]}, Refusal.INVALID_QUERY, "give at most 10"),
    ({"command_name": [str(number) for number in range(100_000)]}, Refusal.INVALID_QUERY, "at most 100"),
    ({"metrics": ["executions"] * 1000}, Refusal.INVALID_QUERY, "give at most 20"),
    ({"cursor": "x" * 100_000}, Refusal.INVALID_QUERY, "is no cursor"),
    ({"cursor": "WyJ4IiwiMjAyNS0wOS0wNVQxMDowMDowMFoiLFtdXQ"}, Refusal.INVALID_QUERY, "another query"),
    ({"time_zone": "Mars/Olympus"}, Refusal.INVALID_QUERY, "unknown time zone"),
    ({"time_zone": "posix/UTC"}, Refusal.INVALID_QUERY, "time_zone"),
    ({"start_date": "2025-01-02", "end_date": "2025-01-01"}, Refusal.INVALID_QUERY, "must be before"),
    ({"rolling": "99999999999d"}, Refusal.INVALID_QUERY, "366d"),
    ({"limit": 10**9}, Refusal.INVALID_QUERY, "10000"),
    ({"anchor": "9999-12-31", "aggregation_window": "1mo"}, Refusal.INVALID_QUERY, "anchor"),
    ({"start_date": "1900-01-01", "end_date": "1900-01-05", "compare": "previous"}, Refusal.INVALID_QUERY, "1900"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "refusal", "words"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_query_is_refused_by_the_limits_name(
    feed: Any, ask: Any, request_: dict[str, Any], refusal: Refusal, words: str
) -> None:
    organization = feed.organization()
    with pytest.raises(Refused) as caught:
        ask.post(organization, **request_)
    assert caught.value.refusal is refusal
    assert 400 <= caught.value.status < 500
    assert words in caught.value.detail
    assert len(caught.value.detail) < 600


@pytest.mark.parametrize("window", ["15m", "1h", "1d", "1w", "1mo", "1q", "1y", "total"])
def test_what_looks_hostile_and_is_not_is_answered(feed: Any, ask: Any, window: str) -> None:
    years = {"start_date": "2023-01-01", "end_date": "2024-12-31"} if window == "15m" else TEN_YEARS
    assert ask.post(feed.organization(), **years, aggregation_window=window)["data"] == []


@pytest.fixture
def busy(feed: Any, command: Any) -> str:
    """An organisation with events that the database knows the number of."""
    organization: str = feed.organization("busy")
    feed.send(organization, command_executions=[
        command(executed_at=f"2025-04-{day:02d}T{hour:02d}:{minute:02d}:00Z")
        for day in range(1, 11) for hour in range(24) for minute in (0, 20, 40)
    ])  # fmt: skip
    feed.load()
    feed.refresh()
    feed.administrator.execute("ANALYZE events.command_executions")
    return organization


def limited(feed: Any, database: Any, catalog: Any, **limits: int) -> Asker:
    return Asker(feed, database, catalog, QueryLimits(**limits))


def test_events_that_would_be_read_are_estimated(feed: Any, database: Any, catalog: Any, busy: str) -> None:
    request = {"start_date": "2025-04-01", "end_date": "2025-04-10", "aggregation_window": "5m"}
    with pytest.raises(Refused, match=r"about \d+ events would have to be read.*TOTALIZER_QUERY_EVENTS_MAX") as caught:
        limited(feed, database, catalog, events=100).post(busy, **request)
    assert caught.value.refusal is Refusal.QUERY_TOO_LARGE
    assert limited(feed, database, catalog, events=100_000).post(busy, **request)["data"]
    # Rollups answer the rest without reading any.
    hours = limited(feed, database, catalog, events=0).post(busy, **{**request, "aggregation_window": "1h"})
    assert len(hours["data"]) == 240


def test_a_statement_that_takes_too_long_is_ended(feed: Any, database: Any, catalog: Any, busy: str) -> None:
    asker = limited(feed, database, catalog, timeout_ms=1)
    request = {
        "start_date": "2025-04-01", "end_date": "2025-04-10", "aggregation_window": "1m", "fill": "zero",
        "group_by": ["user_id", "command_name"], "limit": 10_000,
    }  # fmt: skip
    with pytest.raises(Refused, match=r"longer than 1 ms \(TOTALIZER_QUERY_TIMEOUT_MS\)") as caught:
        asker.post(busy, **request)
    assert (caught.value.refusal, caught.value.status) == (Refusal.QUERY_TIMEOUT, 422)


def test_so_many_dirty_buckets_that_they_are_not_told_apart(
    feed: Any, command: Any, database: Any, catalog: Any, busy: str
) -> None:
    feed.send(busy, command_executions=[command(executed_at=f"2025-04-0{day}T05:00:00Z") for day in range(1, 7)])
    feed.load()
    asker = limited(feed, database, catalog, dirty_buckets=3)
    answer = asker.post(busy, start_date="2025-04-01", end_date="2025-04-10", aggregation_window="total")
    assert answer["exact"]
    assert answer["data"][0]["executions"] == 10 * 72 + 6
    stale = limited(feed, database, catalog, dirty_buckets=3, dirty_events=10)
    answer = stale.post(busy, start_date="2025-04-01", end_date="2025-04-10", aggregation_window="total")
    assert (answer["exact"], answer["data"][0]["executions"]) == (False, 10 * 72)
    assert answer["stale"][-1]["end_date"] == "2025-04-11T00:00:00+00:00"


def test_so_many_at_once_and_no_more(feed: Any) -> None:
    async def crowd() -> tuple[int, int, int]:
        turns, running, most = Turns(QueryLimits(concurrency=2)), 0, 0

        async def one(organization: str) -> None:
            nonlocal running, most
            async with turns.turn(organization):
                running, most = running + 1, max(most, running + 1)
                await asyncio.sleep(0.01)
                running -= 1

        count = 2 * (1 + WAITING_EACH)
        results = await asyncio.gather(*(one("a") for _ in range(count + 3)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, Refused)]
        assert all(each.refusal is Refusal.TOO_MANY_QUERIES and each.retry_after_s == 1 for each in refused)
        await one("a")
        return len(refused), most, len(turns._turns)

    assert asyncio.run(crowd()) == (3, 2, 0)
