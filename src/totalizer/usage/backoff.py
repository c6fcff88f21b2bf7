"""Trying again with growing pauses."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg

from totalizer.clock import Clock
from totalizer.errors import StoreUnavailable
from totalizer.store.connect import is_rows_fault

_Result = TypeVar("_Result")

#: Pauses between attempts, seconds: each is twice the one before, up to the greatest.
PAUSE_S, PAUSE_MAX_S = 0.1, 5.0
#: A pause is shortened by up to this part, so that many who wait do not come back together.
JITTER: Final = 0.5


def is_worth_a_retry(error: Exception) -> bool:
    """True if the same may succeed later: whoever was asked was away, or busy."""
    return isinstance(error, StoreUnavailable) or (isinstance(error, psycopg.Error) and not is_rows_fault(error))


def retried(
    work: Callable[[], _Result], clock: Clock, attempts: int, again: Callable[[Exception], None] = lambda _error: None
) -> _Result:
    """The result of `work`, tried up to `attempts` times.

    Args:
        work: what to do; each time anew.
        clock: to wait by.
        attempts: at least 1.
        again: told of the error before each pause.

    Raises:
        Exception: what the last attempt raised, or the first that is not worth another.
    """
    for attempt in range(attempts - 1):
        try:
            return work()
        except (StoreUnavailable, psycopg.Error) as error:
            if not is_worth_a_retry(error):
                raise
            again(error)
        clock.sleep(min(PAUSE_S * 2**attempt, PAUSE_MAX_S) * (1 - JITTER * random.random()))
    return work()
