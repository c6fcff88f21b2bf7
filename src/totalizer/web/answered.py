"""Requests of one kind that were answered: how many, and how long they took."""

from __future__ import annotations

from collections import deque

#: Seconds that are looked back.
WINDOW_S = 60.0
#: Looks that are remembered; of more in a minute, the oldest are forgotten early.
LOOKS_MAX = 600


class Answered:
    """How many there were since the process began, and the seconds of all. Event loop only.

    Attributes:
        requests, seconds: counted up by who answers.
    """

    __slots__ = ("_looks", "requests", "seconds")

    def __init__(self) -> None:
        self.requests, self.seconds = 0, 0.0
        #: When, and what there was by then.
        self._looks: deque[tuple[float, int, float]] = deque(maxlen=LOOKS_MAX)

    def lately(self, now: float) -> tuple[int, float]:
        """How many there were in the minute before now, or since the first look; and the seconds of those.

        Args:
            now: of the monotonic clock, seconds.
        """
        self._looks.append((now, self.requests, self.seconds))
        while self._looks[0][0] < now - WINDOW_S:
            self._looks.popleft()
        _, requests, seconds = self._looks[0]
        return self.requests - requests, self.seconds - seconds
