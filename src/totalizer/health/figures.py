"""What API processes did lately: each writes its figures into a file of its own, and whoever asks adds them up.

    monitor/api-<pid>.json     rewritten every two seconds, removed when the process ends

A file that is older than ten seconds is of a process that was killed, or that hangs.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.health.facts import ApiFigures

#: Seconds that figures look back.
WINDOW_S = 60
#: Seconds between two files, and after which one is not believed any more.
WRITE_S, STALE_S = 2.0, 10.0


class Figures:
    """Counts the requests of one process by the second. Event loop only, but for `write`.

    Args:
        folder: of the files; None to keep none.
        clock: time source.
    """

    def __init__(self, folder: Path | None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = None if folder is None else folder / f"api-{os.getpid()}.json"
        self._clock = clock
        #: Second, ingest requests and milliseconds, query requests and milliseconds.
        self._seconds: deque[list[float]] = deque(maxlen=WINDOW_S + 1)
        self._process = psutil.Process()
        self.cache_hits = self.cache_misses = 0

    def ingested(self, took_s: float, now: float) -> None:
        """A request that sent events was answered, at `now` of the monotonic clock."""
        second = self._second(now)
        second[1] += 1
        second[2] += took_s * 1000

    def queried(self, took_s: float, now: float) -> None:
        """A request that asked was answered, at `now` of the monotonic clock."""
        second = self._second(now)
        second[3] += 1
        second[4] += took_s * 1000

    def now(self) -> ApiFigures:
        """The figures of the last minute."""
        least = self._clock.monotonic() - WINDOW_S
        recent = [second for second in tuple(self._seconds) if second[0] > least]
        sums = [sum(second[place] for second in recent) for place in range(1, 5)]
        return ApiFigures(
            1, int(sums[0]), sums[1], int(sums[2]), sums[3], self.cache_hits, self.cache_misses,
            self._process.memory_info().rss,
        )  # fmt: skip

    def write(self) -> None:
        """Leave the figures for others; nothing is synced: after a crash nobody wants them.

        Raises:
            OSError: the disk refuses.
        """
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_bytes(msgspec.json.encode((self._clock.now_ns() // 1_000_000, self.now())))
        draft.replace(self._path)

    def remove(self) -> None:
        """Take the file away."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _second(self, now: float) -> list[float]:
        if not self._seconds or now - self._seconds[-1][0] >= 1:
            self._seconds.append([now // 1, 0, 0.0, 0, 0.0])
        return self._seconds[-1]


def read_figures(folder: Path, now_ms: int) -> ApiFigures:
    """The figures of all API processes on this machine, in sum. Files that cannot be read count for nothing."""
    found = [figures for path in folder.glob("api-*.json") if (figures := _read(path, now_ms)) is not None]
    return ApiFigures(*(sum(getattr(each, name) for each in found) for name in ApiFigures.__dataclass_fields__))


def _read(path: Path, now_ms: int) -> ApiFigures | None:
    try:
        at_ms, figures = msgspec.json.decode(path.read_bytes(), type=tuple[int, ApiFigures])
    except (OSError, msgspec.DecodeError):
        return None
    if abs(now_ms - at_ms) > STALE_S * 1000:
        if not psutil.pid_exists(int(path.stem.rpartition("-")[2])):
            path.unlink(missing_ok=True)
        return None
    return figures
