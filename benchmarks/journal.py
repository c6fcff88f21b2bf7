"""The journal beside a bare file and SQLite that acknowledge as durably, and how long it takes to open one again."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.bare_log import BareLog, Log, OnCommit
from benchmarks.producers import Opener, Run, blocking_threads, in_flight
from benchmarks.progress import note
from benchmarks.recovery import run_recovery
from benchmarks.result import Result, less_is_better, more_is_better
from benchmarks.sqlite_log import SqliteLog
from benchmarks.workload import make_events
from totalizer.catalog import load_catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.journal import Journal
from totalizer.serve import SWITCH_INTERVAL_S

BENCH = "journal"
PRODUCERS = (1, 16, 128, 1000)
#: The journal's settings: those of the service.
SEGMENT_BYTES, QUOTA_BYTES = 64 << 20, 4 << 30
ORGANIZATION_ID = "00000000-0000-4000-8000-000000000001"
#: Python's own.
THREADS_SWITCH_INTERVAL_S = 0.005
OURS, BARE, SQLITE = "journal", "bare append with group commit", "SQLite WAL, FULL, with group commit"


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: of each side, by turns.
        seconds: length of a round.
        recovery_mb: sizes of the journals that are opened, megabytes.
        recovery_rounds: of each size.
    """

    rounds: int
    seconds: float
    recovery_mb: tuple[int, ...]
    recovery_rounds: int


FULL = Size(rounds=7, seconds=2.0, recovery_mb=(1, 10, 100, 1000), recovery_rounds=3)
#: Under a minute on two slow cores.
QUICK = Size(rounds=3, seconds=0.4, recovery_mb=(1, 10, 100), recovery_rounds=1)


class Form(NamedTuple):
    """How producers wait.

    Attributes:
        name: of the cases.
        play: one round.
        switch_interval_s: how long Python lets a thread run on while others wait.
    """

    name: str
    play: Callable[[Opener, int, bytes, float], Run]
    switch_interval_s: float


FORMS = (
    Form("threads that block", blocking_threads, THREADS_SWITCH_INTERVAL_S),
    Form("in flight on an event loop", in_flight, SWITCH_INTERVAL_S),
)
LOGS: dict[str, Callable[[Path, OnCommit], Log]] = {
    OURS: lambda folder, on_commit: Journal.open(
        folder / "journal", segment_bytes=SEGMENT_BYTES, quota_bytes=QUOTA_BYTES, on_commit=on_commit
    ),
    BARE: BareLog,
    SQLITE: SqliteLog,
}


def run(quick: bool) -> Iterator[Result]:
    """Every case, each as soon as it is known."""
    size = QUICK if quick else FULL
    payload = one_event()
    for form in FORMS:
        for producers in PRODUCERS:
            yield from _run_case(form, producers, payload, size)
    yield from run_recovery(size.recovery_mb, size.recovery_rounds)


def one_event() -> bytes:
    """What the API appends for a request of one event."""
    collector = Collector(load_catalog(), SYSTEM_CLOCK, batch_events_max=1)
    payload, _ = collector.admit_one(ORGANIZATION_ID, "commands", make_events(1)[0])
    return payload


def _run_case(form: Form, producers: int, payload: bytes, size: Size) -> Iterator[Result]:
    case = f"{producers} {form.name}"
    runs: dict[str, list[Run]] = {name: [] for name in LOGS}
    with _switching_every(form.switch_interval_s):
        for number in range(size.rounds):
            for name in LOGS:
                runs[name].append(_play(form, name, producers, payload, size.seconds))
            words = ", ".join(f"{name} {some[-1].rate:,.0f}/s" for name, some in runs.items())
            note(f"{case}, round {number + 1} of {size.rounds}: {words}")
    rates = {name: [run.rate for run in some] for name, some in runs.items()}
    for baseline in (BARE, SQLITE):
        yield more_is_better(BENCH, f"{case}: acknowledged", "events/s", rates[OURS], baseline, rates[baseline])
    for name in ("p50", "p99"):
        ours, theirs = ([getattr(run, f"latency_ms_{name}") for run in runs[side]] for side in (OURS, BARE))
        yield less_is_better(BENCH, f"{case}: latency {name}", "ms", ours, BARE, theirs)


def _play(form: Form, name: str, producers: int, payload: bytes, seconds: float) -> Run:
    with tempfile.TemporaryDirectory(prefix="totalizer-bench-") as folder:
        return form.play(lambda on_commit: LOGS[name](Path(folder), on_commit), producers, payload, seconds)


@contextmanager
def _switching_every(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
