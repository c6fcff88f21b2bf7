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


class Retries:
    """Does work until it succeeds, a number of times at most. For several threads.

    Args:
        clock: to wait by.
        attempts: at least 1.
        check: raises if nothing more shall be done; asked after each error, which may be how it was told.
        told: of each error that is followed by another attempt.
    """

    def __init__(
        self, clock: Clock, attempts: int, check: Callable[[], None], told: Callable[[Exception], None]
    ) -> None:
        self._clock, self._attempts, self.check, self._told = clock, attempts, check, told

    def __call__(self, work: Callable[[], _Result]) -> _Result:
        """The result of `work`, done anew in each attempt.

        Raises:
            Exception: what the last attempt raised, or the first that is not worth another, or what `check` did.
        """
        attempt = 1
        while True:
            try:
                return work()
            except (StoreUnavailable, psycopg.Error) as error:
                self.check()
                if attempt >= self._attempts or not is_worth_a_retry(error):
                    raise
                self._told(error)
            self._clock.sleep(min(PAUSE_S * 2 ** (attempt - 1), PAUSE_MAX_S) * (1 - JITTER * random.random()))
            attempt += 1
