"""Requests with a key: the same answer for the same body, in one process and over a real Redis-protocol server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from totalizer.clock import SystemClock
from totalizer.errors import Refusal, Refused
from totalizer.ops.embedded import EmbeddedValkey
from totalizer.web import idempotency
from totalizer.web.idempotency import REMEMBERED_S, Answer, Identity, Repeats, identity_of

ORGANIZATION = "00000000-0000-4000-8000-000000000001"


class Clock(SystemClock):
    """Stands still, until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def identity(body: bytes = b"body", key: str = "key", organization_id: str = ORGANIZATION) -> Identity:
    return identity_of(organization_id, "/path", key, body)


class Work:
    """What a request does, counted."""

    def __init__(self, receipt: bytes | None = None) -> None:
        self.done, self.receipt = 0, receipt
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> Answer:
        await self.go.wait()
        self.done += 1
        return Answer(202, b"answer %d" % self.done, self.receipt)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def refusal(asked: Awaitable[Answer]) -> Refusal:
    with pytest.raises(Refused) as refused:
        await asked
    return refused.value.refusal


@pytest.fixture(params=["one process", "two processes"])
def pair(request: pytest.FixtureRequest) -> Callable[[], tuple[Repeats, Repeats]]:
    """Makes two that share what they remember: the same twice, or two over one server."""
    if request.param == "one process":

        def alone() -> tuple[Repeats, Repeats]:
            repeats = Repeats(Clock())
            return repeats, repeats

        return alone
    server: EmbeddedValkey = request.getfixturevalue("valkey")

    def both() -> tuple[Repeats, Repeats]:
        return Repeats(Clock(), Redis.from_url(server.url)), Repeats(Clock(), Redis.from_url(server.url))

    return both


def unique(name: str, request: pytest.FixtureRequest) -> str:
    return f"{name} {request.node.name}"


def test_the_answer_is_given_again_and_the_work_done_once(pair: Any, request: pytest.FixtureRequest) -> None:
    async def test() -> None:
        one, other = pair()
        work, mine = Work(), identity(key=unique("a", request))
        assert [await each.once(mine, work) for each in (one, other, one, other)] == [Answer(202, b"answer 1")] * 4
        changed = identity(b"other", key=unique("a", request))
        assert await refusal(one.once(changed, work)) is Refusal.IDEMPOTENCY_CONFLICT
        assert await refusal(other.once(changed, work)) is Refusal.IDEMPOTENCY_CONFLICT
        assert work.done == 1

    run(test)


def test_a_receipt_beside_the_body_is_given_again_too(pair: Any, request: pytest.FixtureRequest) -> None:
    async def test() -> None:
        one, other = pair()
        work, mine = Work(b"journal-1-1"), identity(key=unique("r", request))
        answers = [await each.once(mine, work) for each in (one, other, one)]
        assert answers == [Answer(202, b"answer 1", b"journal-1-1")] * 3

    run(test)


def test_while_the_first_is_under_way_the_second_is_told_so(pair: Any, request: pytest.FixtureRequest) -> None:
    async def test() -> None:
        one, other = pair()
        work, mine = Work(), identity(key=unique("b", request))
        work.go.clear()
        first = asyncio.create_task(one.once(mine, work))
        while not await _claimed(one, mine):
            await asyncio.sleep(0.001)
        assert await refusal(other.once(mine, work)) is Refusal.REQUEST_UNDER_WAY
        assert await refusal(other.once(identity(b"x", unique("b", request)), work)) is Refusal.IDEMPOTENCY_CONFLICT
        work.go.set()
        assert await first == await other.once(mine, work) == Answer(202, b"answer 1")

    run(test)


async def _claimed(repeats: Repeats, mine: Identity) -> bool:
    if repeats._redis is None:
        return mine.name in repeats._known
    return bool(await repeats._redis.exists(mine.name))


def test_what_was_refused_or_broken_off_is_not_remembered(pair: Any, request: pytest.FixtureRequest) -> None:
    async def test() -> None:
        one, other = pair()
        work, mine = Work(), identity(key=unique("c", request))

        async def refuse() -> Answer:
            raise Refused(Refusal.JOURNAL_FULL, "full")

        assert await refusal(one.once(mine, refuse)) is Refusal.JOURNAL_FULL
        work.go.clear()
        task = asyncio.create_task(one.once(mine, work))
        while not await _claimed(one, mine):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        work.go.set()
        assert await other.once(mine, work) == Answer(202, b"answer 1")

    run(test)


def test_after_a_day_a_process_forgets() -> None:
    async def test() -> None:
        clock = Clock()
        repeats, work = Repeats(clock), Work()
        await repeats.once(identity(), work)
        clock.now += REMEMBERED_S - 1
        assert await repeats.once(identity(), work) == Answer(202, b"answer 1")
        clock.now += 2
        assert await repeats.once(identity(b"another"), work) == Answer(202, b"answer 2")

    run(test)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "ANSWERS_MAX", 10)
    monkeypatch.setattr(idempotency, "ANSWERS_BYTES_MAX", 90)

    async def test() -> None:
        repeats, work = Repeats(Clock()), Work()
        for number in range(30):
            await repeats.once(identity(key=str(number)), work)
            assert repeats._size == sum(len(each.answer[1]) for each in repeats._known.values() if each.answer)
        assert len(repeats._known) == 10
        assert repeats._size <= 90

    run(test)


def test_without_its_server_each_process_goes_on_alone(tmp_path: Path) -> None:
    async def test() -> None:
        redis = Redis.from_url(f"unix://{tmp_path}/nobody.sock")
        repeats, work = Repeats(Clock(), redis), Work()
        assert [await repeats.once(identity(), work) for _ in range(2)] == [Answer(202, b"answer 1")] * 2

    run(test)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(key: str) -> None:
    with pytest.raises(Refused, match="255"):
        identity(key=key)


def test_organisations_keys_paths_and_bodies_are_told_apart() -> None:
    same = identity()
    assert identity() == same
    others = [identity(organization_id="o"), identity(key="x"), identity_of(ORGANIZATION, "/x", "key", b"body")]
    assert len({same.name, *(other.name for other in others)}) == 4
    assert identity(b"x").name == same.name
    assert identity(b"x").request != same.request
