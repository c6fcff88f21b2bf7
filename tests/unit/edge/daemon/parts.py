"""Parts that the daemon's tests share: a clock by hand, a sink that does what it is told, failed batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from totalizer.edge.batch import Batch, Entry, FailedBatch
from totalizer.edge.folder import Folders, write_file
from totalizer.edge.sinks.sink import Delivery
from totalizer.errors import SinkUnavailable

#: 2024-01-01T00:00:00Z in milliseconds, where the clock by hand begins.
T0 = 1_704_067_200_000
HOUR_MS = 3_600_000


class HandClock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.ms, self._since_start_ms = T0, 0.0

    def now_ns(self) -> int:
        return self.ms * 1_000_000

    def monotonic(self) -> float:
        return 1000.0 + self._since_start_ms / 1000

    def sleep(self, seconds: float) -> None:
        self.forward(round(seconds * 1000))

    def forward(self, milliseconds: int) -> None:
        self.ms += milliseconds
        self._since_start_ms += milliseconds

    def set_back(self, milliseconds: int) -> None:
        """As an administrator does: the wall clock alone."""
        self.ms -= milliseconds


class ScriptedSink:
    """A sink in memory, idempotent by entry id. `script` answers attempts; without one everything is taken."""

    name = "memory"

    def __init__(self, *script: Callable[[Batch], Delivery]) -> None:
        self.script = list(script)
        self.always: Callable[[Batch], Delivery] | None = None
        self.attempts: list[Batch] = []
        self.entries: dict[str, Entry] = {}
        self._busy = threading.Lock()

    def deliver(self, batch: Batch) -> Delivery:
        assert self._busy.acquire(blocking=False), "two deliveries at once"
        try:
            self.attempts.append(batch)
            if self.script:
                return self.script.pop(0)(batch)
            return self.always(batch) if self.always else self.take(batch)
        finally:
            self._busy.release()

    def take(self, batch: Batch, *indexes: int) -> Delivery:
        """Take the entries at the indexes, or all."""
        for index in indexes or range(len(batch.entries)):
            self.entries[batch.entries[index]["id"]] = batch.entries[index]
        return Delivery(len(batch.entries))

    def close(self) -> None:
        """Nothing is held open."""


def away(batch: Batch) -> Delivery:
    """The answer of a target that is not there."""
    raise SinkUnavailable("connection refused")


def entries(name: str, count: int = 3, **more: Any) -> tuple[Entry, ...]:
    return tuple(
        {"id": f"{name}-{index}", "userId": "u", "action": "edit", "timestamp": T0, **more} for index in range(count)
    )


def failed(name: str = "a", *, count: int = 3, timestamp: int = T0, **members: Any) -> FailedBatch:
    """A failed batch; its id is `<timestamp>_<name>`."""
    batch = Batch(f"{timestamp}_{name}", timestamp, entries(name, count))
    defaults: dict[str, Any] = {"retry_count": 0, "last_error": "the disk is full", "failed_at": timestamp}
    return FailedBatch(batch, **defaults | members)


def keep(folders: Folders, batch: FailedBatch) -> FailedBatch:
    """Put it where it belongs, as an aggregator does."""
    folder = folders.recovery if batch.abandoned_at is None else folders.abandoned
    write_file(folder / batch.file_name, batch.encode())
    return batch
