"""Requests that say how they can be told from others: sent again, they get the answer they had.

What is remembered here is a courtesy. That a repeat stores nothing twice follows from the ids its events have (see
`Collector.admit_batch`), whatever process it reaches and whatever that remembers.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from totalizer.clock import Clock
from totalizer.errors import Refusal, Refused
from totalizer.telemetry import logger

#: Characters of a key.
KEY_LENGTH_MAX = 255
#: How long an answer is remembered.
REMEMBERED_S = 86_400
#: How long a request counts as under way in Redis whose process has died at it.
UNDER_WAY_S = 60
#: Bytes of answers one process remembers, and answers; beyond it the oldest are forgotten.
ANSWERS_BYTES_MAX, ANSWERS_MAX = 16 << 20, 20_000
#: How long Redis is left alone after it did not answer.
AWAY_PAUSE_S = 2.0


class Answer(NamedTuple):
    """An answer.

    Attributes:
        status: of HTTP.
        body: with the receipt in it, unless that is apart.
        receipt: for a header field; None if there is none, or it is in the body.
    """

    status: int
    body: bytes
    receipt: bytes | None = None


class Remembered(NamedTuple):
    """A request with a key; no answer while it is under way."""

    digest: bytes
    answer: Answer | None
    until: float


class Identity(NamedTuple):
    """What stands for a request with a key.

    Attributes:
        name: what it is remembered under: organisation and key.
        digest: of its body.
        request: for the ids of its events: of key and body, so that a key used again for something else does no harm.
    """

    name: str
    digest: bytes
    request: bytes


def identity_of(organization_id: str, path: str, key: str, body: bytes) -> Identity:
    """What stands for a request.

    Args:
        path: of the request: one key may be used on each.
        key: of the sender.
        body: unpacked.

    Raises:
        Refused: the key cannot be used.
    """
    if not 0 < len(key) <= KEY_LENGTH_MAX:
        raise Refused(
            Refusal.BAD_REQUEST, f"Idempotency-Key of {len(key)} characters; send 1 to {KEY_LENGTH_MAX}, or none"
        )
    named = hashlib.blake2b(f"{path} {key}".encode("utf-8", "surrogateescape"), digest_size=16)
    digest = hashlib.blake2b(body, digest_size=16).digest()
    return Identity(f"totalizer:idempotency:{organization_id}:{named.hexdigest()}", digest, named.digest() + digest)


class Repeats:
    """The answers of requests with a key.

    Args:
        clock: for their age.
        redis: shared by all processes; None to remember in this one only.
    """

    def __init__(self, clock: Clock, redis: Redis | None = None) -> None:
        self._clock, self._redis = clock, redis
        self._known: OrderedDict[str, Remembered] = OrderedDict()
        self._size = 0
        self._away_until = float("-inf")

    async def once(self, identity: Identity, run: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer that a request had, or the one that it gets now.

        Args:
            identity: from `identity_of`.
            run: takes the request. What it refuses is not remembered, since nothing came of it.

        Raises:
            Refused: the key was used for another body, or the request is under way; or what `run` raises.
        """
        known = self._known.get(identity.name)
        if known is not None and known.until > self._clock.monotonic():
            return _answer_of(known, identity)
        self._keep(identity.name, Remembered(identity.digest, None, self._clock.monotonic() + UNDER_WAY_S))
        try:
            if (elsewhere := await self._claim(identity)) is not None:
                answer = _answer_of(elsewhere, identity)
            else:
                answer = await self._run(identity, run)
        except BaseException:
            self._forget(identity.name)
            raise
        self._keep(identity.name, Remembered(identity.digest, answer, self._clock.monotonic() + REMEMBERED_S))
        return answer

    async def _run(self, identity: Identity, run: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            answer = await run()
        except BaseException:
            await self._tell(identity, None)
            raise
        await self._tell(identity, answer)
        return answer

    async def _claim(self, identity: Identity) -> Remembered | None:
        """Say to all processes that the request is under way; what they know of it already."""
        if self._redis is None or self._clock.monotonic() < self._away_until:
            return None
        try:
            if await self._redis.set(identity.name, identity.digest, nx=True, ex=UNDER_WAY_S):
                return None
            value = await self._redis.get(identity.name)
        except (RedisError, OSError) as error:
            self._leave_alone(error)
            return None
        return None if value is None else _decoded(value.encode() if isinstance(value, str) else value)

    async def _tell(self, identity: Identity, answer: Answer | None) -> None:
        if self._redis is None or self._clock.monotonic() < self._away_until:
            return
        try:
            if answer is None:
                await self._redis.delete(identity.name)
            else:
                status = b"%d" % answer.status if answer.receipt is None else b"%d,%b" % (answer.status, answer.receipt)
                value = b"%b%b %b" % (identity.digest, status, answer.body)
                await self._redis.set(identity.name, value, ex=REMEMBERED_S)
        except (RedisError, OSError) as error:
            self._leave_alone(error)

    def _leave_alone(self, error: Exception) -> None:
        self._away_until = self._clock.monotonic() + AWAY_PAUSE_S
        logger().warning("answers to repeated requests are remembered by each process alone", reason=str(error))

    def _keep(self, name: str, remembered: Remembered) -> None:
        self._forget(name)
        self._known[name] = remembered
        self._size += _size(remembered)
        while self._size > ANSWERS_BYTES_MAX or len(self._known) > ANSWERS_MAX:
            self._size -= _size(self._known.popitem(last=False)[1])

    def _forget(self, name: str) -> None:
        known = self._known.pop(name, None)
        self._size -= 0 if known is None else _size(known)


def _size(remembered: Remembered) -> int:
    return len(remembered.answer.body) if remembered.answer is not None else 0


def _decoded(value: bytes) -> Remembered:
    digest, rest = value[:16], value[16:]
    if not rest:
        return Remembered(digest, None, 0)
    told, _, body = rest.partition(b" ")
    status, _, receipt = told.partition(b",")
    return Remembered(digest, Answer(int(status), body, receipt or None), 0)


def _answer_of(known: Remembered, identity: Identity) -> Answer:
    if known.digest != identity.digest:
        raise Refused(
            Refusal.IDEMPOTENCY_CONFLICT, "this Idempotency-Key was used for another body within the last 24 hours; "
            "use a key of its own for each request",
        )  # fmt: skip
    if known.answer is None:
        raise Refused(
            Refusal.REQUEST_UNDER_WAY, "a request with this Idempotency-Key is under way; send it again in a moment"
        )
    return known.answer
