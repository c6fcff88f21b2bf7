"""What the loader measures: how much, how long, how far behind, and when it had to stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from totalizer.clock import SYSTEM_CLOCK
from totalizer.load.ahead import Prepared
from totalizer.load.traced import traced
from totalizer.metrics import MEASURES
from totalizer.metrics.table import LOAD, LOAD_FAILURES, LOAD_LAG, LOADED

#: Characters of a time that are looked at, to 10 ms: of many batches, those of one moment are noted at once.
_MOMENT = len("2025-09-05T10:00:00.12")


@contextmanager
def measured(prepared: Prepared, journal_id: str, first: int) -> Iterator[Prepared]:
    """Note a piece when its transaction, within, has committed; trace it, if any of its batches is traced.

    Args:
        prepared: the piece.
        journal_id: where it comes from.
        first: number of its first record there.

    Returns:
        The piece, with the spans of its transaction.
    """
    gathered, began = prepared.gathered, SYSTEM_CLOCK.monotonic()
    with traced(prepared, journal_id, first) as shown:
        yield shown
    MEASURES.observe(LOAD, SYSTEM_CLOCK.monotonic() - began)
    MEASURES.count(LOADED, by=gathered.rows)
    now_s = SYSTEM_CLOCK.now_ns() / 1e9
    for moment, batches in Counter(text[:_MOMENT] for text in gathered.received).items():
        if (received_s := _seconds(moment)) is not None:
            MEASURES.observe(LOAD_LAG, max(now_s - received_s, 0.0), times=batches)


def stopped() -> None:
    """Note that loading stops for want of the database."""
    MEASURES.count(LOAD_FAILURES)


def _seconds(moment: str) -> float | None:
    """Seconds since 1970; None of a record that does not tell when it was received."""
    try:
        return datetime.fromisoformat(f"{moment}0+00:00").timestamp()
    except ValueError:
        return None
