"""The event loop's own work for a single event: the front of an API process, without server, network and disk."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from benchmarks.plain import PlainFront, nothing
from benchmarks.workload import BATCH_EVENTS, SINGLE_PATH, make_events
from totalizer.catalog import load_catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.metrics import MEASURES
from totalizer.telemetry import configure_logging
from totalizer.web.body import BodyReader
from totalizer.web.front import Front
from totalizer.web.idempotency import Repeats
from totalizer.web.ingest import Ingest
from totalizer.web.limits import Limiter, Limits
from totalizer.web.permissions import ACTIONS
from totalizer.web.principal import Principal
from totalizer.web.receipts import Receipts

#: Requests on their way at a time, and of one turn of a side: short, so that the machine is the same for both.
LANES, REQUESTS = 64, 1280
ORGANIZATION = "6f1c6c3e-0d8e-4e49-9f1e-000000000001"


class Turn(NamedTuple):
    """One turn of each side: processor time of the event loop, microseconds a request."""

    ours: float
    plain: float


def own_work(turns: int) -> Iterator[Turn]:
    """Some turns, after one that does not count."""
    # As a service that nobody has set otherwise: no line for each request.
    configure_logging("info", "api", form="json")
    events = make_events(REQUESTS)
    with _measured(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        fronts = [_front(), _front()]
        fronts[1].__class__ = PlainFront
        fronts[1]._ingest.on_answered = nothing
        gc.collect()
        gc.freeze()
        for number in range(turns + 1):
            found = {}
            # Neither is always the first.
            for side in (0, 1) if number % 2 else (1, 0):
                found[side] = runner.run(_play(fronts[side], events))
            if number:
                yield Turn(found[0], found[1])


@contextmanager
def _measured() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name:
        MEASURES.open(Path(name), "api")
        try:
            yield
        finally:
            MEASURES.close()
            gc.unfreeze()


class _Scope(NamedTuple):
    """A request, as far as the front looks at it."""

    headers: dict[str, str]
    path: str = SINGLE_PATH
    method: str = "POST"
    proto: str = "http"
    query_string: str = ""


class _Proto:
    """The server's side of a request."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self) -> bytes:
        return self._body

    def response_bytes(self, status: int, _headers: object, body: bytes) -> None:
        assert status == 202, body


class _Known:
    """Knows everybody."""

    def __init__(self) -> None:
        limiter = Limiter(Limits(), window_ms=60_000, leases=None, processes=1, clock=SYSTEM_CLOCK)
        self._principal = Principal(
            ORGANIZATION, frozenset(ACTIONS), limiter.meters(ORGANIZATION, None), "this API key"
        )

    def remembered(self, _authorization: str | None, _action: str) -> Principal:
        return self._principal


class _Journal:
    """Takes everything, and says so in the loop's next turn."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []

    def append(self, _payload: bytes, token: Any) -> None:
        self._waiting.append(token)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for number, token in enumerate(waiting):
            token.set_result(number)


def _front() -> Front:
    known: Any = _Known()
    ingest = Ingest(
        known, Collector(load_catalog([]), SYSTEM_CLOCK, batch_events_max=BATCH_EVENTS), _Journal(),
        bodies=BodyReader(bytes_max=1 << 24, timeout_s=30.0),
        receipts=Receipts(b"key", ORGANIZATION, SYSTEM_CLOCK, days=1), repeats=Repeats(SYSTEM_CLOCK, None),
    )  # fmt: skip
    behind: Any = None
    return Front(ingest, behind, behind, _rest, _rest)


async def _rest() -> None:
    """Nothing is started and nothing stopped."""


async def _play(front: Front, events: list[bytes]) -> float:
    loop = asyncio.get_running_loop()

    async def lane(bodies: list[bytes]) -> None:
        for body in bodies:
            headers = {"authorization": "Bearer key", "content-type": "application/json"}
            scope = _Scope({**headers, "content-length": str(len(body))})
            answered: Any = front.__rsgi__(scope, _Proto(body))
            await loop.create_task(answered)

    began = time.thread_time()
    await asyncio.gather(*(lane(events[place::LANES]) for place in range(LANES)))
    return (time.thread_time() - began) / len(events) * 1e6
