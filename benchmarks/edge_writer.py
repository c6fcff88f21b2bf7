"""One process of the edge benchmark; it tells its figures as a line of JSON.

python -m benchmarks.edge_writer add    FOLDER THREADS SECONDS     an aggregator, added to by threads
python -m benchmarks.edge_writer large  FOLDER THREADS SECONDS     the same with batches of 500
python -m benchmarks.edge_writer apart  FOLDER THREADS SECONDS     the same while the target takes nothing
python -m benchmarks.edge_writer bare   FOLDER THREADS SECONDS     bare group commit, the same way
python -m benchmarks.edge_writer paced  FOLDER PER_S   SECONDS     one of many processes, at a steady rate
python -m benchmarks.edge_writer wait   FOLDER COUNT   0           memory while entries wait in the journal
python -m benchmarks.edge_writer hold   FOLDER COUNT   0           memory while they wait in a list
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.bare_log import BareLog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.edge import Batch, Delivery, FlushError, SinkUnavailable, SmartBatchAggregator
from totalizer.edge.batch_utils import calculate_percentile

_encode = msgspec.json.Encoder().encode


def entry(number: int) -> dict[str, Any]:
    """An entry as the documents show them, about 200 bytes of JSON."""
    metadata = {"sessionId": f"session_{number}", "taskId": "task_789", "duration": 1_800_000, "file": "app.js"}
    return {
        "userId": f"user_{number % 100}", "action": "code_edit", "timestamp": SYSTEM_CLOCK.now_ns() // 1_000_000,
        "metadata": metadata,
    }  # fmt: skip


def aggregator(folder: Path, **options: Any) -> SmartBatchAggregator:
    """As a program has it, with the default options."""
    return SmartBatchAggregator(data_path=folder / "aggregated", flush_on_sigterm=False, **options)


def measure(add: Callable[[int], None], threads: int, seconds: float) -> dict[str, float]:
    """Let threads call `add` one call after the other; calls a second, and the 99th percentile of one, ms."""
    took: list[list[float]] = [[] for _ in range(threads)]
    clock = SYSTEM_CLOCK.monotonic
    end = clock() + seconds

    def work(mine: list[float]) -> None:
        number, now = 0, clock()
        while now < end:
            add(number)
            number, before, now = number + 1, now, clock()
            mine.append(now - before)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in took]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    times = [each for mine in took for each in mine]
    return {"per_s": len(times) / seconds, "p99_ms": calculate_percentile(times, 99) * 1000}


def add(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    """Durable adding, with deliveries going on beside it."""
    with aggregator(folder) as made:
        figures = measure(lambda number: made.add(entry(number)), threads, seconds)
        return figures | {"delivered_per_s": made.get_stats().processed / seconds}


def large(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    """The same with batches of 500: a tenth of the files."""
    with aggregator(folder, batch_size=500) as made:
        return measure(lambda number: made.add(entry(number)), threads, seconds)


def apart(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    """The same while the target hangs: what adding costs by itself."""
    target = HangingTarget()
    made = aggregator(folder, quota_bytes=1 << 32, sink=target)
    figures = measure(lambda number: made.add(entry(number)), threads, seconds)
    target.released.set()
    with contextlib.suppress(FlushError):
        made.shutdown(timeout_ms=0)
    return figures


def bare(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    """The same entries, encoded and nothing else, into a bare log."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(BareLog(folder, on_commit=lambda tokens, error: None)) as log:
        return measure(lambda number: log.append_and_wait(_encode(entry(number)) + b"\n"), threads, seconds)


def paced(folder: Path, per_s: int, seconds: float) -> dict[str, float]:
    """One of many processes that each add at a steady rate."""
    took = []
    clock = SYSTEM_CLOCK
    with aggregator(folder) as made:
        started = clock.monotonic()
        for number in range(int(per_s * seconds)):
            clock.sleep(max(started + number / per_s - clock.monotonic(), 0))
            before = clock.monotonic()
            made.add(entry(number))
            took.append((clock.monotonic() - before) * 1000)
        made.flush()
        flush_p99_ms = made.get_performance_metrics().p99_flush_time_ms
    # The first one opens the journal.
    return {
        "p99_ms": calculate_percentile(took[1:], 99), "p50_ms": calculate_percentile(took[1:], 50),
        "flush_p99_ms": flush_p99_ms,
    }  # fmt: skip


class HangingTarget:
    """Answers no delivery before it is released."""

    name = "a target that hangs"

    def __init__(self) -> None:
        self.released = threading.Event()

    def deliver(self, batch: Batch) -> Delivery:
        """Wait, and then refuse."""
        self.released.wait()
        raise SinkUnavailable("not in this measurement")

    def close(self) -> None:
        """Nothing is held open."""


def wait(folder: Path, count: int, _: float) -> dict[str, float]:
    """Entries that wait in the journal, since the target hangs."""
    target, process = HangingTarget(), psutil.Process()
    made = aggregator(folder, quota_bytes=1 << 32, durability="interval", sink=target)
    for number in range(100):
        made.add(entry(number))
    before = process.memory_info().rss
    for number in range(100, count):
        made.add(entry(number))
    while made.get_current_batch_size() < count:  # the last of them are on their way to the disk
        SYSTEM_CLOCK.sleep(0.05)
    grown = process.memory_info().rss - before
    target.released.set()
    with contextlib.suppress(FlushError):
        made.shutdown(timeout_ms=0)
    return {"mb": grown / 1e6}


def hold(folder: Path, count: int, _: float) -> dict[str, float]:
    """Entries that wait in a list."""
    process = psutil.Process()
    before = process.memory_info().rss
    held = [entry(number) for number in range(count)]
    grown = process.memory_info().rss - before
    held.clear()  # not before the measurement
    return {"mb": grown / 1e6}


if __name__ == "__main__":
    mode, folder, number, seconds = sys.argv[1:]
    modes = {"add": add, "large": large, "apart": apart, "bare": bare, "paced": paced, "wait": wait, "hold": hold}
    work = modes[mode]
    sys.stdout.write(_encode(work(Path(folder), int(number), float(seconds))).decode() + "\n")
