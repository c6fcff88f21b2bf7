"""Live windows beside journals and database: whatever happens, they come to the database's own numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live_world import LIMITS, live_windows, of_answer, of_database, until
from totalizer.clock import utc_text
from totalizer.errors import Refusal, Refused
from totalizer.journal import Journal, claim
from totalizer.live import LiveWindows
from totalizer.live.follow import Failure
from totalizer.load import Loader
from totalizer.settings.live import WINDOWS
from totalizer.store.roles import Role

BY_NAME_AND_STATUS = {"group_by": ["command_name,status"]}


def ago(**delta: float) -> str:
    moment = datetime.now(UTC) - timedelta(**delta)
    return utc_text(int(moment.timestamp() * 1e9))


async def answer(live: LiveWindows, organization_id: str, window: str = "5m", **parameters: list[str]) -> Any:
    return await live.answer(organization_id, live.asks.parse(window, parameters or BY_NAME_AND_STATUS))


async def settled(live: LiveWindows, organization_id: str) -> None:
    """Wait until live windows have noticed that everything is loaded."""

    async def nothing_pending() -> bool:
        return (await answer(live, organization_id))["pending"] == 0

    await until(nothing_pending, "settling")


async def assert_equal(feed: Any, live: LiveWindows, organization_id: str, windows: Any = WINDOWS) -> None:
    for window in windows:
        found = await answer(live, organization_id, window)
        assert of_answer(found) == of_database(feed, organization_id, found), window
        assert (found["exact"], found["complete"], found["failed"]) == (True, True, 0)


class Two:
    """The journals of two API processes of one machine."""

    def __init__(self, feed: Any) -> None:
        self._feed = feed
        self._second: Journal = claim(feed.spool, "api", segment_bytes=1 << 20, quota_bytes=1 << 30)

    def send(self, journal: int, organization_id: str, events: list[dict[str, Any]]) -> None:
        body = msgspec.json.encode({"command_executions": events})
        payload = self._feed.collector.admit_batch(organization_id, body).payload
        (self._feed.journal, self._second)[journal].append_and_wait(payload)

    def close(self) -> None:
        self._second.close()


EVENT = st.builds(
    lambda number, name, status, duration, seconds: {
        "id": f"{number}", "command_name": name, "status": status, "execution_time_ms": duration, "ago": seconds,
    },
    st.integers(0, 40), st.sampled_from(["plan", "build", "t\tab\\"]), st.sampled_from(["success", "error"]),
    st.integers(0, 1000), st.sampled_from([0, 1, 20, 55, 59, 61, 200, 299, 800, 3500, 3700, 40_000, 86_000, 90_000]),
)  # fmt: skip
STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.lists(EVENT, min_size=1, max_size=8)),
    st.tuples(st.sampled_from(["load", "refresh", "restart", "ask"])),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEP, min_size=3, max_size=14))
def test_windows_come_to_the_numbers_of_the_database(feed: Any, database: Any, catalog: Any, steps: list[Any]) -> None:
    """Late, repeated, conflicting events through two journals; the loader, the rollups and the process come and go."""
    user = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
    two = Two(feed)
    numbers = iter(range(1000))
    organization_id = feed.organization(f"of {id(steps)} {datetime.now(UTC)}")
    other = feed.organization(f"other {id(steps)} {datetime.now(UTC)}")

    async def play(remaining: list[Any]) -> list[Any]:
        """Until the next restart; what is left."""
        async with live_windows(database, feed.spool, catalog) as live:
            await answer(live, organization_id)
            while remaining:
                step = remaining.pop(0)
                if step[0] == "restart":
                    return remaining
                if step[0] == "send":
                    events = [{**event, "user_id": user, "executed_at": ago(seconds=event["ago"])} for event in step[2]]
                    for event in events:
                        del event["ago"]
                    two.send(step[1], organization_id, events)
                    two.send(step[1], other, [{**events[0], "id": f"o{next(numbers)}"}])
                elif step[0] == "load":
                    feed.load()
                    await settled(live, organization_id)
                    await assert_equal(feed, live, organization_id, ["5m", "1d"])
                elif step[0] == "refresh":
                    feed.refresh()
                else:
                    await answer(live, organization_id, "1h")
            feed.load()
            await settled(live, organization_id)
            await assert_equal(feed, live, organization_id)
            await assert_equal(feed, live, other)
        return []

    try:
        remaining = [*steps, ("end",)]
        while remaining:
            remaining = asyncio.run(play(remaining))
    finally:
        two.close()


def run(feed: Any, catalog: Any, work: Callable[[LiveWindows], Awaitable[None]], **limits: Any) -> None:
    async def go() -> None:
        async with live_windows(feed.database, feed.spool, catalog, LIMITS._replace(**limits)) as live:
            await work(live)

    asyncio.run(go())


def test_while_the_loader_rests_each_event_counts_once(feed: Any, catalog: Any, command: Any) -> None:
    organization_id = feed.organization()
    feed.send(organization_id, command_executions=[command(id="stored")])
    feed.load()
    two = Two(feed)

    async def work(live: LiveWindows) -> None:
        await answer(live, organization_id)
        for _ in range(2):
            two.send(0, organization_id, [command(id="a"), command(id="b"), command()])
            two.send(1, organization_id, [command(id="b"), command(id="c")])
        found = await answer(live, organization_id)
        # a, b, c, two without ids, and the stored one
        assert (found["data"][0]["executions"], found["pending"]) == (6, 5)
        feed.load()
        await settled(live, organization_id)
        await assert_equal(feed, live, organization_id)

    try:
        run(feed, catalog, work)
    finally:
        two.close()


def test_after_a_restart_the_journal_is_read_again(feed: Any, catalog: Any, command: Any) -> None:
    organization_id = feed.organization()
    feed.send(organization_id, command_executions=[command(id=str(n)) for n in range(5)])
    feed.load()
    feed.send(organization_id, command_executions=[command(id=f"b{n}") for n in range(3)])

    async def work(live: LiveWindows) -> None:
        for window in WINDOWS:
            found = await answer(live, organization_id, window)
            assert (found["data"][0]["executions"], found["pending"]) == (8, 3)

    run(feed, catalog, work)
    run(feed, catalog, work)


def test_an_organisation_that_is_asked_for_later_has_what_is_not_loaded(feed: Any, catalog: Any, command: Any) -> None:
    """The journal was read beyond that already, for another organisation."""
    first, second = feed.organization("first"), feed.organization("second")

    async def work(live: LiveWindows) -> None:
        await answer(live, first)
        feed.send(second, command_executions=[command(), command()])
        feed.send(first, command_executions=[command()])
        assert (await answer(live, first))["data"][0]["executions"] == 1
        assert (await answer(live, second))["data"][0]["executions"] == 2
        feed.load()
        for organization_id in (first, second):
            await settled(live, organization_id)
            await assert_equal(feed, live, organization_id)

    run(feed, catalog, work)


def test_groups_beyond_the_limit_are_one_and_the_total_stays_exact(feed: Any, catalog: Any, command: Any) -> None:
    organization_id = feed.organization()
    feed.send(organization_id, command_executions=[command(command_name=f"n{n}") for n in range(30) for _ in range(2)])
    feed.load()
    feed.send(organization_id, command_executions=[command(command_name=f"m{n}") for n in range(30)])

    async def work(live: LiveWindows) -> None:
        total = await answer(live, organization_id, measures=["executions"])
        assert (total["data"], total["exact"]) == ([{"executions": 90}], True)
        divided = await answer(live, organization_id, group_by=["command_name"])
        assert (len(divided["data"]), divided["exact"]) == (20, False)
        assert sum(row["executions"] for row in divided["data"]) + divided["other"]["executions"] == 90

    run(feed, catalog, work, groups_max=20)


def test_memory_stays_within_its_bound(feed: Any, catalog: Any, command: Any) -> None:
    organizations = [feed.organization(str(number)) for number in range(6)]
    for organization_id in organizations:
        events = [command(command_name=f"n{n}", executed_at=ago(seconds=n % 200)) for n in range(1500)]
        feed.send(organization_id, command_executions=events)
    feed.load()
    bound = 3 << 20

    async def work(live: LiveWindows) -> None:
        for organization_id in organizations:
            found = await answer(live, organization_id, measures=["executions"])
            assert found["data"] == [{"executions": 1500}]
            assert 0 < live.memory_bytes() <= bound

    run(feed, catalog, work, memory_bytes=bound, groups_max=5000)

    async def too_small(live: LiveWindows) -> None:
        with pytest.raises(Refused) as refused:
            await answer(live, organizations[0])
        assert refused.value.refusal is Refusal.LIVE_UNAVAILABLE
        assert live.memory_bytes() <= 100_000

    run(feed, catalog, too_small, memory_bytes=100_000, groups_max=5000)


def test_what_is_loaded_from_a_journal_elsewhere_is_read_from_the_database(
    feed: Any, catalog: Any, command: Any, tmp_path: Path
) -> None:
    """Another machine has its own journals and loader."""
    organization_id = feed.organization()
    elsewhere = claim(tmp_path / "elsewhere", "api", segment_bytes=1 << 20, quota_bytes=1 << 30)
    loader = Loader(feed.database.dsn(Role.WRITER), tmp_path / "elsewhere", rows_max=1000)

    async def work(live: LiveWindows) -> None:
        assert (await answer(live, organization_id))["complete"] is True
        body = msgspec.json.encode({"command_executions": [command()]})
        elsewhere.append_and_wait(feed.collector.admit_batch(organization_id, body).payload)
        loader.drain()

        async def told() -> bool:
            found = await answer(live, organization_id)
            return bool(found["data"]) and not found["complete"]

        await until(told, "reading the window anew")

    try:
        run(feed, catalog, work)
    finally:
        loader.close()
        elsewhere.close()


def test_what_is_put_right_by_hand_is_found_when_windows_are_read_anew(feed: Any, catalog: Any, command: Any) -> None:
    organization_id = feed.organization()
    feed.send(organization_id, command_executions=[command(), command()])
    feed.load()

    async def work(live: LiveWindows) -> None:
        assert (await answer(live, organization_id))["data"][0]["executions"] == 2
        feed.administrator.execute("DELETE FROM events.command_executions")

        async def gone() -> bool:
            return (await answer(live, organization_id))["data"] == []

        await until(gone, "reading the window anew")

    run(feed, catalog, work, flush_interval_s=0.5)


def test_what_is_no_event_is_counted_apart_and_harms_nothing(feed: Any, catalog: Any, command: Any) -> None:
    organization_id = feed.organization()

    async def work(live: LiveWindows) -> None:
        await answer(live, organization_id)
        good = feed.send(organization_id, command_executions=[command()]).payload
        feed.append(good.replace(b"\tsuccess\t", b"success"))
        feed.append(good[:-5])
        feed.append(b"nothing")
        found = await answer(live, organization_id)
        assert (found["data"][0]["executions"], found["failed"]) == (1, 2)
        feed.load()
        await settled(live, organization_id)
        assert of_answer(found) == of_database(feed, organization_id, found)
        assert all(isinstance(failure, Failure) for failure in live.failures)
        assert len(live.failures) >= 2

    run(feed, catalog, work)


def test_a_database_that_is_away_refuses_and_a_window_in_use_goes_on(feed: Any, catalog: Any, command: Any) -> None:
    organization_id = feed.organization()

    async def work(live: LiveWindows) -> None:
        await answer(live, organization_id)
        feed.administrator.execute("ALTER ROLE totalizer_app NOLOGIN")
        try:
            feed.administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'totalizer_app'"
            )
            feed.send(organization_id, command_executions=[command()])
            assert (await answer(live, organization_id))["data"][0]["executions"] == 1
            with pytest.raises(Refused) as refused:
                await answer(live, organization_id, "1h")
            assert refused.value.refusal is Refusal.LIVE_UNAVAILABLE
        finally:
            feed.administrator.execute("ALTER ROLE totalizer_app LOGIN")

    run(feed, catalog, work)


def test_a_long_rest_of_the_loader_joins_pieces_and_loses_none(feed: Any, catalog: Any, command: Any) -> None:
    organization_id = feed.organization()

    async def work(live: LiveWindows) -> None:
        await answer(live, organization_id)
        for number in range(200):
            feed.send(organization_id, command_executions=[command(id=str(number // 2), execution_time_ms=number // 2)])
            found = await answer(live, organization_id)
        assert (found["data"][0]["executions"], found["pending"]) == (100, 100)
        feed.load()
        await settled(live, organization_id)
        await assert_equal(feed, live, organization_id)

    run(feed, catalog, work)


def test_floating_point_sums_are_the_databases(feed: Any, catalog: Any) -> None:
    organization_id = feed.organization()
    user = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
    values = [0.1, 0.2, 1 / 3, 1e-7, 123456.789012345678, -5e15, 2.5e-300]

    def send() -> None:
        metrics = [{"user_id": user, "metric_type": "x", "metric_value": value} for value in values]
        feed.send(organization_id, productivity_metrics=metrics)

    async def work(live: LiveWindows) -> None:
        send()
        found = (await answer(live, organization_id, event_type=["productivity_metrics"]))["data"]
        feed.load()
        await settled(live, organization_id)
        again = (await answer(live, organization_id, event_type=["productivity_metrics"]))["data"]
        assert found == again
        sums = feed.rows(
            "SELECT count(*), sum(metric_value::numeric), min(metric_value), max(metric_value) "
            "FROM events.productivity_metrics"
        )
        [row] = again
        assert [tuple(row[f"metric_value_{name}"] for name in ("sum", "min", "max"))] == [each[1:] for each in sums]

    run(feed, catalog, work)
    run(feed, catalog, work)
