"""How much an organisation may send and ask in a window, counted over all processes.

In the usual case no request waits for Redis: a process is lent parts of a limit and counts them down (web/meter.py);
the next part is asked for in the background, for many organisations in one round trip. docs/reference/limits.md says
how exact that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from totalizer.clock import Clock
from totalizer.errors import StoreUnavailable
from totalizer.store.leases import LeaseStore
from totalizer.telemetry import logger
from totalizer.web.meter import Meter

#: Asks in one round trip.
ASKS_MAX: Final = 500
#: Longest wait for an answer; after it each process spends its own share.
ANSWER_TIMEOUT_S: Final = 0.5
#: Seconds between two looks at the clock, at what is idle, and for a server that is away.
TICK_S: Final = 1.0


class Limits(NamedTuple):
    """Limits of one window; 0: none.

    Attributes:
        requests: requests of single events.
        batches: requests of batches.
        reads: queries.
        bytes: of bodies, as they are sent.
    """

    requests: int = 0
    batches: int = 0
    reads: int = 0
    bytes: int = 0

    def changed(self, own: Sequence[int | None] | None) -> Limits:
        """These, but where an organisation has its own."""
        if own is None:
            return self
        return Limits(*(usual if value is None else value for usual, value in zip(self, own, strict=True)))


class Meters:
    """The four meters of one organisation in this process. Shared by all its keys and tokens."""

    __slots__ = ("__weakref__", "batches", "bytes", "reads", "requests")

    def __init__(self, limiter: Limiter, organization_id: str) -> None:
        self.requests, self.batches, self.reads, self.bytes = (
            Meter(limiter, organization_id, kind) for kind in Limits._fields
        )

    def set_limits(self, limits: Limits) -> None:
        """Count to these from now on."""
        for kind, limit in zip(Limits._fields, limits, strict=True):
            getattr(self, kind).set_limit(limit)


class Limiter:
    """The limits of all organisations in this process.

    Args:
        usual: limits of organisations that have none of their own.
        window_ms: length of a window; windows begin at multiples of it since 1970 UTC.
        leases: where leases come from; None: each process counts for itself alone.
        processes: how many share the limit on this machine, this one included.
        clock: tells the windows.

    Attributes:
        away: True while nobody can be asked.
    """

    def __init__(
        self, usual: Limits, *, window_ms: int, leases: LeaseStore | None, processes: int, clock: Clock
    ) -> None:
        self._usual, self._leases, self._clock = usual, leases, clock
        self.window_ms, self.window_s = window_ms, -(-window_ms // 1000)
        self.processes, self.away = processes, leases is None
        self._meters: WeakValueDictionary[str, Meters] = WeakValueDictionary()
        self._asking: dict[Meter, None] = {}
        #: Meters with something at hand: the only ones that a window's end must be told to.
        self._active: dict[Meter, None] = {}
        self._worker: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._number = self._current()

    def meters(self, organization_id: str, own: Sequence[int | None] | None) -> Meters:
        """The meters of an organisation, as long as anybody holds them.

        Args:
            organization_id: whose.
            own: its own limits in the order of `Limits`, None where it has the usual one.
        """
        meters = self._meters.get(organization_id)
        if meters is None:
            meters = self._meters[organization_id] = Meters(self, organization_id)
        meters.set_limits(self._usual.changed(own))
        return meters

    def start(self) -> None:
        """Begin to watch the clock, on the running event loop."""
        self._ticker = asyncio.get_running_loop().create_task(self._tick_on())

    async def stop(self) -> None:
        """Stop watching; what is asked for is not waited for."""
        for task in (self._ticker, self._worker):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    def look(self, meter: Meter) -> None:
        """Begin a window of a meter if its own is over; see to it that it is told of the next."""
        number = self._current()
        if number != self._number:
            self._turn_window(number)
        if meter.number != number:
            meter.begin(number)
        self._active[meter] = None

    def ask(self, meter: Meter) -> None:
        """Ask for a lease in the background."""
        self._asking[meter] = None
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())

    def reset_s(self) -> int:
        """Seconds until the window ends, at least 1."""
        return max(1, -(-((self._number + 1) * self.window_ms - self._now_ms()) // 1000))

    @property
    def reset_at_s(self) -> int:
        """When it ends, seconds since 1970 UTC."""
        return -(-(self._number + 1) * self.window_ms // 1000)

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    def _current(self) -> int:
        return self._now_ms() // self.window_ms

    async def _work(self) -> None:
        while self._asking:
            meters = list(islice(self._asking, ASKS_MAX))
            for meter in meters:
                del self._asking[meter]
            await self._lend(meters)

    async def _lend(self, meters: list[Meter]) -> None:
        assert self._leases is not None, "nobody is asked where nobody is there"
        asks = [meter.ask() for meter in meters]
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                leases = await self._leases.lend(asks)
        except (StoreUnavailable, TimeoutError) as error:
            self._went_away(error)
            for meter in meters:
                meter.wake()
            return
        for meter, ask, lease in zip(meters, asks, leases, strict=True):
            meter.lent(ask, lease)

    def _went_away(self, error: Exception) -> None:
        if not self.away:
            logger().warning("limits are counted by each process for itself", reason=str(error) or "no answer in time")
        self.away = True

    async def _tick_on(self) -> None:
        while True:
            left_ms = (self._number + 1) * self.window_ms - self._now_ms()
            await asyncio.sleep(max(0.001, min(TICK_S, left_ms / 1000)))
            await self._tick()

    async def _tick(self) -> None:
        number = self._current()
        if number != self._number:
            self._turn_window(number)
        for meter in [meter for meter in self._active if meter.rest()]:
            del self._active[meter]
        for meter in self._active:
            meter.describe()
        if self.away and self._leases is not None:
            await self._look_for(self._leases)

    def _turn_window(self, number: int) -> None:
        """Nothing of the old window is at hand any more; who was busy in it is lent some of the new one at once."""
        self._number = number
        busy, self._active = self._active, {}
        for meter in busy:
            ask = meter.spent_any and meter.limit and not self.away
            meter.begin(number)
            if ask:
                self.ask(meter)
                self._active[meter] = None

    async def _look_for(self, leases: LeaseStore) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await leases.ping()
        except (StoreUnavailable, TimeoutError):
            return
        self.away = False
        logger().info("limits are counted over all processes again")
        # What was spent meanwhile is told, so that it counts for the others.
        for meters in list(self._meters.values()):
            for kind in Limits._fields:
                meter: Meter = getattr(meters, kind)
                if meter.debt and meter.number == self._number:
                    self.ask(meter)
