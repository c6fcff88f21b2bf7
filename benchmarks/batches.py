"""Batches of events, from the first byte sent until the last is stored, beside a plain COPY of the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.database import Database
from benchmarks.progress import note
from benchmarks.result import Result, more_is_better
from benchmarks.sending import send_and_store
from benchmarks.stack import Stack
from benchmarks.workload import (
    BATCH_EVENTS,
    BATCH_PATH,
    CopyPiece,
    batch_bodies,
    copy_pieces,
    make_events,
    make_requests,
    write_requests,
)

BENCH = "ingest"
CASE = f"batches of {BATCH_EVENTS}"
BASELINE = "plain COPY of the same rows"
#: Connections, so batches on their way at a time.
CONNECTIONS = 4


def run_batches(stack: Stack, database: Database, folder: Path, *, events: int, rounds: int) -> Iterator[Result]:
    """Events a second into PostgreSQL, by way of API, journal and loader.

    Args:
        stack: running.
        database: its.
        folder: for the requests.
        events: in a round, a multiple of BATCH_EVENTS.
        rounds: of each side, by turns.
    """
    _warm_up(stack, database, folder)
    requests, pieces = _prepare(stack, database, folder, events)
    ours, plain = [], []
    for number in range(rounds):
        database.reset()
        report, seconds = send_and_store(stack.port, CONNECTIONS, requests, database, events)
        ours.append(events / seconds)
        database.reset()
        plain.append(events / database.copy(pieces))
        database.check_rows(events)
        note(
            f"{CASE}, round {number + 1} of {rounds}: {report.rate * BATCH_EVENTS:,.0f} events/s acknowledged, "
            f"{ours[-1]:,.0f} stored, {plain[-1]:,.0f} by {BASELINE}"
        )
    yield more_is_better(BENCH, CASE, "events/s", ours, BASELINE, plain)


def _prepare(stack: Stack, database: Database, folder: Path, events: int) -> tuple[Path, list[CopyPiece]]:
    bodies = batch_bodies(make_events(events))
    path = folder / "batches"
    write_requests(path, make_requests(BATCH_PATH, bodies, stack.port, stack.api_key()))
    return path, copy_pieces(bodies, database.organization_id)


def _warm_up(stack: Stack, database: Database, folder: Path) -> None:
    """A small round of each side that does not count: first uses load code, plans and pages."""
    requests, pieces = _prepare(stack, database, folder, BATCH_EVENTS)
    database.reset()
    send_and_store(stack.port, CONNECTIONS, requests, database, BATCH_EVENTS)
    database.reset()
    database.copy(pieces)
