"""How many entries a second."""

from __future__ import annotations

import threading

from totalizer.clock import Clock
from totalizer.errors import RateLimited


class RateLimit:
    """A bucket that fills at a rate and holds one second's worth, at least one. For any thread.

    Args:
        per_s: entries a second.
        clock: for the time between them.
    """

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s, self._clock = per_s, clock
        self._lock = threading.Lock()
        self._left = self._size = max(per_s, 1.0)
        self._at = clock.monotonic()

    def take(self) -> None:
        """Take one. RateLimited if none is left."""
        with self._lock:
            now = self._clock.monotonic()
            self._left = min(self._left + (now - self._at) * self._per_s, self._size)
            self._at = now
            if self._left < 1:
                wait_s = (1 - self._left) / self._per_s
                raise RateLimited(f"more than rate_limit_per_s={self._per_s:g}; the next is taken in {wait_s:.3f} s")
            self._left -= 1
