"""Live windows of two machines over one database and one Redis: each tells the sum of both, loaded or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from live_world import live_windows, of_answer, of_database, until
from totalizer.journal import Journal, claim
from totalizer.live import LiveWindows
from totalizer.live.relay import KEY_PREFIX
from totalizer.load import Loader
from totalizer.ops.embedded import EmbeddedValkey
from totalizer.store.roles import Role

BY_NAME_AND_STATUS = {"group_by": ["command_name,status"]}


class Machines:
    """Two machines, each with a data folder, a journal and a loader."""

    def __init__(self, feed: Any, catalog: Any, valkey: EmbeddedValkey, folder: Path) -> None:
        self.feed, self._catalog, self.url = feed, catalog, valkey.url
        self._spools = [feed.spool, folder / "second" / "journal"]
        second: Journal = claim(self._spools[1], "api", segment_bytes=1 << 20, quota_bytes=1 << 30)
        self._journals = [feed.journal, second]
        self._loaders = [feed.loader, Loader(feed.database.dsn(Role.WRITER), self._spools[1], rows_max=1000)]
        self.organization_id = feed.organization(f"of {folder} {datetime.now(UTC)}")
        self.redis = Redis.from_url(valkey.url)
        self.redis.flushall()

    def live(self, machine: int) -> Any:
        """The live windows of a process of a machine."""
        return live_windows(self.feed.database, self._spools[machine], self._catalog, redis_url=self.url)

    def send(self, machine: int, *events: dict[str, Any]) -> None:
        body = msgspec.json.encode({"command_executions": events})
        payload = self.feed.collector.admit_batch(self.organization_id, body).payload
        self._journals[machine].append_and_wait(payload)

    def load(self, machine: int) -> None:
        self._loaders[machine].drain()

    def told(self) -> list[bytes]:
        """The keys with what machines tell each other."""
        return [key for kind in ("notice", "records") for key in self.redis.keys(f"{KEY_PREFIX}:{kind}:*")]

    async def answer(self, live: LiveWindows, window: str = "5m") -> Any:
        return await live.answer(self.organization_id, live.asks.parse(window, BY_NAME_AND_STATUS))

    async def comes_to(self, live: LiveWindows, count: int, *, complete: bool = True) -> Any:
        """Wait until a machine tells that many events; the answer."""
        found: Any = None

        async def there() -> bool:
            nonlocal found
            found = await self.answer(live)
            total = sum(row["executions"] for row in found["data"])
            assert total <= count, f"{total} of {count}"
            return total == count and found["complete"] is complete

        await until(there, f"{count} events, complete={complete}")
        return found

    async def equals_database(self, live: LiveWindows) -> None:
        async def equal() -> bool:
            for window in ("5m", "1d"):
                found = await self.answer(live, window)
                if of_answer(found) != of_database(self.feed, self.organization_id, found) or not found["complete"]:
                    return False
            return bool(found["pending"] == 0)

        await until(equal, "the numbers of the database")

    def close(self) -> None:
        self._loaders[1].close()
        self._journals[1].close()
        self.redis.close()


@pytest.fixture
def machines(feed: Any, catalog: Any, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(feed, catalog, valkey, tmp_path)
    yield machines
    machines.close()


def run(machines: Machines, work: Callable[[LiveWindows, LiveWindows], Awaitable[None]]) -> None:
    async def go() -> None:
        async with machines.live(0) as first, machines.live(1) as second:
            await work(first, second)

    asyncio.run(go())


def test_each_machine_tells_the_sum_of_all(machines: Machines, command: Any) -> None:
    """
    first   |a a b|  loaded here  |    |a
    second  |a c c c|             |load|     b again
    """
    machines.send(0, command(id="1"), command(id="2"), command(id="3"))
    machines.load(0)
    machines.send(1, *(command(id=f"s{number}") for number in range(4)))

    async def work(first: LiveWindows, second: LiveWindows) -> None:
        assert (await machines.comes_to(first, 7))["pending"] == 4
        assert (await machines.comes_to(second, 7))["pending"] == 4
        machines.send(0, command(id="5"))
        machines.send(1, command(id="5"), command(id="6"))
        for live in (first, second):
            assert (await machines.comes_to(live, 9))["pending"] == 6, "what is sent to both counts once"
        machines.load(1)
        for live in (first, second):
            await machines.comes_to(live, 9)
        machines.load(0)
        for live in (first, second):
            await machines.equals_database(live)

    run(machines, work)


EVENT = st.builds(
    lambda number, name, status: {
        "id": f"{number}", "command_name": name, "status": status, "execution_time_ms": number,
    },
    st.integers(0, 30), st.sampled_from(["plan", "build"]), st.sampled_from(["success", "error"]),
)  # fmt: skip
STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.lists(EVENT, min_size=1, max_size=5)),
    st.tuples(st.sampled_from(["load", "restart", "ask"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["refresh", "forget"])),
)


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(STEP, min_size=3, max_size=10))
def test_both_come_to_the_numbers_of_the_database(
    feed: Any, catalog: Any, valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """Repeated and conflicting events on both; loaders, rollups and processes come and go, Redis forgets."""
    machines = Machines(feed, catalog, valkey, tmp_path_factory.mktemp("machines"))
    user = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"

    async def begin(stack: AsyncExitStack, machine: int) -> LiveWindows:
        live: LiveWindows = await stack.enter_async_context(machines.live(machine))
        await machines.answer(live)
        return live

    async def play() -> None:
        async with AsyncExitStack() as first, AsyncExitStack() as second:
            stacks = [first, second]
            lives = [await begin(stack, machine) for machine, stack in enumerate(stacks)]
            for what, *more in steps:
                machine = more[0] if more else 0
                if what == "send":
                    machines.send(machine, *({**event, "user_id": user} for event in more[1]))
                elif what == "load":
                    machines.load(machine)
                elif what == "restart":
                    await stacks[machine].aclose()
                    lives[machine] = await begin(stacks[machine], machine)
                elif what == "refresh":
                    feed.refresh()
                elif what == "forget":
                    machines.redis.flushall()
                else:
                    await machines.answer(lives[machine])
            machines.load(0)
            machines.load(1)
            for live in lives:
                await machines.equals_database(live)

    try:
        asyncio.run(play())
    finally:
        machines.close()


def test_what_a_machine_told_before_it_was_gone_stays(machines: Machines, command: Any) -> None:
    async def work() -> None:
        async with machines.live(0) as first:
            async with machines.live(1) as second:
                machines.send(1, command(), command())
                await machines.comes_to(second, 2)
                await machines.comes_to(first, 2)
            machines.send(0, command())
            await machines.comes_to(first, 3, complete=False)
        async with machines.live(0) as first:
            await machines.comes_to(first, 3, complete=False)
            machines.load(1)
            async with machines.live(1):
                await machines.comes_to(first, 3)

    asyncio.run(work())


def test_without_redis_a_machine_tells_its_own_and_says_so(
    machines: Machines, valkey: EmbeddedValkey, command: Any
) -> None:
    async def work(first: LiveWindows, second: LiveWindows) -> None:
        machines.send(1, command())
        await machines.comes_to(first, 1)
        valkey.stop()
        try:
            machines.send(0, command())
            machines.send(1, command())
            await machines.comes_to(first, 2, complete=False)
        finally:
            valkey.start()
        await machines.comes_to(first, 3)
        await machines.comes_to(second, 3)

    run(machines, work)


def test_nothing_is_sent_while_nobody_elsewhere_asks(machines: Machines, command: Any) -> None:
    async def work(first: LiveWindows, second: LiveWindows) -> None:
        async with machines.live(0) as neighbour:
            for count in range(1, 4):
                machines.send(0, command())
                await machines.comes_to(first, count)
                await machines.comes_to(neighbour, count)
            assert [key for key in machines.told() if machines.feed.journal.id.encode() in key] == []
            await machines.comes_to(second, 3)
            assert [key for key in machines.told() if machines.feed.journal.id.encode() in key]

    run(machines, work)
