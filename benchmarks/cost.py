"""What the service's telling of itself costs the way in: two API processes on one stack, one without all that."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from benchmarks.database import Database
from benchmarks.own_work import own_work
from benchmarks.plain import AS_IT_IS, PLAIN
from benchmarks.progress import note
from benchmarks.result import Result
from benchmarks.sending import ROOT, send
from benchmarks.singles import WARM_UP
from benchmarks.stack import START_SECONDS_MAX, Stack, environment, free_port, fresh_stack, stop_process
from benchmarks.workload import SINGLE_PATH, make_events, make_requests, write_requests
from totalizer.errors import OperationError
from totalizer.ops.process import wait_until
from totalizer.ops.reach import health

BENCH = "cost"
BASELINE = "without metrics, request ids and logs"
CONNECTIONS = 64
#: Seconds that the loader may take to store a round.
LOAD_SECONDS_MAX = 120.0


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        events: of a round.
        rounds: of each side, by turns.
        turns: of each side, without a network.
    """

    events: int
    rounds: int
    turns: int


FULL, QUICK = Size(events=10_000, rounds=31, turns=400), Size(events=6000, rounds=3, turns=60)


class Played(NamedTuple):
    """One round of one side.

    Attributes:
        rate: requests answered a second.
        cpu_us: processor time of the API process, microseconds a request.
    """

    rate: float
    cpu_us: float


def run(quick: bool) -> Iterator[Result]:
    """The event loop's own work, then the whole process, each side by turns."""
    size = QUICK if quick else FULL
    yield _result("own work of the event loop, a request", "µs", [(b / a, a, b) for a, b in own_work(size.turns)])
    with (
        fresh_stack() as stack, tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name,
        _side(stack, Path(name), AS_IT_IS, size) as ours, _side(stack, Path(name), PLAIN, size) as plain,
    ):  # fmt: skip
        yield from _compare(stack, ours, plain, size)


class Side:
    """One of the two.

    Args:
        port: where it listens.
        process: its supervisor.
        folder: of its requests.
    """

    def __init__(self, port: int, process: psutil.Process, folder: Path) -> None:
        self._port, self._folder, self._processes = port, folder, [process, *process.children(recursive=True)]

    def play(self, requests: str, count: int) -> Played:
        """Send a file of requests."""
        before = self._cpu_s()
        report = send(self._port, CONNECTIONS, self._folder / requests)
        return Played(report.rate, (self._cpu_s() - before) / count * 1e6)

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)


@contextmanager
def _side(stack: Stack, folder: Path, how: str, size: Size) -> Iterator[Side]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.plain", str(stack.home), str(port), how], cwd=ROOT,
        env=environment({}), stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        if not wait_until(lambda: health("127.0.0.1", port)[0] == 200, START_SECONDS_MAX):
            raise OperationError(f"the API process {how} did not get ready in {START_SECONDS_MAX:.0f} s")
        (folder / how).mkdir()
        # Without ids and times: whenever they are sent, they are new.
        requests = make_requests(SINGLE_PATH, make_events(size.events, nameless=True), port, stack.api_key())
        write_requests(folder / how / "round", requests)
        write_requests(folder / how / "warm", requests[:WARM_UP])
        yield Side(port, psutil.Process(process.pid), folder / how)
    finally:
        stop_process(process)


def _compare(stack: Stack, ours: Side, plain: Side, size: Size) -> Iterator[Result]:
    sides = {AS_IT_IS: ours, PLAIN: plain}
    played: dict[str, list[Played]] = {how: [] for how in sides}
    with Database(stack) as database:
        sent = 0
        for side in sides.values():
            side.play("warm", WARM_UP)
            sent += WARM_UP
        for number in range(size.rounds):
            # Neither is always the first.
            for how in list(sides)[:: 1 if number % 2 else -1]:
                _await_stored(database, sent)
                played[how].append(sides[how].play("round", size.events))
                sent += size.events
            note(f"round {number + 1} of {size.rounds}: " + "; ".join(_words(how, played[how][-1]) for how in sides))
        _await_stored(database, sent)
    rounds = list(zip(played[AS_IT_IS], played[PLAIN], strict=True))
    cpu = [(b.cpu_us / a.cpu_us, a.cpu_us, b.cpu_us) for a, b in rounds]
    yield _result("processor time of the API, a request", "µs", cpu)
    yield _result("requests acknowledged", "events/s", [(a.rate / b.rate, a.rate, b.rate) for a, b in rounds])


def _result(case: str, unit: str, rounds: list[tuple[float, float, float]]) -> Result:
    """The medians of some rounds; the ratio is that of the rounds', since the machine is faster in some of them."""
    ratio, value, other = (float(f"{median(column):.4g}") for column in zip(*rounds, strict=True))
    return Result(BENCH, case, value, unit, BASELINE, other, ratio)


def _await_stored(database: Database, count: int) -> None:
    """The loader rests during each round of either side, or has as much to do."""
    if not wait_until(lambda: database.loaded() >= count, LOAD_SECONDS_MAX):
        raise OperationError(f"{count} events were acknowledged, {database.loaded()} are stored")


def _words(how: str, played: Played) -> str:
    return f"{how} {played.rate:,.0f} events/s, {played.cpu_us:.1f} µs"
