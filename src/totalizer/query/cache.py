"""Answers kept: in this process, and in Redis for all. A key holds the version of the data, so none is ever wrong.

Whoever changes events changes their version in the same transaction, and a reader reads it in the snapshot that an
answer is for: an answer of that version is the answer, whenever it was found. What is kept is thrown away for its age
and for want of room only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from totalizer.clock import Clock
from totalizer.metrics import MEASURES
from totalizer.metrics.table import ANSWERS
from totalizer.telemetry import logger

#: Start of every key: totalizer:answer:{organization id}:digest.
KEY_PREFIX = "totalizer:answer"
#: Seconds that Redis is left alone after it gave no answer.
REST_S = 1.0

Make = Callable[[], Awaitable[bytes | None]]


@dataclass
class Hits:
    """How often what was found where.

    Attributes:
        process, redis: found in this process; in Redis.
        shared: found by another request that asked the same at the same time.
        unchanged: the client had it.
        missed: had to be found.
    """

    process: int = 0
    redis: int = 0
    shared: int = 0
    unchanged: int = 0
    missed: int = 0

    def note(self, found: str) -> None:
        """Count an answer, by the name of one of these."""
        setattr(self, found, getattr(self, found) + 1)
        MEASURES.count(ANSWERS, found)

    @property
    def rate(self) -> float:
        """The share of answers that had not to be found anew; 0 before the first."""
        hits = self.process + self.redis + self.shared + self.unchanged
        return hits / (hits + self.missed) if hits + self.missed else 0.0


class AnswerCache:
    """Answers by key.

    Args:
        clock: for their age.
        ttl_s: seconds that an answer is kept; 0 to keep none.
        bytes_max: of the answers of this process.
        redis: None to keep answers in this process only.
    """

    def __init__(self, clock: Clock, *, ttl_s: float, bytes_max: int, redis: Redis | None = None) -> None:
        self._clock, self._ttl_s, self._bytes_max, self._redis = clock, ttl_s, bytes_max, redis
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[str, asyncio.Future[bytes | None]] = {}
        self._redis_rests_until = 0.0
        self.hits = Hits()

    async def get(self, key: str, organization_id: str, make: Make) -> bytes | None:
        """The answer kept under a key, or made now and kept.

        Args:
            key: of the organisation, the query and the version of the data.
            organization_id: whose, for those who look into Redis.
            make: finds the answer; None if it is not to be kept.

        Raises:
            Refused: what `make` raises.
        """
        if self._ttl_s <= 0:
            self.hits.note("missed")
            return await make()
        if (found := self._recall(key)) is not None:
            self.hits.note("process")
            return found
        # Shielded: who waits may go away, and the others still wait.
        running = self._under_way.get(key)
        if running is not None and (shared := await asyncio.shield(running)) is not None:
            self.hits.note("shared")
            return shared
        return await self._find(key, f"{KEY_PREFIX}:{{{organization_id}}}:{key}", make)

    async def _find(self, key: str, redis_key: str, make: Make) -> bytes | None:
        running: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._under_way[key] = running
        answer: bytes | None = None
        try:
            if (answer := await self._ask_redis(redis_key)) is not None:
                self.hits.note("redis")
            else:
                self.hits.note("missed")
                answer = await make()
                if answer is not None:
                    await self._tell_redis(redis_key, answer)
            if answer is not None:
                self._keep(key, answer)
            return answer
        finally:
            # Those who wait look for themselves if there is no answer: the reason may be of this request alone.
            running.set_result(answer)
            if self._under_way.get(key) is running:
                del self._under_way[key]

    def _recall(self, key: str) -> bytes | None:
        found = self._kept.get(key)
        if found is None:
            return None
        kept_at, answer = found
        if self._clock.monotonic() - kept_at >= self._ttl_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return answer

    def _keep(self, key: str, answer: bytes) -> None:
        if len(answer) > self._bytes_max // 4:
            return
        self._drop(key)
        self._kept[key] = (self._clock.monotonic(), answer)
        self._bytes += len(answer)
        while self._bytes > self._bytes_max:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        if (found := self._kept.pop(key, None)) is not None:
            self._bytes -= len(found[1])

    async def _ask_redis(self, key: str) -> bytes | None:
        if self._redis is None or self._clock.monotonic() < self._redis_rests_until:
            return None
        try:
            found = await self._redis.get(key)
        except (RedisError, OSError) as error:
            self._let_redis_rest(error)
            return None
        return found.encode() if isinstance(found, str) else found

    async def _tell_redis(self, key: str, answer: bytes) -> None:
        if self._redis is None or self._clock.monotonic() < self._redis_rests_until:
            return
        try:
            await self._redis.set(key, answer, px=max(int(self._ttl_s * 1000), 1))
        except (RedisError, OSError) as error:
            self._let_redis_rest(error)

    def _let_redis_rest(self, error: Exception) -> None:
        self._redis_rests_until = self._clock.monotonic() + REST_S
        logger().warning("answers are kept in this process only: Redis gives no answer", reason=str(error))
