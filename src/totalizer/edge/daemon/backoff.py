"""When a failed batch may be tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from totalizer.edge.daemon.options import DaemonOptions

#: Each wait is so many times as long as the one before.
FACTOR = 4
#: Up to this part of a wait is taken off by chance, so that batches that failed together are not all tried together.
JITTER = 0.2


class Timed(Protocol):
    """The times of a failed batch, milliseconds since 1970 UTC."""

    @property
    def failed_at(self) -> int:
        """When the first run of attempts failed."""
        ...

    @property
    def last_retry_at(self) -> int | None:
        """When it was last tried; None if it was not."""
        ...

    @property
    def next_retry_at(self) -> int | None:
        """Not before; None for at once."""
        ...


class Backoff:
    """Exponential, with jitter, and never longer than `backoff_ms_max`.

    It is kept in the batch's file as a wall-clock time, and so survives a restart.

    Args:
        options: `backoff_ms` and `backoff_ms_max` count.
        chance: a number from 0 to 1.
    """

    def __init__(self, options: DaemonOptions, chance: Callable[[], float] = random.random) -> None:
        self._first_ms, self._longest_ms, self._chance = options.backoff_ms, options.backoff_ms_max, chance

    def due(self, batch: Timed, now_ms: int) -> bool:
        """True if a batch may be tried now, milliseconds since 1970 UTC.

        A last attempt in the future was made before the clock was set back: then the time kept says nothing. So no
        batch waits longer than the longest wait from now.
        """
        last = batch.failed_at if batch.last_retry_at is None else batch.last_retry_at
        if batch.next_retry_at is None or last > now_ms:
            return True
        return now_ms >= min(batch.next_retry_at, last + self._longest_ms)

    def next_retry_at(self, retry_count: int, now_ms: int, retry_after_s: float | None = None) -> int:
        """The time before which a batch should not be tried again, milliseconds since 1970 UTC.

        Args:
            retry_count: failed attempts so far, at least 1.
            now_ms: milliseconds since 1970 UTC.
            retry_after_s: what the target asked for; the wait is not shorter, if the longest wait allows it.
        """
        wait_ms = float(self._first_ms)
        for _ in range(retry_count - 1):
            wait_ms = min(wait_ms * FACTOR, self._longest_ms)
        wait_ms *= 1 - JITTER * self._chance()
        if retry_after_s is not None:
            wait_ms = max(wait_ms, retry_after_s * 1000)
        return now_ms + int(min(wait_ms, self._longest_ms))
