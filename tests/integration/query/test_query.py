"""Answers equal a count by hand, whatever is rolled up, marked or only in the events."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from totalizer.errors import Refused

START = datetime(2025, 3, 28, tzinfo=UTC)
END = datetime(2025, 4, 3, tzinfo=UTC)


def truncated(moment: datetime, window: str, zone: ZoneInfo, start: datetime) -> str:
    """Start of the local window that holds a moment, as an answer writes it."""
    local = moment.astimezone(zone)
    if window == "total":
        return start.astimezone(zone).isoformat()
    if window in ("15m", "1h"):
        step = 15 if window == "15m" else 60
        past = timedelta(minutes=local.minute % step, seconds=local.second, microseconds=local.microsecond)
        return (moment - past).astimezone(zone).isoformat()
    day = local.date()
    day -= timedelta(days=day.weekday() if window == "1w" else day.day - 1 if window == "1mo" else 0)
    return datetime(day.year, day.month, day.day, tzinfo=zone).isoformat()


@pytest.mark.parametrize("own_zone", ["Europe/Berlin", "Asia/Kathmandu"])
def test_answers_equal_a_count_by_hand(feed: Any, command: Any, ask: Any, own_zone: str) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    organization, other = feed.organization("mine", own_zone), feed.organization("other")
    events: list[tuple[datetime, str, int]] = []

    def send(count: int, *, first: datetime = START) -> None:
        batch = []
        for _ in range(count):
            moment = first + (END - first) * rng.random()
            events.append((moment, rng.choice(["plan", "build", "test"]), rng.randrange(1000)))
            batch.append(
                command(executed_at=moment.isoformat(), command_name=events[-1][1], execution_time_ms=events[-1][2])
            )
        feed.send(organization, command_executions=batch)
        feed.send(other, command_executions=batch)
        feed.load()

    send(400)
    feed.refresh()
    send(25, first=END - timedelta(days=2))  # stays marked
    for window in ("15m", "1h", "1d", "1w", "1mo", "total"):
        for time_zone in (None, "America/New_York"):
            start = START + timedelta(minutes=rng.randrange(0, 2000), seconds=rng.randrange(60))
            end = END - timedelta(minutes=rng.randrange(0, 2000), seconds=rng.randrange(60))
            parameters: dict[str, Any] = {
                "start_date": start.isoformat(), "end_date": end.isoformat(), "aggregation_window": window,
                "group_by": "command_name", "measures": "executions,execution_time_ms_sum", "limit": 10000,
            }  # fmt: skip
            if time_zone:
                parameters["time_zone"] = time_zone
            zone = ZoneInfo(time_zone or own_zone)
            expected: dict[tuple[str, str], list[int]] = {}
            for moment, name, took in events:
                if start <= moment < end:
                    entry = expected.setdefault((truncated(moment, window, zone, start), name), [0, 0])
                    entry[0] += 1
                    entry[1] += took
            answer = ask(organization, **parameters)
            got = {
                (row["window_start"], row["command_name"]): [row["executions"], row["execution_time_ms_sum"]]
                for row in answer["data"]
            }
            assert got == expected, (window, time_zone, answer["source"])
            assert answer["exact"]
            assert answer["complete"]
            assert answer["dirty_buckets"] > 0
            own_days = window == "total" or (time_zone is None and window in ("1d", "1w", "1mo"))
            assert ("1d" in answer["source"]) == own_days


def test_filters_measures_and_pages(feed: Any, command: Any, ask: Any) -> None:
    organization = feed.organization()
    team = "11111111-1111-4111-8111-111111111111"
    events = [
        command(command_name=f"c{number % 7}", status=("success", "error")[number % 2], execution_time_ms=number,
                executed_at="2025-04-01T10:00:00Z", **({"team_id": team} if number % 3 else {}))
        for number in range(100)
    ]  # fmt: skip
    feed.send(organization, command_executions=events)
    feed.load()
    feed.refresh()
    whole = ask(organization, start_date="2025-04-01", end_date="2025-04-01", group_by="command_name,team_id,status")
    assert len(whole["data"]) == 7 * 2 * 2
    assert sum(row["executions"] for row in whole["data"]) == 100
    pages, cursor = [], None
    while True:
        extra = {"cursor": cursor} if cursor else {}
        page = ask(
            organization, start_date="2025-04-01", end_date="2025-04-01", group_by="command_name,team_id,status",
            limit=5, **extra,
        )  # fmt: skip
        pages += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == whole["data"]
    errors = ask(
        organization, start_date="2025-04-01", end_date="2025-04-01", aggregation_window="total",
        status="error", command_name=["c1", "c2"],
    )["data"]  # fmt: skip
    mine = [e["execution_time_ms"] for e in events if e["status"] == "error" and e["command_name"] in ("c1", "c2")]
    assert errors[0]["executions"] == len(mine)
    assert float(errors[0]["execution_time_ms_avg"]) == pytest.approx(sum(mine) / len(mine))
    assert (errors[0]["execution_time_ms_min"], errors[0]["execution_time_ms_max"]) == (min(mine), max(mine))


def test_an_answer_says_whether_everything_acknowledged_is_in_it(feed: Any, command: Any, ask: Any) -> None:
    organization = feed.organization()
    assert ask(organization)["complete"], "nothing was sent"
    feed.send(organization, command_executions=[command()])
    assert not ask(organization)["complete"]
    feed.load()
    answer = ask(organization)
    assert answer["complete"]
    assert answer["data"][0]["executions"] == 1


def test_a_cursor_of_another_query_and_unknown_things_are_refused(feed: Any, command: Any, ask: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command(command_name=str(n)) for n in range(3)])
    feed.load()
    cursor = ask(organization, group_by="command_name", limit=1)["next_cursor"]
    for wrong, words in [
        ({"cursor": cursor}, "another query"),
        ({"cursor": "xx"}, "is no cursor"),
        ({"group_by": "error_message"}, "no rollup of command_executions has error_message"),
        ({"measures": "sheep"}, "sheep"),
        ({"event_type": "dreams"}, "dreams"),
    ]:
        with pytest.raises(Refused, match=words):
            ask(organization, **wrong)
