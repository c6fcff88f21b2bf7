"""Rollups equal their events, whatever order things happen in."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from totalizer.rollup.refresh import refresh
from totalizer.rollup.verify import verify
from totalizer.store.roles import Role

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo")
#: Around it: Berlin's clocks go forward on 30 March 2025 and back on 26 October.
SPRING = datetime(2025, 3, 30, 1, 0, tzinfo=UTC)


def days_of(feed: Any, organization: str) -> dict[str, int]:
    return {
        day.isoformat(): count
        for day, count in feed.rows(
            "SELECT day, sum(executions)::int FROM analytics.command_usage_1d WHERE organization_id = %s GROUP BY 1",
            organization,
        )
    }


@pytest.mark.parametrize("zone_name", ZONES)
def test_days_are_those_of_the_organisations_zone(feed: Any, command: Any, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    organization = feed.organization("here", zone_name)
    moments = [SPRING + timedelta(minutes=17 * step) for step in range(-300, 300)]
    feed.send(organization, command_executions=[command(executed_at=moment.isoformat()) for moment in moments])
    feed.load()
    feed.refresh()
    expected: dict[str, int] = {}
    for moment in moments:
        day = moment.astimezone(zone).date().isoformat()
        expected[day] = expected.get(day, 0) + 1
    assert days_of(feed, organization) == expected
    assert all(balance.exact for balance in verify(feed.reader))


def test_random_sends_loads_and_refreshes_agree_with_a_model(feed: Any, command: Any) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    organizations = [feed.organization(f"o{number}", zone) for number, zone in enumerate(ZONES[:3])]
    model: dict[tuple[str, str], tuple[str, str, int]] = {}
    for step in range(60):
        organization = rng.choice(organizations)
        events = []
        for _ in range(rng.randrange(1, 20)):
            event_id = f"e{rng.randrange(400)}"
            moment = SPRING + timedelta(minutes=rng.randrange(-3000, 3000))
            event = command(
                id=event_id, executed_at=moment.isoformat(), command_name=rng.choice("ab"),
                status=rng.choice(["success", "error"]), execution_time_ms=rng.randrange(1000),
            )  # fmt: skip
            events.append(event)
            model.setdefault(
                (organization, event_id), (event["command_name"], event["status"], event["execution_time_ms"])
            )
        feed.send(organization, command_executions=events)
        if rng.random() < 0.5:
            feed.load()
        if rng.random() < 0.3:
            feed.refresh()
            assert all(balance.exact for balance in verify(feed.reader)), f"step {step}"
    feed.load()
    feed.refresh()
    totals: dict[tuple[str, str, str], list[int]] = {}
    for (organization, _), (name, status, took) in model.items():
        entry = totals.setdefault((organization, name, status), [0, 0])
        entry[0] += 1
        entry[1] += took
    rows = feed.rows(
        "SELECT organization_id::text, command_name, status, sum(executions)::int, sum(execution_time_ms_sum)::int "
        "FROM analytics.command_usage_1d GROUP BY 1, 2, 3"
    )
    assert {row[:3]: list(row[3:]) for row in rows} == totals
    balances = verify(feed.reader)
    assert len(balances) == 3
    assert all(balance.exact and balance.dirty_buckets == 0 for balance in balances)


def test_loading_and_refreshing_at_once_loses_no_update(feed: Any, database: Any, command: Any) -> None:
    organization = feed.organization()
    done = threading.Event()
    failures: list[Exception] = []

    def refresh_again_and_again() -> None:
        try:
            connection = database.connect(Role.REFRESHER)
            while not done.is_set():
                refresh(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
            failures.append(error)

    workers = [threading.Thread(target=refresh_again_and_again) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(60):
        moments = [SPRING + timedelta(minutes=minute) for minute in range(30)]
        feed.send(organization, command_executions=[command(executed_at=moment.isoformat()) for moment in moments])
        feed.load()
    done.set()
    for worker in workers:
        worker.join()
    assert failures == []
    feed.refresh()
    assert sum(days_of(feed, organization).values()) == 1800
    assert [(balance.exact, balance.dirty_buckets) for balance in verify(feed.reader)] == [(True, 0)]


def test_floating_point_sums_do_not_depend_on_order(feed: Any) -> None:
    organization = feed.organization()
    values = [0.1, 0.2, 0.3, 1e15, -1e15, 1e-9] * 7
    random.shuffle(values)
    user = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
    for value in values:
        feed.send(
            organization,
            productivity_metrics=[{"user_id": user, "metric_type": "m", "metric_value": value}],
        )
    feed.load()
    feed.refresh()
    total = feed.one("SELECT metric_value_sum FROM analytics.productivity_1d")
    assert str(total.normalize()) == "4.200000007"
    assert all(balance.exact for balance in verify(feed.reader))


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE analytics.command_usage_1d SET executions = executions + 1",
        "UPDATE analytics.command_usage_15m SET execution_time_ms_sum = 0",
        "DELETE FROM analytics.command_usage_15m",
        "INSERT INTO analytics.command_usage_15m (organization_id, bucket, user_id, executions) "
        "SELECT organization_id, bucket + interval '15 minutes', user_id, 1 FROM analytics.command_usage_15m",
        "DELETE FROM events.command_executions",
        "UPDATE totalizer.load_ledger SET loaded = loaded + 1",
    ],
)
def test_verify_finds_a_number_changed_by_hand(feed: Any, command: Any, tampering: str) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command(executed_at="2025-01-01T10:00:00Z")])
    feed.load()
    feed.refresh()
    assert [balance.exact for balance in verify(feed.reader)] == [True]
    feed.administrator.execute(tampering)
    assert [balance.exact for balance in verify(feed.reader)] == [False]


def test_verify_leaves_out_what_is_marked_as_behind(feed: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    assert [(b.exact, b.dirty_buckets, b.events) for b in verify(feed.reader)] == [(True, 1, 1)]
