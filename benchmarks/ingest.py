"""The way in: batches, streams and single events until they are stored, and what the stack itself costs.

Everything runs on one fresh embedded stack, which is stopped and removed in the end. For two API
processes it is started once more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.batches import ALL, LARGE_BATCHES, run_batches
from benchmarks.database import Database
from benchmarks.endurance import memory_under_load
from benchmarks.footprint import idle_memory, second_start
from benchmarks.result import Result
from benchmarks.singles import CONNECTIONS, CONNECTIONS_USUAL, run_singles
from benchmarks.stack import Stack, fresh_stack


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        batch_events, batch_rounds: events of a round of batches, and rounds of each side.
        single_events, single_rounds: the same for single events.
        rest_s: seconds from the start to the look at the idle stack's memory.
        starts: how often the stack is started again.
    """

    batch_events: int
    batch_rounds: int
    single_events: int
    single_rounds: int
    rest_s: float
    starts: int


FULL = Size(batch_events=300_000, batch_rounds=3, single_events=60_000, single_rounds=3, rest_s=10.0, starts=3)
#: Under a minute on two slow cores.
QUICK = Size(batch_events=20_000, batch_rounds=1, single_events=6_000, single_rounds=1, rest_s=1.0, starts=1)


def run_memory(minutes: float) -> Iterator[Result]:
    """What the service's memory does while fifty producers send for so many minutes."""
    with fresh_stack() as stack, tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name:
        yield from memory_under_load(stack, Path(name), minutes=minutes)


def run(quick: bool) -> Iterator[Result]:
    """Every case, each as soon as it is known."""
    size = QUICK if quick else FULL
    with fresh_stack() as stack, tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name:
        yield from idle_memory(stack, after_s=size.rest_s)
        folder = Path(name)
        yield from _ways_in(stack, folder, size, workers=1)
        yield from second_start(stack, rounds=size.starts)
        stack.stop()
        stack.start(TOTALIZER_WORKERS="2")
        yield from _ways_in(stack, folder, size, workers=2)


def _ways_in(stack: Stack, folder: Path, size: Size, *, workers: int) -> Iterator[Result]:
    """All of them with one API process; with more, the two that tell most."""
    alone = workers == 1
    with Database(stack) as database:
        yield from run_batches(
            stack, database, folder, cases=ALL if alone else LARGE_BATCHES, events=size.batch_events,
            rounds=size.batch_rounds, workers=workers,
        )  # fmt: skip
        yield from run_singles(
            stack, database, folder, connections=CONNECTIONS if alone else CONNECTIONS_USUAL,
            events=size.single_events, rounds=size.single_rounds, workers=workers,
        )  # fmt: skip
