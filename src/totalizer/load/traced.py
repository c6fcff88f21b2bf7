"""Spans of the loader's transactions, for the traced batches that they store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from totalizer import tracing
from totalizer.load.ahead import Prepared

NAME = "load"


@contextmanager
def traced(prepared: Prepared, journal_id: str, first: int) -> Iterator[Prepared]:
    """The piece with the spans of its transaction, which is within; as it is, if none of its batches is traced.

    Args:
        prepared: what is stored.
        journal_id: where it comes from.
        first: number of its first record there.
    """
    gathered = prepared.gathered
    if tracing.ON is None or not gathered.traces:
        yield prepared
        return
    attributes = {
        "totalizer.journal": journal_id, "totalizer.record": first, "totalizer.records": gathered.records,
        "totalizer.rows": gathered.rows,
    }  # fmt: skip
    with tracing.ON.work(NAME, gathered.traces, attributes) as spans:
        yield prepared._replace(spans=spans)
