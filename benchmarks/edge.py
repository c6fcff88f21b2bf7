"""The batching library: durable adding beside bare group commit, a crowd of processes, memory while much waits.

Each measurement is a process of its own (`edge_writer`), on a folder of its own that is removed in the end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from benchmarks.progress import note
from benchmarks.result import Result, less_is_better, more_is_better

BENCH = "edge"
THREADS = (1, 16, 64)
PROCESSES = 50
#: What 99 of 100 operations may take, ms.
BUDGET_MS = 500.0


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        seconds, rounds: of each side of a comparison.
        crowd_per_s, crowd_s: entries a second of each process of the crowd, and for how long.
        waiting: entries that wait.
    """

    seconds: float
    rounds: int
    crowd_per_s: int
    crowd_s: float
    waiting: int


FULL = Size(seconds=5, rounds=3, crowd_per_s=20, crowd_s=20, waiting=1_000_000)
QUICK = Size(seconds=1.5, rounds=2, crowd_per_s=10, crowd_s=6, waiting=50_000)


def run(quick: bool) -> Iterator[Result]:
    """Every case, each as soon as it is known."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name:
        folder = Path(name)
        for threads in THREADS:
            yield from durable_adding(folder / f"{threads}", threads, size)
        yield from crowd(folder / "crowd", size)
        yield from memory(folder / "memory", size)


def durable_adding(folder: Path, threads: int, size: Size) -> Iterator[Result]:
    """Adding with some threads, in turn with the baseline."""
    modes = ("bare", "add", "large", "apart")
    rounds = [
        {mode: _measured(mode, folder / f"{mode}-{turn}", threads, size.seconds) for mode in modes}
        for turn in range(size.rounds)
    ]
    ours, bare = [each["add"] for each in rounds], [each["bare"] for each in rounds]
    case, baseline = f"add, {threads} threads", "bare group commit"
    note(f"{case}: {median(each['delivered_per_s'] for each in ours):,.0f} entries/s were delivered meanwhile")
    rates, others = [each["per_s"] for each in ours], [each["per_s"] for each in bare]
    yield more_is_better(BENCH, case, "entries/s", rates, baseline, others)
    for mode, how in (("large", "batches of 500"), ("apart", "nothing delivered")):
        rates = [each[mode]["per_s"] for each in rounds]
        yield more_is_better(BENCH, f"{case}, {how}", "entries/s", rates, baseline, others)
    slowest, theirs = [each["p99_ms"] for each in ours], [each["p99_ms"] for each in bare]
    yield less_is_better(BENCH, f"{case}: p99", "ms", slowest, baseline, theirs)


def crowd(folder: Path, size: Size) -> Iterator[Result]:
    """Many processes on one folder, each at a steady rate."""
    command = _command("paced", folder, size.crowd_per_s, size.crowd_s)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    figures = [msgspec.json.decode(process.communicate()[0]) for process in processes]
    files = len(list((folder / "aggregated").glob("batch_*.json")))
    note(f"{PROCESSES} processes: {files} batch files; p50 {median(each['p50_ms'] for each in figures):.2f} ms")
    budget = f"{BUDGET_MS:.0f} ms for 99 %"
    for name, case in (("p99_ms", "add: p99"), ("flush_p99_ms", "flush: p99")):
        for whose, choose in (("middle", median), ("slowest", max)):
            values = [choose([each[name] for each in figures])]
            yield less_is_better(
                BENCH, f"{PROCESSES} processes, {case} of the {whose}", "ms", values, budget, [BUDGET_MS]
            )


def memory(folder: Path, size: Size) -> Iterator[Result]:
    """What a process grows by while entries wait."""
    ours = _measured("wait", folder / "wait", size.waiting, 0)
    held = _measured("hold", folder / "hold", size.waiting, 0)
    case, values = f"memory while {size.waiting:,} entries wait", [max(ours["mb"], 0.1)]
    yield less_is_better(BENCH, case, "MB", values, "a list of them", [held["mb"]])


def _command(mode: str, folder: Path, number: int, seconds: float) -> list[str]:
    return [sys.executable, "-m", "benchmarks.edge_writer", mode, str(folder), str(number), str(seconds)]


def _measured(mode: str, folder: Path, number: int, seconds: float) -> dict[str, float]:
    done = subprocess.run(_command(mode, folder, number, seconds), stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = msgspec.json.decode(done.stdout)
    return figures
