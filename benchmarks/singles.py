"""Events one a request, each answered when it is durable, beside a server that answers without keeping anything."""

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
from benchmarks.workload import SINGLE_PATH, make_events, make_requests, write_requests

BENCH = "ingest"
BASELINE = "the same server with a bare handler"
#: The loop the bare server would run on without the package that the API's loop comes from.
BASELINE_ASYNCIO = "a bare handler on asyncio's own loop"
#: Requests on their way at a time, one on each connection.
CONNECTIONS = (16, 64, 256)
#: The middle one, where one is enough.
CONNECTIONS_USUAL = (64,)
#: Requests of the round that does not count.
WARM_UP = 2000


class Round(NamedTuple):
    """One round of both sides.

    Attributes:
        ours: the client's report on the stack.
        stored: events stored a second, from the first byte sent to the last event stored.
        bare: the client's report on the bare server, which runs on the API's event loop.
        bare_asyncio: the same on asyncio's own event loop.
    """

    ours: Report
    stored: float
    bare: Report
    bare_asyncio: Report


def run_singles(
    stack: Stack, database: Database, folder: Path, *, connections: Sequence[int], events: int, rounds: int,
    workers: int = 1,
) -> Iterator[Result]:  # fmt: skip
    """Requests a second and their latency, and events stored a second, for each number of connections.

    Args:
        stack: running.
        database: its.
        folder: for the requests.
        connections: numbers of them.
        events: in a round.
        rounds: of each side, by turns.
        workers: API processes of the stack, and processes of the bare servers.
    """
    path = folder / "singles"
    requests = make_requests(SINGLE_PATH, make_events(events), stack.port, stack.api_key())
    write_requests(path, requests)
    write_requests(folder / "warm", requests[:WARM_UP])
    del requests
    with bare_server("uvloop", workers) as uvloop_port, bare_server("asyncio", workers) as asyncio_port:
        bare_ports = (uvloop_port, asyncio_port)
        for port in bare_ports:
            send(port, connections[0], folder / "warm")
        send(stack.port, connections[0], folder / "warm")
        for some in connections:
            case = f"single events, {some} connections" + (f", {workers} workers" if workers > 1 else "")
            played = []
            for number in range(rounds):
                played.append(_play(stack, database, bare_ports, some, path, events))
                note(f"{case}, round {number + 1} of {rounds}: {_words(played[-1])}")
            yield from _results(case, played)


def _play(
    stack: Stack, database: Database, bare_ports: tuple[int, int], connections: int, requests: Path, events: int
) -> Round:
    database.reset()
    ours, seconds = send_and_store(stack.port, connections, requests, database, events)
    # The rollups finish first, so that the bare server has the machine to itself.
    database.reset()
    bare, bare_asyncio = (send(port, connections, requests) for port in bare_ports)
    return Round(ours, events / seconds, bare, bare_asyncio)


def _words(played: Round) -> str:
    return (
        f"{played.ours.rate:,.0f} events/s acknowledged (p99 {played.ours.latency_ms_p99:.1f} ms), "
        f"{played.stored:,.0f} stored, {played.bare.rate:,.0f} by {BASELINE}"
    )


def _results(case: str, rounds: list[Round]) -> Iterator[Result]:
    acknowledged = [played.ours.rate for played in rounds]
    bare = [played.bare.rate for played in rounds]
    yield more_is_better(BENCH, f"{case}: acknowledged", "events/s", acknowledged, BASELINE, bare)
    bare_asyncio = [played.bare_asyncio.rate for played in rounds]
    yield more_is_better(BENCH, f"{case}: acknowledged", "events/s", acknowledged, BASELINE_ASYNCIO, bare_asyncio)
    for name in ("p50", "p99"):
        ours, theirs = (
            [getattr(report, f"latency_ms_{name}") for report in reports]
            for reports in ((played.ours for played in rounds), (played.bare for played in rounds))
        )
        yield less_is_better(BENCH, f"{case}: latency {name}", "ms", ours, BASELINE, theirs)
    stored = [played.stored for played in rounds]
    yield more_is_better(BENCH, f"{case}: stored", "events/s", stored, "acknowledged in the same rounds", acknowledged)
