"""What one question may hold: several metrics, shares, other periods, order, explanations; events and dashboards."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from totalizer.errors import Refused
from totalizer.query.completeness import LocalJournals
from totalizer.query.exports.service import ExportService, Page
from totalizer.query.run import QueryService, configure_reader
from totalizer.store.roles import Role

TEAM = "11111111-1111-4111-8111-111111111111"
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
DAY = {"start_date": "2025-04-01", "end_date": "2025-04-01"}


@pytest.fixture
def acme(feed: Any, command: Any) -> str:
    """Commands of four days, agents of one, figures."""
    organization: str = feed.organization()
    at = "2025-04-0{day}T{hour:02d}:00:00Z"
    feed.send(
        organization,
        command_executions=[
            command(
                executed_at=at.format(day=day, hour=hour), command_name=("plan", "build")[hour % 2],
                status="error" if hour % 5 == 0 else "success", execution_time_ms=hour, team_id=TEAM,
            )
            for day in (1, 2, 3, 4)
            for hour in range(10 * day % 24)
        ],
        agent_interactions=[
            {"user_id": USER, "agent_name": "reviewer", "interaction_type": "t", "execution_time_ms": 1,
             "status": "success", "input_tokens": 100 * n, "output_tokens": 7, "occurred_at": at.format(day=1, hour=n)}
            for n in range(4)
        ],
        productivity_metrics=[
            {"user_id": USER, "metric_type": "productivity_score", "metric_value": value,
             "recorded_at": at.format(day=1, hour=hour)}
            for hour, value in ((0, 0.5), (0, 0.75), (7, 1))
        ],
    )  # fmt: skip
    feed.load()
    feed.refresh()
    return organization


LONG = "123456789012.123456"


@pytest.mark.parametrize(
    ("credits", "total", "largest", "mean"),
    [
        (["0.10", "0.90"], "1", "0.9", "0.5"),
        (["1", "0", "0"], "1", "1", "0.333333"),
        (["2", "0", "1"], "3", "2", "1"),
        (["0.000001", "0"], "0.000001", "0.000001", "0.000001"),
        ([LONG], LONG, LONG, LONG),
        ([LONG, "0.000001"], LONG[:-1] + "7", LONG, "61728394506.061729"),
        (["100000000000"] * 3, "300000000000", "100000000000", "100000000000"),
        ([], None, None, None),
    ],
)
def test_sums_are_told_to_their_last_digit_and_shares_to_six_after_the_point(
    feed: Any, ask: Any, credits: list[str], total: str | None, largest: str | None, mean: str | None
) -> None:
    organization = feed.organization()
    event = {"workspace_id": "w", "resource": "r", "consumed_at": "2025-04-01T10:00:00Z"}
    if credits:
        feed.send(organization, credit_consumption=[{**event, "credits": each} for each in credits])
    feed.load()
    feed.refresh()
    question = {
        **DAY, "event_type": "credit_consumption", "aggregation_window": "total", "fill": "null",
        "metrics": [
            "credits", "credits_max", {"name": "each", "measure": "credits", "over": {"measure": "consumptions"}},
        ],
    }  # fmt: skip
    reply = ask.reply(organization, question)
    [row] = json.loads(reply.body, parse_int=str, parse_float=str)["data"]
    assert (row["credits"], row["credits_max"], row["each"]) == (total, largest, mean)


def test_metrics_of_several_types_stand_side_by_side(ask: Any, acme: str) -> None:
    answer = ask.post(
        acme, **DAY, aggregation_window="total", group_by=["user_id"], metrics=[
            "executions", "agent_interactions.interactions", "error_rate", "productivity_metrics.samples",
            {"name": "slow", "measure": "executions", "filters": {"status": "success", "command_name": "plan"}},
            {"name": "tokens each", "event_type": "agent_interactions", "measure": "input_tokens",
             "over": {"measure": "interactions"}},
        ],
    )  # fmt: skip
    assert answer["data"] == [{
        "window_start": "2025-04-01T00:00:00+00:00", "user_id": USER, "executions": 10,
        "agent_interactions.interactions": 4, "error_rate": 0.2, "productivity_metrics.samples": 3, "slow": 4,
        "tokens each": 150,
    }]  # fmt: skip
    assert [metric["rollup"] for metric in answer["query"]["metrics"]] == [
        "command_usage", "agent_usage", "command_usage", "productivity", "command_usage", "agent_usage",
    ]  # fmt: skip


def test_what_one_metric_lacks_is_null_or_zero(ask: Any, acme: str) -> None:
    request = {**DAY, "aggregation_window": "1h", "metrics": ["executions", "agent_interactions.interactions"]}
    rows = ask.post(acme, **request)["data"]
    assert [row["agent_interactions.interactions"] for row in rows] == [1] * 4 + [None] * 6
    filled = ask.post(acme, **request, fill="zero")["data"]
    assert [row["agent_interactions.interactions"] for row in filled] == [1] * 4 + [0] * 20
    assert [row["executions"] for row in ask.post(acme, **request, fill="null")["data"]] == [1] * 10 + [None] * 14


def test_the_documented_body(ask: Any, acme: str) -> None:
    answer = ask.post(
        acme, start_date="2025-04-01T00:00:00Z", end_date="2025-04-01T23:59:59Z", user_id=USER,
        aggregation_window="1h", metric_types=["productivity_score", "error_rate"],
    )  # fmt: skip
    assert answer["data"][0]["productivity_score"] == 0.625
    assert [row["error_rate"] for row in answer["data"]] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert answer["data"][7]["productivity_score"] == 1


def test_the_period_before_stands_beside_each_row(ask: Any, acme: str) -> None:
    request = {"start_date": "2025-04-02", "end_date": "2025-04-02", "measures": "executions"}
    [total] = ask(acme, **request, aggregation_window="total", compare="previous")["data"]
    assert (total["executions"], total["previous"], total["change"]) == (20, {"executions": 10}, {"executions": 10})
    hours = ask(acme, **request, aggregation_window="1h", compare="previous", fill="zero")["data"]
    assert [row["previous"]["executions"] for row in hours] == [1] * 10 + [0] * 14
    assert [row["executions"] for row in hours] == [1] * 20 + [0] * 4
    days = ask.post(
        acme, start_date="2025-04-03", end_date="2025-04-04", aggregation_window="1d", metrics=["executions"],
        compare={"start_date": "2025-04-01", "end_date": "2025-04-02"},
    )["data"]  # fmt: skip
    assert [(row["executions"], row["previous"]["executions"]) for row in days] == [(6, 10), (16, 20)]


def test_the_largest_come_first_and_their_pages_hold_while_nothing_changes(
    feed: Any, command: Any, ask: Any, acme: str
) -> None:
    request = {"start_date": "2025-04-01", "end_date": "2025-04-04", "aggregation_window": "1d", "order": "-executions"}
    assert [row["executions"] for row in ask(acme, **request)["data"]] == [20, 16, 10, 6]
    first = ask(acme, **request, limit=3)
    second = ask(acme, **request, limit=3, cursor=first["next_cursor"])
    assert [row["executions"] for row in second["data"]] == [6]
    feed.send(acme, command_executions=[command(executed_at="2025-04-03T20:00:00Z") for _ in range(30)])
    feed.load()
    with pytest.raises(Refused, match="the data have changed since the page before"):
        ask(acme, **request, limit=3, cursor=first["next_cursor"])
    # In order of windows it goes on, whatever has arrived.
    by_window = {**request, "order": "window"}
    page = ask(acme, **by_window, limit=2)
    feed.send(acme, command_executions=[command(executed_at="2025-04-01T20:00:00Z")])
    feed.load()
    rest = ask(acme, **by_window, limit=2, cursor=page["next_cursor"])
    assert [row["executions"] for row in (*page["data"], *rest["data"])] == [10, 20, 36, 16]


def test_an_answer_explains_itself(feed: Any, command: Any, ask: Any, acme: str) -> None:
    feed.send(acme, command_executions=[command(executed_at="2025-04-02T20:05:00Z")])
    feed.load()
    answer = ask(
        acme, start_date="2025-04-01", end_date="2025-04-03", aggregation_window="1d", measures="executions",
        group_by="status", explain="true",
    )  # fmt: skip
    [part] = answer["explanation"]["parts"]
    assert (part["rollup"], part["dirty_buckets"], part["stale"]) == ("command_usage", 1, False)
    read = {source["source"]: (source["pieces"], source["rows"]) for source in part["sources"]}
    # Two users' rows in a bucket would be two: these are of one user, by command and status.
    assert read["1d"] == (2, 4 + 4)
    assert read["1h"] == (2, 20)
    assert read["events"] == (1, 1)
    assert answer["source"] == "1d+1h+15m+events"
    assert "WITH" in answer["explanation"]["statement"]
    assert answer["estimates"] == []
    whole = ask(acme, start_date="2025-04-01", end_date="2025-04-03", aggregation_window="total")
    assert whole["estimates"] == ["execution_time_ms_quantiles"], "few users are counted exactly"
    assert whole["data"][0]["users"] == 1
    with pytest.raises(Refused, match="explain=maybe"):
        ask(acme, explain="maybe")


def test_windows_shorter_than_stored_ones_are_read_from_events(ask: Any, acme: str) -> None:
    rows = ask(acme, **DAY, aggregation_window="5m", measures="executions")
    assert (len(rows["data"]), rows["source"]) == (10, "events")


def test_totals_are_exported_whatever_the_limit_of_a_page(feed: Any, database: Any, catalog: Any, acme: str) -> None:
    async def pages() -> list[list[tuple[Any, ...]]]:
        async with AsyncConnectionPool(
            database.dsn(Role.APP), min_size=1, max_size=1, configure=configure_reader, open=False
        ) as pool:
            exports = ExportService(pool, QueryService(pool, catalog, LocalJournals(feed.spool)))
            asked = {
                "start_date": ["2025-04-01"], "end_date": ["2025-04-02"], "aggregation_window": ["1m"],
                "fill": ["zero"], "measures": ["executions"],
            }  # fmt: skip
            return [part.rows async for part in exports.totals(acme, asked) if isinstance(part, Page)]

    found = asyncio.run(pages())
    assert [len(rows) for rows in found] == [2000, 880]
    assert found[0][0] == ("2025-04-01T00:00:00+00:00", 1)
