"""Limits that processes share: leases from a real server, windows moved by hand, and the server away and back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from totalizer.errors import Refusal, Refused
from totalizer.ops.embedded import EmbeddedValkey
from totalizer.store.leases import RedisLeases
from totalizer.web.limits import Limiter, Limits
from totalizer.web.meter import Meter
from unit.web.parts import NOW_NS, HandClock

ORGANIZATION = "00000000-0000-4000-8000-00000000000a"
OTHER = "00000000-0000-4000-8000-00000000000b"
WINDOW_MS = 60_000


class Shared:
    """Several processes' limiters, in one event loop, over one server."""

    def __init__(self, url: str, clock: HandClock) -> None:
        self._url, self.clock = url, clock
        self._clients: list[Any] = []
        self.limiters: list[Limiter] = []

    def process(self, limits: Limits, processes: int = 1) -> Limiter:
        client: Any = Redis.from_url(self._url, socket_connect_timeout=1, socket_timeout=1)
        self._clients.append(client)
        limiter = Limiter(
            limits, window_ms=WINDOW_MS, leases=RedisLeases(client), processes=processes, clock=self.clock
        )
        self.limiters.append(limiter)
        return limiter

    async def close(self) -> None:
        for limiter in self.limiters:
            await limiter.stop()
        for client in self._clients:
            await client.flushall()
            await client.aclose()


Test = Callable[[Shared], Awaitable[None]]


@pytest.fixture
def run(valkey: EmbeddedValkey) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def main() -> None:
            shared = Shared(valkey.url, HandClock())
            try:
                await test(shared)
            finally:
                if valkey.answers():
                    await shared.close()

        asyncio.run(main())

    return run


async def refusal(meter: Meter, amount: int = 1) -> Refused | None:
    try:
        await meter.spend(amount)
    except Refused as refused:
        return refused
    return None


async def taken(meter: Meter, tries: int, amount: int = 1) -> int:
    """How many of so many requests are let through."""
    return sum([await refusal(meter, amount) is None for _ in range(tries)])


@pytest.mark.parametrize("limit", [1, 7, 19, 20, 100, 1000])
def test_a_process_alone_gets_the_whole_limit_and_no_more(run: Any, limit: int) -> None:
    async def test(shared: Shared) -> None:
        meter = shared.process(Limits(requests=limit)).meters(ORGANIZATION, None).requests
        assert await taken(meter, limit + 50) == limit

    run(test)


@pytest.mark.parametrize("limit", [10, 100, 5000])
def test_two_processes_share_one_limit(run: Any, limit: int) -> None:
    """Never more than the limit; and what may lie unused with one of them is small."""

    async def test(shared: Shared) -> None:
        meters = [shared.process(Limits(requests=limit), 2).meters(ORGANIZATION, None).requests for _ in range(2)]
        total = 0
        for _ in range(limit + 10):
            for meter in meters:
                total += await refusal(meter) is None
        assert total == limit, "both went on until both were refused"

    run(test)


def test_what_lies_with_an_idle_process_is_a_twentieth_of_its_share(run: Any) -> None:
    async def test(shared: Shared) -> None:
        busy, idle = (shared.process(Limits(requests=4000), 2).meters(ORGANIZATION, None).requests for _ in range(2))
        await idle.spend(1)
        assert 4000 - 1 - 2 * 100 <= await taken(busy, 5000) <= 3999

    run(test)


def test_many_at_once_are_served_by_few_round_trips(run: Any) -> None:
    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=10_000))
        leases: Any = limiter._leases
        trips = 0

        class Counting:
            async def lend(self, asks: Any) -> Any:
                nonlocal trips
                trips += 1
                return await leases.lend(asks)

            ping = leases.ping

        limiter._leases = Counting()
        meter = limiter.meters(ORGANIZATION, None).requests
        done = await asyncio.gather(*(refusal(meter) for _ in range(5000)))
        assert done == [None] * 5000
        assert trips <= 50

    run(test)


def test_kinds_and_organisations_are_apart(run: Any) -> None:
    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=3, batches=30, reads=2))
        mine, other = limiter.meters(ORGANIZATION, None), limiter.meters(OTHER, None)
        assert [await taken(meter, 40) for meter in (mine.requests, mine.batches, mine.reads, mine.bytes)] == [
            3, 30, 2, 40,
        ]  # fmt: skip
        assert await taken(other.requests, 40) == 3

    run(test)


def test_a_refusal_tells_when_to_come_back_and_a_new_window_begins(run: Any) -> None:
    """
    0 s                            59.5 s    60 s            61 s
    |─ 5 taken, then refused ────────|─ refused ─|─ 5 taken, then refused ─▶
    """

    async def test(shared: Shared) -> None:
        meter = shared.process(Limits(requests=5)).meters(ORGANIZATION, None).requests
        assert await taken(meter, 6) == 5
        shared.clock.sleep(59.5)
        refused = await refusal(meter)
        assert refused is not None
        assert (refused.refusal, refused.status, refused.retry_after_s) == (Refusal.RATE_LIMITED, 429, 1)
        assert dict(refused.headers) == {
            "ratelimit-policy": '"requests";q=5;w=60', "ratelimit": '"requests";r=0;t=1',
            "x-ratelimit-limit": "5", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW_NS // 10**9 + 60),
        }  # fmt: skip
        shared.clock.sleep(0.5)
        assert await taken(meter, 6) == 5

    run(test)


def test_what_is_left_is_told(run: Any) -> None:
    async def test(shared: Shared) -> None:
        meter = shared.process(Limits(requests=5)).meters(ORGANIZATION, None).requests
        assert meter.headers == []
        told = []
        for _ in range(5):
            await meter.spend(1)
            told.append(dict(meter.headers)["x-ratelimit-remaining"])
        assert told == ["4", "3", "2", "1", "0"]
        assert meter.json_headers[0] == ("content-type", "application/json")
        assert meter.json_headers[1:] == meter.headers

    run(test)


def test_nothing_of_an_old_window_is_spent_in_a_new_one(run: Any) -> None:
    """A lease is not carried over: else a process could save up."""

    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=100))
        meter = limiter.meters(ORGANIZATION, None).requests
        assert await taken(meter, 51) == 51
        shared.clock.sleep(60)
        await limiter._tick()
        await asyncio.sleep(0.05)
        assert await taken(meter, 200) == 100

    run(test)


def test_an_idle_meter_is_put_to_rest_and_loses_nothing(run: Any) -> None:
    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=1000))
        meter = limiter.meters(ORGANIZATION, None).requests
        await meter.spend(1)
        for _ in range(3):
            await limiter._tick()
        assert (meter.left, limiter._active) == (0, {})
        assert await taken(meter, 2000) == 999

    run(test)


def test_bytes_are_counted_and_a_body_larger_than_the_limit_is_told_so(run: Any) -> None:
    async def test(shared: Shared) -> None:
        meter = shared.process(Limits(bytes=1000)).meters(ORGANIZATION, None).bytes
        assert await taken(meter, 5, 300) == 3
        assert await taken(meter, 3, 40) == 2, "smaller ones still fit"
        refused = await refusal(meter, 1001)
        assert refused is not None
        assert (refused.status, "1001" in refused.detail, refused.retry_after_s) == (413, True, None)

    run(test)


def test_own_limits_of_an_organisation_take_effect_within_a_window(run: Any) -> None:
    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=5, reads=5))
        meters = limiter.meters(ORGANIZATION, [None, None, None, None])
        assert await taken(meters.requests, 10) == 5
        assert limiter.meters(ORGANIZATION, [8, None, 0, None]) is meters
        assert await taken(meters.requests, 10) == 3, "8 in the window, 5 of them used"
        assert await taken(meters.reads, 100) == 100
        limiter.meters(ORGANIZATION, [2, None, None, None])
        assert await taken(meters.requests, 10) == 0
        assert await taken(meters.reads, 10) == 5
        shared.clock.sleep(60)
        assert await taken(meters.requests, 10) == 2

    run(test)


def test_a_limit_taken_away_while_it_was_in_use_is_gone(run: Any) -> None:
    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=5))
        meters = limiter.meters(ORGANIZATION, None)
        await meters.requests.spend(1)
        limiter.meters(ORGANIZATION, [0, None, None, None])
        for _ in range(3):
            await limiter._tick()
        assert await taken(meters.requests, 100) == 100
        assert meters.requests.left > 1 << 60, "nothing but a subtraction for each"
        assert meters.requests.headers == []

    run(test)


def test_without_a_server_each_process_counts_to_its_share() -> None:
    async def main() -> None:
        limits, clock = Limits(requests=10, reads=1), HandClock()
        limiter = Limiter(limits, window_ms=WINDOW_MS, leases=None, processes=4, clock=clock)
        meters = limiter.meters(ORGANIZATION, None)
        assert [await taken(meters.requests, 20), await taken(meters.reads, 20)] == [2, 1]
        clock.sleep(60)
        assert await taken(meters.requests, 20) == 2

    asyncio.run(main())


def test_the_server_away_and_back(run: Any, valkey: EmbeddedValkey) -> None:
    """
    both spend leases ─▶ server stops: each goes on to its half ─▶ server is back: what was spent is known to all
    """

    async def test(shared: Shared) -> None:
        limiters = [shared.process(Limits(requests=100), 2) for _ in range(2)]
        held = [limiter.meters(ORGANIZATION, None) for limiter in limiters]  # as remembered keys hold them
        first, second = (meters.requests for meters in held)
        assert await taken(first, 20) == 20
        valkey.stop()
        try:
            assert await taken(first, 100) == 30, "50 in all: its half"
            assert await taken(second, 100) == 50
            assert [limiter.away for limiter in limiters] == [True, True]
            refused = await refusal(second)
            assert refused is not None
            assert refused.status == 429
        finally:
            valkey.start()
        for limiter in limiters:
            await limiter._tick()
            await asyncio.sleep(0.05)
        assert [limiter.away for limiter in limiters] == [False, False]
        third = shared.process(Limits(requests=100), 2).meters(ORGANIZATION, None).requests
        assert await taken(third, 100) == 0, "all hundred are used, and the server knows it again"
        shared.clock.sleep(60)
        for limiter in limiters:
            await limiter._tick()
        assert await taken(first, 200) + await taken(second, 200) == 100

    run(test)


def test_a_server_that_lost_its_memory_is_told(run: Any) -> None:
    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=10))
        meter = limiter.meters(ORGANIZATION, None).requests
        assert await taken(meter, 8) == 8
        await shared._clients[0].flushall()
        assert await taken(meter, 20) == 2

    run(test)


def test_a_server_that_does_not_answer_delays_nobody_twice(run: Any) -> None:
    class Silent:
        async def lend(self, asks: Any) -> Any:
            await asyncio.sleep(3600)

        ping = lend

    async def test(shared: Shared) -> None:
        limits, silent = Limits(requests=100), Silent()
        limiter = Limiter(limits, window_ms=WINDOW_MS, leases=silent, processes=1, clock=shared.clock)
        meter = limiter.meters(ORGANIZATION, None).requests
        done = await asyncio.gather(*(refusal(meter) for _ in range(100)))
        assert done == [None] * 100
        assert limiter.away

    run(test)


def test_a_server_that_stands_still_and_goes_on(run: Any, valkey: EmbeddedValkey) -> None:
    """Its connection is open all the while; an answer that comes late is nobody's."""

    async def test(shared: Shared) -> None:
        limiter = shared.process(Limits(requests=100, reads=100))
        meters = limiter.meters(ORGANIZATION, None)
        assert await taken(meters.requests, 10) == 10
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            done = await asyncio.gather(*(refusal(meters.reads) for _ in range(100)))
            assert (done, limiter.away) == ([None] * 100, True)
            await limiter._tick()
            assert limiter.away
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        await limiter._tick()
        await asyncio.sleep(0.05)
        assert not limiter.away
        assert await taken(meters.reads, 10) == 0
        assert 85 <= await taken(meters.requests, 100) <= 90, "a part whose answer came too late is lost"

    run(test)


def test_counts_do_not_stay_in_the_server(run: Any) -> None:
    async def test(shared: Shared) -> None:
        await shared.process(Limits(requests=5)).meters(ORGANIZATION, None).requests.spend(1)
        [key] = await shared._clients[0].keys("*")
        assert ORGANIZATION.encode() in key
        assert 0 < await shared._clients[0].pttl(key) <= 2 * WINDOW_MS

    run(test)
