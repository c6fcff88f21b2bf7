"""Time as an argument: the one place that reads the system's clocks."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """What a stage may know of time. Tests pass their own."""

    def now_ns(self) -> int:
        """Wall-clock time, nanoseconds since 1970-01-01 UTC. May jump either way."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For durations and deadlines."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block this thread for `seconds`."""
        ...


class SystemClock:
    """The machine's clocks."""

    # The system's own functions, with no call in between: requests ask several times each.
    now_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


SYSTEM_CLOCK = SystemClock()


def utc_datetime(now_ns: int) -> datetime:
    """The aware UTC datetime of a nanosecond timestamp, truncated to microseconds."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)


def utc_text(now_ns: int) -> str:
    """A nanosecond timestamp as fixed-width text, `2025-09-05T10:00:00.123456Z`: text order is time order."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    return f"{_second_text(seconds)}.{nanoseconds // 1000:06d}Z"


def utc_text_and_later(now_ns: int, later_s: int) -> tuple[str, str]:
    """A nanosecond timestamp and that of so many whole seconds later, as `utc_text` has them."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    part = f".{nanoseconds // 1000:06d}Z"
    return _second_text(seconds) + part, _second_text(seconds + later_s) + part


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
