"""The way in: batches and single events until they are stored, and what the stack itself costs.

Everything runs on one fresh embedded stack, which is stopped and removed in the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.batches import run_batches
from benchmarks.database import Database
from benchmarks.footprint import idle_memory, second_start
from benchmarks.result import Result
from benchmarks.singles import run_singles
from benchmarks.stack import fresh_stack


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
QUICK = Size(batch_events=60_000, batch_rounds=2, single_events=12_000, single_rounds=2, rest_s=2.0, starts=1)


def run(quick: bool) -> Iterator[Result]:
    """Every case, each as soon as it is known."""
    size = QUICK if quick else FULL
    with fresh_stack() as stack, tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name:
        yield from idle_memory(stack, after_s=size.rest_s)
        folder = Path(name)
        with Database(stack) as database:
            yield from run_batches(stack, database, folder, events=size.batch_events, rounds=size.batch_rounds)
            yield from run_singles(stack, database, folder, events=size.single_events, rounds=size.single_rounds)
        yield from second_start(stack, rounds=size.starts)
