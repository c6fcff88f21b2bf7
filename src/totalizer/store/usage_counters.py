"""Usage counters in Redis: added to at most once, read in thousands, rebuilt from what is stored.

A counter may be too low: for want of an answer an addition is given up, never sent again. It is never too high. So it
may be added to by whoever has the event on disk, with the generation that was read before that; rebuilding begins a new
generation, and refuses who may be about to add what the rebuilt value holds already. docs/adr/0015-usage-counters.md
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, Final

import redis
from redis import asyncio as async_redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from totalizer.errors import StoreUnavailable
from totalizer.store.usage_additions import Addition, Answer
from totalizer.store.usage_keys import WHOLE_KEY, generation_key

#: How long a counter is kept after it was last added to.
KEPT_S: Final = 7 * 86_400
#: Seconds to wait for an answer.
ANSWER_TIMEOUT_S: Final = 2.0
#: Keys that the server looks at in one SCAN.
SCAN_COUNT: Final = 5000
#: Counters rebuilt in one round trip.
RAISED_MAX: Final = 1000

_WHOLE: Final = b"whole"
_FOLDER = resources.files("totalizer.store")
_TRACK, _RAISE = ((_FOLDER / f"usage_{name}.lua").read_text("utf-8") for name in ("track", "raise"))
#: How the server knows the script once it has run.
_TRACK_DIGEST: Final = hashlib.sha1(_TRACK.encode(), usedforsecurity=False).hexdigest()


def connect(url: str) -> redis.Redis:
    """A client that sends nothing twice: whether an addition that got no answer was made cannot be known."""
    return redis.Redis.from_url(
        url, socket_connect_timeout=ANSWER_TIMEOUT_S, socket_timeout=ANSWER_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


def connect_async(url: str) -> async_redis.Redis:
    """The same for an event loop."""
    return async_redis.Redis.from_url(
        url, socket_connect_timeout=ANSWER_TIMEOUT_S, socket_timeout=ANSWER_TIMEOUT_S, retry=AsyncRetry(NoBackoff(), 0)
    )


def ask_generations(pipeline: Any, keys: Sequence[str]) -> None:
    """Put into a pipeline the question for generations; a counter that has none gets one."""
    for key in keys:
        name = generation_key(key)
        pipeline.set(name, fresh_generation(), ex=KEPT_S, nx=True)
        pipeline.get(name)


def generations_of(answers: Sequence[Any]) -> list[str | None]:
    """What `ask_generations` was answered, in the order of the keys; None where there is no telling."""
    return [found.decode() if isinstance(found, bytes) else None for found in answers[1::2]]


def add(pipeline: Any, additions: Sequence[Addition], *, again: bool = False) -> None:
    """Put additions into a pipeline.

    Args:
        pipeline: of either kind of client.
        additions: what to add.
        again: True after the server has said that it does not know the script, and so did nothing.
    """
    name, script = ("EVAL", _TRACK) if again else ("EVALSHA", _TRACK_DIGEST)
    for addition in additions:
        pipeline.execute_command(
            name, script, 2, addition.key, generation_key(addition.key), addition.amount, KEPT_S,
            addition.generation, fresh_generation(),
        )  # fmt: skip


def note_answers(additions: Sequence[Addition], found: Sequence[Any] | None) -> list[Addition]:
    """Note what became of additions; gives those to be put into a pipeline `again`.

    Args:
        additions: as they were sent.
        found: the answers; None if there were none, so that nobody knows.
    """
    again = []
    for addition, answer in zip(additions, found or [None] * len(additions), strict=True):
        if isinstance(answer, NoScriptError):
            again.append(addition)
        elif answer is None:
            addition.answer = Answer()
        elif isinstance(answer, Exception):
            addition.answer = Answer(reason=str(answer))
        else:
            added, text = answer
            addition.answer = Answer(value=int(text)) if added else Answer(generation=text.decode())
    return again


def is_whole(found: Any) -> bool:
    """What the value of WHOLE_KEY says."""
    return isinstance(found, bytes) and found == _WHOLE


def fresh_generation() -> str:
    """A generation that was never used."""
    return secrets.token_hex(8)


class Counters:
    """All counters of a server, as those who aggregate them see them. For any number of threads.

    Args:
        client: from `connect`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def scan(self, pattern: str, cursor: int = 0) -> tuple[int, list[bytes]]:
        """The next names that match; the cursor to go on with, 0 at the end. A name may come twice.

        Raises:
            StoreUnavailable: there is no answer.
        """
        with _told():
            position, keys = self._redis.scan(cursor, match=pattern, count=SCAN_COUNT)
        return int(position), keys

    def read(self, keys: Sequence[bytes]) -> list[bytes | str | None]:
        """What each counter holds; a text says why it cannot be read, None that it is gone.

        Raises:
            StoreUnavailable: there is no answer.
        """
        with _told():
            try:
                values: list[Any] = self._redis.mget(keys) if keys else []
            except ResponseError:  # a cluster, where keys of several slots must be asked for one by one
                return self._read_each(keys)
            # What is no text is answered as if it were not there.
            missing = [place for place, value in enumerate(values) if value is None]
            for place, value in zip(missing, self._read_each([keys[place] for place in missing]), strict=True):
                values[place] = value
        return values

    def _read_each(self, keys: Sequence[bytes]) -> list[bytes | str | None]:
        if not keys:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        found = pipeline.execute(raise_on_error=False)
        return [str(value) if isinstance(value, Exception) else value for value in found]

    def raise_to(self, values: Mapping[str, int]) -> int:
        """Rebuild the counters that are behind these values; returns how many were.

        Args:
            values: by the counters' names, each read from the database before this call.

        Raises:
            StoreUnavailable: there is no answer.
        """
        raised = 0
        for some in _parts(list(values.items()), RAISED_MAX):
            pipeline = self._redis.pipeline(transaction=False)
            for key, value in some:
                pipeline.eval(_RAISE, 2, key, generation_key(key), value, KEPT_S, fresh_generation())
            with _told():
                found = pipeline.execute(raise_on_error=False)
            raised += sum(answer == 1 for answer in found)
        return raised

    def whole(self) -> bool:
        """True if the server remembers that today's counters were compared with what is stored.

        Raises:
            StoreUnavailable: there is no answer.
        """
        with _told():
            return is_whole(self._redis.get(WHOLE_KEY))

    def begin_whole(self) -> None:
        """Today's counters are about to be compared with what is stored.

        Raises:
            StoreUnavailable: there is no answer.
        """
        with _told():
            self._redis.set(WHOLE_KEY, "rebuilding")

    def note_whole(self) -> None:
        """They were; but not if the server has lost its memory meanwhile, for then it does not know of the beginning.

        Raises:
            StoreUnavailable: there is no answer.
        """
        with _told():
            self._redis.set(WHOLE_KEY, _WHOLE, xx=True)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


@contextmanager
def _told() -> Iterator[None]:
    """Redis' errors become ours."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis cannot be reached: {error}") from error


def _parts(items: list[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
