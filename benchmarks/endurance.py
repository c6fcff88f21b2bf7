"""What the service's memory does under a load that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from benchmarks.database import Database
from benchmarks.footprint import MB, memory_of
from benchmarks.progress import note
from benchmarks.result import Result, less_is_better
from benchmarks.sending import Sender
from benchmarks.stack import Stack
from benchmarks.workload import BATCH_PATH, SINGLE_PATH, batch_bodies, make_events, make_requests, write_requests
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError
from totalizer.ops.process import wait_until

BENCH = "ingest"
#: What the service may take, in MB of a million bytes.
BUDGET_MB = 512.0
PRODUCERS = 50
#: Requests a second of all producers together; one of so many is a batch of BATCH_SIZE, the others are single events.
RATE, BATCH_EVERY, BATCH_SIZE = 1000, 50, 100
#: Requests made; they are sent again and again. None has an id or a time, so each time they are other events.
REQUESTS = 5000
#: Seconds between two looks.
LOOK_SECONDS = 2.0
#: Seconds that the last events may take into the database.
LOAD_SECONDS_MAX = 120.0


class Sample(NamedTuple):
    """MB in use: by our own processes, and by all of the stack."""

    service: float
    stack: float


def memory_under_load(stack: Stack, folder: Path, *, minutes: float) -> Iterator[Result]:
    """Memory while PRODUCERS send at a steady rate: the most there ever was, and how it grew.

    Args:
        stack: running, fresh.
        folder: for the requests.
        minutes: how long.
    """
    path = folder / "steady"
    requests = _requests(stack)
    write_requests(path, requests)
    sender = Sender(stack.port, PRODUCERS, path, str(minutes * 60), str(RATE), module="benchmarks.steady")
    with closing(_Stopping(sender)):
        sender.begin()
        samples = list(_samples(stack, sender))
        report = sender.report()
    note(
        f"{report.count:,} requests in {minutes:g} minutes, {report.rate:,.0f} a second; "
        f"p50 {report.latency_ms_p50:.1f}, p99 {report.latency_ms_p99:.1f} ms"
    )
    events = _events(report.count)
    with Database(stack) as database:
        if not wait_until(lambda: database.loaded() >= events, LOAD_SECONDS_MAX):
            raise OperationError(f"{events} events were acknowledged, {database.loaded()} are stored")
        if (loaded := database.loaded()) != events:
            raise OperationError(f"{events} events were acknowledged, {loaded} are stored")
    note(f"{events:,} events acknowledged, each stored once; memory of the service, of all: {_words(samples)}")
    yield from _results(samples, minutes)


class _Stopping:
    """Ends a sender as a file is closed."""

    def __init__(self, sender: Sender) -> None:
        self.close = sender.stop


def _requests(stack: Stack) -> list[bytes]:
    events = make_events(REQUESTS, nameless=True)
    singles = make_requests(SINGLE_PATH, events, stack.port, stack.api_key())
    batches = make_requests(BATCH_PATH, batch_bodies(events, BATCH_SIZE), stack.port, stack.api_key())
    places = range(0, len(singles), BATCH_EVERY)
    for number, place in enumerate(places):
        singles[place] = batches[number % len(batches)]
    return singles


def _events(requests: int) -> int:
    """How many events so many requests hold, from the first on."""
    batches = -(-requests // BATCH_EVERY)
    return requests - batches + batches * BATCH_SIZE


def _samples(stack: Stack, sender: Sender) -> Iterator[Sample]:
    said_at = SYSTEM_CLOCK.monotonic()
    while not sender.ended():
        sample = _sample(stack)
        yield sample
        if SYSTEM_CLOCK.monotonic() - said_at > 30:
            said_at = SYSTEM_CLOCK.monotonic()
            note(f"service {sample.service:.0f} MB, all of the stack {sample.stack:.0f} MB")
        SYSTEM_CLOCK.sleep(LOOK_SECONDS)


def _sample(stack: Stack) -> Sample:
    processes = stack.processes()
    ours = [process for process in processes if _is_ours(process)]
    return Sample(memory_of(ours) / MB, memory_of(processes) / MB)


def _is_ours(process: psutil.Process) -> bool:
    """True for a process of the service, false for those of PostgreSQL and Valkey."""
    return bool("python" in process.name())


def _words(samples: list[Sample]) -> str:
    return "; ".join(
        f"min {min(values):.0f}, max {max(values):.0f}, last {values[-1]:.0f} MB"
        for values in ([sample.service for sample in samples], [sample.stack for sample in samples])
    )


def _results(samples: list[Sample], minutes: float) -> Iterator[Result]:
    case = f"memory of the service, {PRODUCERS} producers for {minutes:g} minutes"
    service = [sample.service for sample in samples]
    quarter = max(len(service) // 4, 1)
    yield less_is_better(BENCH, f"{case}: most", "MB", [max(service)], f"budget of {BUDGET_MB:.0f} MB", [BUDGET_MB])
    yield less_is_better(
        BENCH, f"{case}: last quarter", "MB", [median(service[-quarter:])], "second quarter",
        [median(service[quarter : 2 * quarter] or service)],
    )  # fmt: skip
    whole = [sample.stack for sample in samples]
    yield less_is_better(
        BENCH, f"{case}: most, with PostgreSQL and Valkey", "MB", [max(whole)], f"budget of {BUDGET_MB:.0f} MB",
        [BUDGET_MB],
    )  # fmt: skip
