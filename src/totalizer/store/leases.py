"""Leases of a limit that several processes share: the counts are in Redis, a process spends what it was lent."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from totalizer.errors import StoreUnavailable

#: Start of every key: totalizer:limit:{organization id}:kind:window length in ms:number of the window.
KEY_PREFIX = "totalizer:limit"
#: Windows that a count is kept: clocks of machines differ, and a process may ask for the one that has just ended.
WINDOWS_KEPT = 2

_LEND = (resources.files("totalizer.store") / "lease.lua").read_text("utf-8")


class Ask(NamedTuple):
    """What one process asks for.

    Attributes:
        organization_id: whose limit.
        kind: which of its limits.
        window_ms: length of a window.
        number: of the window, counted from 1970 UTC.
        limit: of one window.
        needed: waited for now.
        wanted: to have some in hand.
        debt: used without asking.
        had: all that this process has had in this window.
    """

    organization_id: str
    kind: str
    window_ms: int
    number: int
    limit: int
    needed: int
    wanted: int
    debt: int
    had: int

    @property
    def key(self) -> str:
        """The count's key. The braces keep an organisation's keys on one node of a cluster."""
        return f"{KEY_PREFIX}:{{{self.organization_id}}}:{self.kind}:{self.window_ms}:{self.number}"


class Lease(NamedTuple):
    """An answer: what is lent, and what is left in the window for all."""

    lent: int
    left: int


class LeaseStore(Protocol):
    """Where leases come from."""

    async def lend(self, asks: Sequence[Ask]) -> list[Lease]:
        """A lease for each, in their order, over one round trip.

        Raises:
            StoreUnavailable: there is no answer. The asks may have been counted.
        """
        ...

    async def ping(self) -> None:
        """Nothing, if the server answers.

        Raises:
            StoreUnavailable: it does not.
        """
        ...


class RedisLeases:
    """Leases from a Redis-protocol server.

    Args:
        redis: with time limits of its own.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def lend(self, asks: Sequence[Ask]) -> list[Lease]:
        pipeline: Any = self._redis.pipeline(transaction=False)
        for ask in asks:
            keep_ms = ask.window_ms * WINDOWS_KEPT
            pipeline.eval(_LEND, 1, ask.key, ask.limit, ask.needed, ask.wanted, ask.debt, ask.had, keep_ms)
        try:
            answers = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis gives no leases: {error}") from None
        return [Lease(int(lent), int(left)) for lent, left in answers]

    async def ping(self) -> None:
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis cannot be reached: {error}") from None
