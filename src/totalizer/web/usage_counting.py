"""Counting tracked usage in Redis for the API: the same additions as a tracker's, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from redis.asyncio import Redis
from redis.exceptions import RedisError

from totalizer.clock import Clock
from totalizer.store import usage_counters
from totalizer.store.usage_additions import Addition, Answer, Gathered, Generations
from totalizer.store.usage_keys import WHOLE_KEY, Counter
from totalizer.telemetry import logger
from totalizer.usage.additions import Tracked, tracked_in

#: Redis, or the database, is left alone this long after it gave no answer, seconds.
AWAY_PAUSE_S: Final = 2.0
_POOL_TIMEOUT_S: Final = 1.0


class UsageCounters:
    """The counters, as the API's routes see them.

    Args:
        redis: from `usage_counters.connect_async`; None to go without counters.
        pool: connections as the app role, to find out whose counters have the plain names.
        clock: time source.
    """

    def __init__(self, redis: Redis | None, pool: AsyncConnectionPool[Any], clock: Clock) -> None:
        self._redis: Any = redis
        self._pool, self._clock, self._generations = pool, clock, Generations()
        self._away, self._away_until, self._ask_after = redis is None, float("-inf"), float("-inf")
        self._default: str | None = None
        self._gathered, self._sending = Gathered(), asyncio.Lock()

    async def prepare(self, organization_id: str, payload: bytes) -> Counted:
        """What a payload will add; called before it is on disk."""
        owner = await self._owner(organization_id)
        tracked = tracked_in(payload, owner.name if owner else None)
        if owner is None or not self._reachable():
            return Counted(self, tracked, {})
        keys = [each.counter.key for each in tracked if each.amount]
        await self._ask(self._generations.unknown(keys))
        known = {key: found for key in keys if (found := self._generations.get(key)) is not None}
        return Counted(self, tracked, known)

    async def add(self, amounts: Sequence[tuple[str, str, int]]) -> list[int | None]:
        """The counters after the additions; None where Redis cannot tell.

        Args:
            amounts: counter, its generation before the events were on disk, and how much.
        """
        additions = [self._gathered.join(*each) for each in amounts]
        if additions:
            async with self._sending:
                if any(addition.answer is None for addition in additions):
                    await self._send(self._gathered.take())
        return [addition.answer and addition.answer.value for addition in additions]

    async def read(self, organization_id: str, counters: Sequence[Counter]) -> list[int] | None:
        """What counters hold, 0 where there is none; None if they are not to be relied on.

        Args:
            organization_id: whose they are.
            counters: whatever organisation they name.
        """
        owner = await self._owner(organization_id)
        if owner is None or not self._reachable():
            return None
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.get(WHOLE_KEY)
        for counter in counters:
            pipeline.get(counter._replace(organization_id=owner.name).key)
        found = await self._answers(pipeline)
        if found is None or not usage_counters.is_whole(found[0]):
            return None
        return [int(value) if isinstance(value, bytes) and value.isdigit() else 0 for value in found[1:]]

    async def close(self) -> None:
        """Give the connections back."""
        if self._redis is not None:
            await self._redis.aclose()

    async def _send(self, additions: list[Addition]) -> None:
        again = await self._send_once(additions, again=False)
        if again:
            await self._send_once(again, again=True)
        for addition in additions:
            answer = addition.answer or Answer()
            if answer.generation is not None:
                self._generations.learn(addition.key, answer.generation)
            if answer.reason is not None:
                logger().warning("a usage counter cannot be added to", key=addition.key, reason=answer.reason)

    async def _send_once(self, additions: list[Addition], *, again: bool) -> list[Addition]:
        pipeline = self._redis.pipeline(transaction=False)
        usage_counters.add(pipeline, additions, again=again)
        return usage_counters.note_answers(additions, await self._answers(pipeline))

    async def _ask(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        pipeline = self._redis.pipeline(transaction=False)
        usage_counters.ask_generations(pipeline, keys)
        for key, generation in zip(
            keys, usage_counters.generations_of(await self._answers(pipeline) or [None] * 2 * len(keys)), strict=True
        ):
            if generation is not None:
                self._generations.learn(key, generation)

    def _reachable(self) -> bool:
        return self._redis is not None and self._clock.monotonic() >= self._away_until

    async def _answers(self, pipeline: Any) -> list[Any] | None:
        try:
            found: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            self._away_until = self._clock.monotonic() + AWAY_PAUSE_S
            if not self._away:
                self._away = True
                logger().warning("usage is counted without Redis; nothing is lost", reason=str(error))
            return None
        if self._away:
            self._away = False
            logger().info("usage is counted in Redis again")
        return found

    async def _owner(self, organization_id: str) -> Owner | None:
        """The organisation as counters' names have it; None while nobody can say whose the plain names are."""
        if self._default is None and self._clock.monotonic() >= self._ask_after:
            self._ask_after = self._clock.monotonic() + AWAY_PAUSE_S
            try:
                async with self._pool.connection(timeout=_POOL_TIMEOUT_S) as connection:
                    row = await (await connection.execute("SELECT totalizer.default_organization()::text")).fetchone()
            except (psycopg.Error, PoolTimeout) as error:
                logger().warning("usage is not counted in Redis yet", reason=str(error).strip())
                return None
            self._default = row[0] if row and row[0] else ""
        if self._default is None:
            return None
        return Owner(None if organization_id == self._default else organization_id)


class Owner(NamedTuple):
    """Whose counters; None is the organisation `default`."""

    name: str | None


class Counted:
    """What one request adds.

    Args:
        counters: where.
        tracked: what.
        generations: of counters that can be added to, before the events were on disk.
    """

    def __init__(self, counters: UsageCounters, tracked: list[Tracked], generations: dict[str, str]) -> None:
        self._counters, self._tracked, self._generations = counters, tracked, generations

    async def add(self, answer: bytes) -> bytes:
        """Add it, and tell the counters in an answer that is a JSON object."""
        amounts = [
            (key, self._generations[key], each.amount)
            for each in self._tracked
            if (key := each.counter.key) in self._generations
        ]
        values = await self._counters.add(amounts)
        by_key = {key: value for (key, _, _), value in zip(amounts, values, strict=True)}
        told = [
            {
                "merchant_id": counter.merchant_id, "date": counter.day, "metric_type": counter.metric_type,
                "value": by_key.get(counter.key),
            }
            for counter, _ in self._tracked
        ]  # fmt: skip
        return b'%b,"counters":%b}' % (answer[:-1], msgspec.json.encode(told))
