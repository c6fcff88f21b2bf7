"""How the cost of a backfill grows with the number of events: 1 million to 20 million, with the exponent."""

from __future__ import annotations

import math
from collections.abc import Iterator

from benchmarks.progress import note
from benchmarks.result import Result, less_is_better
from benchmarks.rollup import refreshed
from benchmarks.rollup_data import books

BENCH = "growth"


def run(quick: bool) -> Iterator[Result]:
    """One case for each size, beside the smallest one's cost times the growth."""
    sizes = (50_000, 200_000) if quick else (1_000_000, 5_000_000, 20_000_000)
    seconds: list[float] = []
    for events in sizes:
        with books() as opened:
            opened.fill(events, days=events / 100_000)
            opened.empty_rollup()
            seconds.append(refreshed(opened)[1])
        note(f"{events:,} events: {seconds[-1]:,.1f} s")
    for events, taken in zip(sizes[1:], seconds[1:], strict=True):
        exponent = math.log(taken / seconds[0]) / math.log(events / sizes[0])
        case = f"backfill of {events:,} events, exponent {exponent:.2f}"
        yield less_is_better(BENCH, case, "s", [taken], "in proportion", [seconds[0] * events / sizes[0]])
