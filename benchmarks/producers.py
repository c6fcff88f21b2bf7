"""Producers: threads that block, and appends in flight from one event loop, until a time is up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from statistics import quantiles
from typing import Any, NamedTuple

import uvloop

from benchmarks.bare_log import Log, OnCommit

#: Makes a log that tells `on_commit` of each group.
Opener = Callable[[OnCommit], Log]
#: Stack of a producer's thread, bytes: a thousand of them are to fit.
STACK_BYTES = 256 << 10


class Run(NamedTuple):
    """What producers saw in one round.

    Attributes:
        rate: appends acknowledged a second.
        latency_ms_p50, latency_ms_p99: from the call to the acknowledgement.
    """

    rate: float
    latency_ms_p50: float
    latency_ms_p99: float


def blocking_threads(opener: Opener, producers: int, payload: bytes, seconds: float) -> Run:
    """Threads that append and wait, each one record at a time.

    Raises:
        BaseException: the first that an append raised.
    """
    latencies: list[list[float]] = [[] for _ in range(producers)]
    failures: list[BaseException] = []
    go, stop = threading.Event(), threading.Event()

    def produce(append: Callable[[bytes], None], mine: list[float]) -> None:
        now, stopped = time.monotonic, stop.is_set
        go.wait()
        try:
            while not stopped():
                begun = now()
                append(payload)
                mine.append(now() - begun)
        except BaseException as error:  # noqa: BLE001 - raised by who waits for the threads
            failures.append(error)

    threads: list[threading.Thread] = []
    with closing(opener(lambda tokens, error: None)) as log:
        try:
            with _stack_of(STACK_BYTES):
                for mine in latencies:
                    thread = threading.Thread(target=produce, args=(log.append_and_wait, mine))
                    thread.start()
                    threads.append(thread)
            begun = time.monotonic()
            go.set()
            time.sleep(seconds)
        finally:
            stop.set()
            go.set()
            for thread in threads:
                thread.join()
        took = time.monotonic() - begun
    if failures:
        raise failures[0]
    return _run(latencies, took)


class Waiters:
    """Wakes the tasks of a group on their event loop, all in one go, as the API does."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake on this loop from now on."""
        self._loop = loop

    def on_commit(self, tokens: list[Any], error: Exception | None) -> None:
        """Called by the log's thread once a group, with the futures of its tasks."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_resolve, tokens, error)


def _resolve(futures: list[Any], error: Exception | None) -> None:
    for future in futures:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def in_flight(opener: Opener, producers: int, payload: bytes, seconds: float) -> Run:
    """Tasks of one event loop that append and await, as the API's requests do; each one record at a time."""
    waiters = Waiters()
    latencies: list[list[float]] = [[] for _ in range(producers)]

    async def produce(log: Log, mine: list[float], until: float) -> None:
        now, append, new_future = time.monotonic, log.append, asyncio.get_running_loop().create_future
        while (begun := now()) < until:
            durable = new_future()
            append(payload, durable)
            await durable
            mine.append(now() - begun)

    async def all_of_them(log: Log) -> float:
        waiters.attach(asyncio.get_running_loop())
        begun = time.monotonic()
        await asyncio.gather(*(produce(log, mine, begun + seconds) for mine in latencies))
        return time.monotonic() - begun

    with closing(opener(waiters.on_commit)) as log, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(all_of_them(log))
    return _run(latencies, took)


def _run(latencies: list[list[float]], took: float) -> Run:
    seen = [latency * 1000 for mine in latencies for latency in mine]
    cuts = quantiles(seen, n=100)
    return Run(len(seen) / took, cuts[49], cuts[98])


@contextmanager
def _stack_of(size: int) -> Iterator[None]:
    before = threading.stack_size(size)
    try:
        yield
    finally:
        threading.stack_size(before)
