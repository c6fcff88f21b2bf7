"""What the tests of the batching library share: entries, targets that do as they are told, what is found on a disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from totalizer.edge import Batch, Delivery, SinkUnavailable, SmartBatchAggregator
from totalizer.edge.batch import decode_batch_file, decode_failed_file
from totalizer.edge.folder import Folders

MONDAY_NS = 1_757_000_000_000_000_000


class SetClock:
    """A clock whose wall time stands until it is moved; its monotonic time runs."""

    def __init__(self, now_ns: int = MONDAY_NS) -> None:
        self.ns = now_ns

    def now_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def entry(number: int | str = 0, **members: Any) -> dict[str, Any]:
    """An entry whose contents follow from its number."""
    metadata = {"of": str(number), "text": f"{number} ü " * 3}
    return {
        "userId": f"user {number}",
        "action": "edit",
        "timestamp": 1_757_000_000_000,
        "metadata": metadata,
    } | members


class MemorySink:
    """Keeps what it gets, once for each id, and can be told to refuse."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.entries: dict[str, dict[str, Any]] = {}
        self.attempts: list[Batch] = []
        self.closed = 0
        #: Called with each batch before it is taken; may raise.
        self.before: Callable[[Batch], None] = lambda batch: None
        #: While cleared, deliveries wait.
        self.gate = threading.Event()
        self.gate.set()

    @property
    def name(self) -> str:
        return "memory"

    def deliver(self, batch: Batch) -> Delivery:
        self.attempts.append(batch)
        self.gate.wait(60)
        self.before(batch)
        self.batches.append(batch)
        self.entries |= {each["id"]: each for each in batch.entries}
        return Delivery(len(batch.entries))

    def close(self) -> None:
        self.closed += 1

    @property
    def numbers(self) -> list[str]:
        """What the delivered entries are of, in the order of their delivery; those delivered twice are there twice."""
        return [each["metadata"]["of"] for batch in self.batches for each in batch.entries]

    def refuse(self, times: int = 10**9, **members: Any) -> None:
        """Be unavailable for so many attempts."""
        left = [times]

        def refuse(batch: Batch) -> None:
            if left[0] > 0:
                left[0] -= 1
                raise SinkUnavailable("the target is away", **members)

        self.before = refuse


def aggregator(folder: Path, **options: Any) -> SmartBatchAggregator:
    """An aggregator that flushes only when it is told to, unless the options say otherwise."""
    quiet = {"batch_size": 1000, "max_age_ms": 600_000, "flush_on_sigterm": False}
    return SmartBatchAggregator(**{**quiet, "data_path": folder / "aggregated", **options})


def delivered(folders: Folders) -> dict[str, dict[str, Any]]:
    """Entries in batch files by id; fails if one is in two files."""
    return _once(
        each for path in folders.batch_files() for each in decode_batch_file(path.read_bytes(), path.name).entries
    )


def kept(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Entries in failed or abandoned files by id; fails if one is in two files."""
    return _once(each for path in files for each in decode_failed_file(path.read_bytes(), path.name).batch.entries)


def _once(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for each in entries:
        assert each["id"] not in found, f"{each['id']} is there twice"
        found[each["id"]] = each
    return found
