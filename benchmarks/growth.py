"""How the cost of a backfill grows with the number of events: 1 million to 10 or 20 million, with the exponent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, timedelta

from benchmarks.progress import note
from benchmarks.result import Result, less_is_better
from benchmarks.rollup import refreshed
from benchmarks.rollup_data import FIRST_DAY, Books, books

BENCH = "growth"
#: Events stored, and those of the last step of the long form.
SIZES, LAST = (1_000_000, 2_000_000, 5_000_000, 10_000_000), 20_000_000
QUICK_SIZES = (100_000, 400_000)
EVENTS_A_DAY = 100_000


def run(quick: bool, long: bool = False) -> Iterator[Result]:
    """One case for each size, beside the smallest one's cost times the growth.

    Args:
        quick: two small sizes.
        long: one more large one.
    """
    sizes = QUICK_SIZES if quick else (*SIZES, LAST) if long else SIZES
    stored, base = 0, 0.0
    with books() as opened:
        for events in sizes:
            _add(opened, stored, events)
            stored = events
            opened.empty_rollup()
            seconds = refreshed(opened)[1]
            note(f"{events:,} events: {seconds:,.1f} s")
            if base:
                exponent = math.log(seconds / base) / math.log(events / sizes[0])
                case = f"backfill of {events:,} events, exponent {exponent:.2f}"
                yield less_is_better(BENCH, case, "s", [seconds], "in proportion", [base * events / sizes[0]])
            else:
                base = seconds


def _add(opened: Books, stored: int, events: int) -> None:
    """Store the events that are missing, in the days that follow: the density stays as it is."""
    first = date.fromisoformat(FIRST_DAY) + timedelta(days=stored / EVENTS_A_DAY)
    opened.fill(events - stored, days=(events - stored) / EVENTS_A_DAY, since=first.isoformat())
