"""Batches and streams of events, from the first byte sent until the last is stored, beside a plain COPY of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.client import Report
from benchmarks.database import Database
from benchmarks.progress import note
from benchmarks.result import Result, less_is_better, more_is_better
from benchmarks.sending import bare_server, send, send_and_store
from benchmarks.stack import Stack
from benchmarks.workload import (
    BATCH_EVENTS,
    BATCH_PATH,
    SINGLE_PATH,
    CopyPiece,
    batch_bodies,
    copy_pieces,
    make_events,
    make_requests,
    write_requests,
)

BENCH = "ingest"
BASELINE = "plain COPY of the same rows"
BASELINE_BARE = "the same server with a bare handler"
NDJSON = "application/x-ndjson"
#: Streams on their way at a time, each with its part of the events.
STREAMS = 4


class Case(NamedTuple):
    """One way of sending many events.

    Attributes:
        name: of the case.
        size: events in a request; 0 for streams, which share all of them.
        connections: so many requests are on their way at a time.
    """

    name: str
    size: int
    connections: int


#: The smaller the batch, the more of them on their way: their answers wait for the disk together.
BATCHES = (Case("batches of 10", 10, 64), Case("batches of 100", 100, 16), Case("batches of 1000", BATCH_EVENTS, 4))
STREAM = Case(f"{STREAMS} NDJSON streams", 0, STREAMS)
LARGE_BATCHES = (BATCHES[-1],)
ALL = (*BATCHES, STREAM)


class Round(NamedTuple):
    """One round of both sides: the client's report, and events a second into the database."""

    report: Report
    stored: float
    copied: float
    bare: Report | None


def run_batches(
    stack: Stack, database: Database, folder: Path, *, cases: Sequence[Case], events: int, rounds: int, workers: int = 1
) -> Iterator[Result]:
    """Events a second into PostgreSQL, by way of API, journal and loader; and how soon requests are acknowledged.

    Args:
        stack: running.
        database: its.
        folder: for the requests.
        cases: what is sent.
        events: in a round, a multiple of BATCH_EVENTS.
        rounds: of each side, by turns.
        workers: API processes of the stack, and processes of the bare server.
    """
    made = make_events(events)
    pieces = copy_pieces(batch_bodies(made), database.organization_id)
    _warm_up(stack, database, folder, made)
    with bare_server("uvloop", workers) as bare_port:
        for case in cases:
            name = case.name if workers == 1 else f"{case.name}, {workers} workers"
            path = folder / "batches"
            write_requests(path, _requests(case, made, stack))
            played = []
            for number in range(rounds):
                played.append(_play(stack, database, case, path, pieces, events, bare_port))
                note(f"{name}, round {number + 1} of {rounds}: {_words(played[-1])}")
            yield from _results(name, played)


def _requests(case: Case, events: Sequence[bytes], stack: Stack) -> list[bytes]:
    if case.size:
        return make_requests(BATCH_PATH, batch_bodies(events, case.size), stack.port, stack.api_key())
    each = -(-len(events) // STREAMS)
    bodies = [b"\n".join(events[start : start + each]) for start in range(0, len(events), each)]
    return make_requests(SINGLE_PATH, bodies, stack.port, stack.api_key(), NDJSON)


def _play(
    stack: Stack, database: Database, case: Case, requests: Path, pieces: list[CopyPiece], events: int, bare_port: int
) -> Round:
    database.reset()
    report, seconds = send_and_store(stack.port, case.connections, requests, database, events)
    database.reset()
    copied = events / database.copy(pieces)
    database.check_rows(events)
    database.reset()
    bare = send(bare_port, case.connections, requests) if case.size else None
    return Round(report, events / seconds, copied, bare)


def _words(played: Round) -> str:
    return (
        f"{played.stored:,.0f} events/s stored, {played.copied:,.0f} by {BASELINE}; "
        f"acknowledged with p50 {played.report.latency_ms_p50:.1f}, p99 {played.report.latency_ms_p99:.1f} ms"
    )


def _results(name: str, rounds: Sequence[Round]) -> Iterator[Result]:
    stored, copied = [each.stored for each in rounds], [each.copied for each in rounds]
    yield more_is_better(BENCH, name, "events/s", stored, BASELINE, copied)
    bare = [each.bare for each in rounds if each.bare is not None]
    for part in ("p50", "p99") if bare else ():
        ours, theirs = (
            [getattr(report, f"latency_ms_{part}") for report in reports]
            for reports in ([each.report for each in rounds], bare)
        )
        yield less_is_better(BENCH, f"{name}: latency {part}", "ms", ours, BASELINE_BARE, theirs)


def _warm_up(stack: Stack, database: Database, folder: Path, events: Sequence[bytes]) -> None:
    """A small round of each side that does not count: first uses load code, plans and pages."""
    some = list(events[:BATCH_EVENTS])
    path = folder / "warm"
    write_requests(path, make_requests(BATCH_PATH, batch_bodies(some, 100), stack.port, stack.api_key()))
    database.reset()
    send_and_store(stack.port, BATCHES[-1].connections, path, database, len(some))
    database.reset()
    database.copy(copy_pieces(batch_bodies(some), database.organization_id))
