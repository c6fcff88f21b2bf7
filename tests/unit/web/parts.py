"""Parts that these tests share: a clock by hand."""

from __future__ import annotations

#: 2025-09-05T10:00:00Z, where the clock by hand begins; also the beginning of a window of limits.
NOW_S = 1_757_066_400
NOW_NS = NOW_S * 10**9


class HandClock:
    """A clock moved by hand; both of its times move together."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0

    def now_ns(self) -> int:
        return NOW_NS + int(self.elapsed_s * 1e9)

    def monotonic(self) -> float:
        return self.elapsed_s

    def sleep(self, seconds: float) -> None:
        self.elapsed_s += seconds
