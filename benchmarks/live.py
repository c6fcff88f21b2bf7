"""Live windows: how soon a frame holds what was sent, at some rates and numbers of readers; what that costs the way in.

Each batch carries its number as the largest `execution_time_ms` so far, and what is subscribed to is that maximum: so a
frame tells which batches are in it. All is sent and read by this process, on the clock that both ends share.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect as sync_connect

from benchmarks.database import Database
from benchmarks.progress import note
from benchmarks.result import Result, less_is_better, more_is_better
from benchmarks.sending import send_and_store
from benchmarks.stack import Stack, fresh_stack
from benchmarks.workload import BATCH_EVENTS, BATCH_PATH, batch_bodies, make_events, make_requests, write_requests
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError

BENCH = "live"
BASELINE = "the answer to the same request"
#: Seconds between two batches, and connections they are sent over by turns.
BATCH_PAUSE_S, CONNECTIONS = 0.01, 8
RATES, SUBSCRIBERS = (1000, 10_000), (1, 200)
#: Seconds between two cases, in which the loader catches up.
REST_S = 3.0
#: Batches that do not count, since what is asked for the first time is read from the database.
WARM_UP = 50
_SUBSCRIPTION = msgspec.json.encode(
    {"type": "subscribe", "id": "b", "window": "5m", "measures": ["execution_time_ms_max"]}
).decode()
_largest = re.compile(r'"execution_time_ms_max":(\d+)').search
_now = SYSTEM_CLOCK.monotonic


class Size(NamedTuple):
    """How much is measured: seconds of each case, events of a round of the way in, and rounds."""

    seconds: float
    events: int
    rounds: int


FULL, QUICK = Size(15.0, 100_000, 3), Size(4.0, 40_000, 2)


class Played(NamedTuple):
    """Milliseconds from the first byte sent, for each batch and, of frames, each reader."""

    frames: list[float]
    answers: list[float]


class Reader:
    """One subscriber.

    Args:
        sent: when each batch was sent, by its number.
        first: number of the first batch that counts.
    """

    def __init__(self, sent: dict[int, float], first: int) -> None:
        self._sent, self._next = sent, first
        self.latencies_ms: list[float] = []

    async def run(self, socket: ClientConnection, ready: asyncio.Event) -> None:
        """Read until cancelled."""
        await socket.send(_SUBSCRIPTION)
        while True:
            text = await socket.recv()
            now = _now()
            assert isinstance(text, str)
            if '"type":"snapshot"' in text:
                ready.set()
            found = _largest(text)
            while found is not None and self._next <= int(found[1]):
                # A batch may wait for its connection while the next one is sent over another.
                if self._next in self._sent:
                    self.latencies_ms.append((now - self._sent[self._next]) * 1000)
                self._next += 1


def run(quick: bool) -> Iterator[Result]:
    """Every case, each as soon as it is known."""
    size = QUICK if quick else FULL
    with fresh_stack() as stack, Database(stack) as database, tempfile.TemporaryDirectory() as name:
        begun = 0  # the numbers go on, since what was the largest stays in the window
        for rate in RATES:
            for subscribers in SUBSCRIBERS:
                batches = int(size.seconds / BATCH_PAUSE_S)
                yield from _latencies(stack, rate, subscribers, range(begun + 1, begun + batches + 1))
                begun += batches
                SYSTEM_CLOCK.sleep(REST_S)
        yield from _ingest(stack, database, Path(name), size)


def _latencies(stack: Stack, rate: int, subscribers: int, numbers: range) -> Iterator[Result]:
    played = asyncio.run(_play(stack, rate, subscribers, numbers))
    case = f"{rate} events/s, {subscribers} {'subscriber' if subscribers == 1 else 'subscribers'}"
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        ours, theirs = (_quantile(values, part) for values in played)
        note(f"{case}: {name} {ours:.0f} ms to the frame, {theirs:.0f} ms to the answer")
        yield less_is_better(BENCH, f"{case}: sent to frame, {name}", "ms", [ours], BASELINE, [theirs])


def _ingest(stack: Stack, database: Database, folder: Path, size: Size) -> Iterator[Result]:
    """The way in, with somebody watching and with nobody."""
    path = folder / "batches"
    bodies = batch_bodies(make_events(size.events))
    write_requests(path, make_requests(BATCH_PATH, bodies, stack.port, stack.api_key()))
    watched, alone = [], []
    for number in range(size.rounds):
        for rates, subscribers in ((alone, 0), (watched, 1)):
            database.reset()
            with _watching(stack, subscribers):
                report, _ = send_and_store(stack.port, 4, path, database, size.events)
            rates.append(report.rate * BATCH_EVENTS)
        note(f"way in, round {number + 1}: {watched[-1]:,.0f} events/s watched, {alone[-1]:,.0f} alone")
    case = f"batches of {BATCH_EVENTS}, one subscriber: acknowledged"
    yield more_is_better(BENCH, case, "events/s", watched, "the same with nobody watching", alone)


@contextmanager
def _watching(stack: Stack, subscribers: int) -> Iterator[None]:
    """Subscribers on a thread of their own."""
    headers = {"authorization": f"Bearer {stack.api_key()}"}
    with ExitStack() as sockets:
        for _ in range(subscribers):
            socket = sockets.enter_context(
                sync_connect(f"ws://127.0.0.1:{stack.port}/api/metrics/live", additional_headers=headers)
            )
            socket.send(_SUBSCRIPTION)
            threading.Thread(target=_drain, args=(socket,), daemon=True).start()
        yield


def _drain(socket: SyncConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            socket.recv()


async def _play(stack: Stack, rate: int, subscribers: int, numbers: range) -> Played:
    sent: dict[int, float] = {}
    headers = {"authorization": f"Bearer {stack.api_key()}"}
    address = f"ws://127.0.0.1:{stack.port}/api/metrics/live"
    sockets = await asyncio.gather(*(connect(address, additional_headers=headers) for _ in range(subscribers)))
    readers = [Reader(sent, numbers[WARM_UP]) for _ in sockets]
    readies = [asyncio.Event() for _ in sockets]
    tasks = [
        asyncio.ensure_future(reader.run(socket, ready))
        for reader, socket, ready in zip(readers, sockets, readies, strict=True)
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*(ready.wait() for ready in readies)), 60)
        answers = await _send(stack, sent, int(rate * BATCH_PAUSE_S), numbers)
        await asyncio.sleep(1.0)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(socket.close() for socket in sockets))
    if failed := [error for error in ended if isinstance(error, Exception)]:
        raise OperationError(f"{len(failed)} of {subscribers} subscribers were cut off: {failed[0]}")
    return Played([latency for reader in readers for latency in reader.latencies_ms], answers)


async def _send(stack: Stack, sent: dict[int, float], events: int, numbers: range) -> list[float]:
    """Send the batches in their time; returns how long each answer took, milliseconds."""
    connections = [await asyncio.open_connection("127.0.0.1", stack.port) for _ in range(CONNECTIONS)]
    locks = [asyncio.Lock() for _ in connections]
    answers: list[float] = []

    async def one(number: int) -> None:
        at = number % CONNECTIONS
        reader, writer = connections[at]
        body = msgspec.json.encode(
            {"command_executions": [{**event, "execution_time_ms": number} for event in template]}
        )
        async with locks[at]:
            sent[number] = began = _now()
            writer.write(_head(stack, len(body)) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            if length is None or b" 202 " not in head[:16]:
                raise OperationError(f"a request was answered {head.decode()}")
            await reader.readexactly(int(length[1]))
        if number >= numbers[WARM_UP]:
            answers.append((_now() - began) * 1000)

    template = [{"user_id": _USER, "command_name": f"c{n % 20}", "status": "success"} for n in range(events)]
    began, tasks = _now(), []
    for place, number in enumerate(numbers):
        await asyncio.sleep(max(0.0, began + place * BATCH_PAUSE_S - _now()))
        tasks.append(asyncio.ensure_future(one(number)))
    await asyncio.gather(*tasks)
    for _, writer in connections:
        writer.close()
    return answers


_USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"


def _head(stack: Stack, length: int) -> bytes:
    return (
        f"POST {BATCH_PATH} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {stack.api_key()}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def _quantile(values: list[float], part: float) -> float:
    if not values:
        raise OperationError("no frame came")
    return sorted(values)[int(len(values) * part)]
