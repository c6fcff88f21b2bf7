"""The last minute of a histogram, told as gauges: for who asks now and then, and has not seen it a minute ago."""

from __future__ import annotations

from collections import deque

from totalizer.metrics.measures import MEASURES, Measures
from totalizer.metrics.table import MINUTE_REQUESTS, MINUTE_SECONDS, Metric

#: Seconds that are looked back.
WINDOW_S = 60.0
#: Looks that are remembered; of more in a minute, the oldest are forgotten early.
LOOKS_MAX = 600


class LastMinute:
    """Tells how often something was measured in the last minute, and the seconds of all.

    Args:
        metric: a histogram without labels.
        kind: label of the gauges.
        measures: whose it is.
    """

    def __init__(self, metric: Metric, kind: str, measures: Measures = MEASURES) -> None:
        self._metric, self._kind, self._measures = metric, kind, measures
        #: When, and what there was by then.
        self._looks: deque[tuple[float, float, float]] = deque(maxlen=LOOKS_MAX)

    def look(self, now: float) -> None:
        """Tell the minute before now, or what is known of it.

        Args:
            now: of the monotonic clock, seconds.
        """
        times, seconds = self._measures.durations(self._metric)
        self._looks.append((now, times, seconds))
        while self._looks[0][0] < now - WINDOW_S:
            self._looks.popleft()
        _, times_before, seconds_before = self._looks[0]
        self._measures.set(MINUTE_REQUESTS, times - times_before, self._kind)
        # What is left of sums of fractions may be a little less than nothing.
        self._measures.set(MINUTE_SECONDS, max(seconds - seconds_before, 0.0), self._kind)
