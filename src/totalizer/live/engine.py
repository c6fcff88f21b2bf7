"""The live windows of this process: who asks for one has it read once and kept up to the present.

A window is what the database had at some offsets of the journals, and the records behind these. Nothing is asked of the
hot path: the journals are read beside the loader, and only while somebody asks. docs/adr/0017 tells why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from totalizer.catalog import Catalog
from totalizer.clock import Clock
from totalizer.errors import Refusal, Refused, StoreUnavailable
from totalizer.live import upkeep
from totalizer.live.ask import Ask, Asks
from totalizer.live.feed import Feed, Pane
from totalizer.live.follow import Failure, Follower
from totalizer.live.length import LENGTHS
from totalizer.live.ring import Ring
from totalizer.live.shape import Shape
from totalizer.live.stored import StoredWindows
from totalizer.live.view import Frame, Listener, Told
from totalizer.telemetry import logger

#: Pause between two looks at the journals, at how far they are loaded, at other machines, and while nobody asks.
TICK_S, SETTLE_PAUSE_S, HEAR_PAUSE_S, REST_S = 0.01, 0.15, 0.1, 0.1
#: How often windows nobody asks for are looked for, and those to be read anew.
SWEEP_S = 0.5
#: Part of the memory that events on their way to the database may take; beyond it live windows fall behind.
PENDING_SHARE = 0.25
#: Longest wait of a request for a window that is being read.
WAIT_S = 10.0
#: Reading a window takes at most this part of the time, and is done at most once in so many seconds.
READING_SHARE, REREAD_PAUSE_S = 0.05, 1.0
#: Attempts to read a window while the loader discards what was to be read beside it.
RACES_MAX = 5
#: Cells put into a window before others have their turn.
CELLS_AT_ONCE = 2000


class Limits(NamedTuple):
    """What live windows may cost.

    Attributes:
        memory_bytes: of all windows and events on their way.
        groups_max: groups of one window.
        flush_interval_s: how often windows in use are read anew.
        retry_attempts, retry_delay_s: further tries of that, and the pause before each.
        frame_s: shortest time between two frames of one view.
    """

    memory_bytes: int
    groups_max: int
    flush_interval_s: float
    retry_attempts: int
    retry_delay_s: float
    frame_s: float


class LiveWindows:
    """The live windows of this process. Used on one event loop.

    Args:
        catalog: what they are of.
        asks: reads questions.
        stored: reads windows from the database.
        follower: reads the journals.
        clock: for the present.
        limits: what they may cost.
    """

    def __init__(
        self, catalog: Catalog, asks: Asks, stored: StoredWindows, follower: Follower, clock: Clock, limits: Limits
    ) -> None:
        self.asks, self._stored, self._follower, self._clock, self._limits = asks, stored, follower, clock, limits
        self._shapes = {
            rollup.name: Shape(rollup, catalog.event_types[rollup.event_type]) for rollup in catalog.rollups.values()
        }
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lost = 0

    def start(self) -> None:
        """Begin to work, on the running loop. Nothing is done while nobody asks."""
        for pause_s, step in (
            (TICK_S, self._follow), (SETTLE_PAUSE_S, self._follower.settle), (SWEEP_S, self._sweep),
            (HEAR_PAUSE_S, self._follower.hear),
        ):  # fmt: skip
            self._spawn(self._forever(pause_s, step))

    async def stop(self) -> None:
        """End, and let go of everything."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._follower.feeds.clear()
        self._follower.rest()

    async def answer(self, organization_id: str, ask: Ask) -> dict[str, Any]:
        """The present rows of a window.

        Raises:
            Refused: it cannot be read at present.
        """
        feed, pane = await self._pane(organization_id, ask)
        self._follower.read()
        pane.advance(self._now_s())
        assert pane.ring is not None
        known = ask in pane.views
        answer = pane.view(ask).answer(pane.ring, self._told(feed, pane))
        if not known:
            del pane.views[ask]
        return {**answer, "failed": feed.failed, "query": self.echo(ask)}

    async def watch(self, organization_id: str, ask: Ask, listener: Listener, cursor: str | None = None) -> list[Frame]:
        """Tell a listener of changes from now on; returns the frames that bring it up to the present.

        Args:
            organization_id: whose window.
            ask: the question.
            listener: told until `unwatch`, or until it is told that the window is gone.
            cursor: of the last frame it has, if it comes back.

        Raises:
            Refused: the window cannot be read at present.
        """
        feed, pane = await self._pane(organization_id, ask)
        self._follower.read()
        pane.advance(self._now_s())
        assert pane.ring is not None
        view = pane.view(ask)
        frames = view.since(cursor, pane.ring, self._told(feed, pane))
        view.listeners.add(listener)
        return frames

    def unwatch(self, organization_id: str, ask: Ask, listener: Listener) -> None:
        """Tell it no more."""
        feed = self._follower.feeds.get(organization_id)
        pane = feed.panes.get((ask.rollup, ask.window)) if feed is not None else None
        view = pane.views.get(ask) if pane is not None else None
        if pane is not None and view is not None:
            view.listeners.discard(listener)
            pane.asked_at = view.left_at = self._clock.monotonic()

    @property
    def failures(self) -> Sequence[Failure]:
        """The latest events that were not understood."""
        return self._follower.failures

    def memory_bytes(self) -> int:
        """What windows and events on their way take, roughly."""
        return upkeep.memory_bytes(self._follower.feeds)

    def echo(self, ask: Ask) -> dict[str, Any]:
        """A question as it was understood."""
        return {
            "event_type": self._shapes[ask.rollup].event_type.name,
            "rollup": ask.rollup,
            "window": ask.window,
            "slot_seconds": LENGTHS[ask.window].slot_s,
            "group_by": list(ask.group_by),
            "filters": {name: sorted(map(str, values)) for name, values in ask.filters},
            "measures": list(ask.measures),
        }

    async def _pane(self, organization_id: str, ask: Ask) -> tuple[Feed, Pane]:
        """A window that has been read."""
        try:
            feed = await self._follower.feed(organization_id)
        except StoreUnavailable as error:
            raise _unavailable(str(error)) from None
        key = ask.rollup, ask.window
        pane = feed.panes.setdefault(key, Pane(self._shapes[ask.rollup], LENGTHS[ask.window]))
        pane.asked_at = self._clock.monotonic()
        if pane.ring is None:
            await self._wait_for(feed, pane)
        if feed.panes.get(key) is not pane:
            detail = f"live windows have no room (MAX_MEMORY_MB={self._limits.memory_bytes >> 20}); ask the totals"
            raise Refused(Refusal.LIVE_UNAVAILABLE, detail, retry_after_s=5)
        return feed, pane

    async def _wait_for(self, feed: Feed, pane: Pane) -> None:
        if pane.reading is None:
            pane.reading = self._spawn(self._read(feed, pane))
        try:
            await asyncio.wait_for(asyncio.shield(pane.reading), WAIT_S)
        except TimeoutError:
            raise _unavailable(f"it is not read within {WAIT_S:.0f} s") from None
        if pane.ring is None:
            raise _unavailable("it cannot be read from the database")

    async def _read(self, feed: Feed, pane: Pane) -> None:
        """Read a window; one that was read before stays as it is if that fails."""
        feed.holding += 1
        began = self._clock.monotonic()
        try:
            for attempt in range(1 + self._limits.retry_attempts):
                if attempt:
                    await asyncio.sleep(self._limits.retry_delay_s)
                try:
                    if await self._read_once(feed, pane):
                        break
                except StoreUnavailable as error:
                    logger().warning("a live window cannot be read", reason=str(error), attempt=attempt + 1)
        finally:
            pane.reading, pane.read_at = None, self._clock.monotonic()
            pane.cost_s = pane.read_at - began
            feed.holding -= 1
            feed.let_go()
        upkeep.make_room(self._follower.feeds, self._limits.memory_bytes)

    async def _read_once(self, feed: Feed, pane: Pane) -> bool:
        """Read it with the records behind it; False if the loader was faster again and again."""
        await self._follower.cover(feed)
        for _ in range(RACES_MAX):
            self._follower.look()
            now_s = self._now_s()
            stored = await self._stored.read(feed.organization_id, pane.shape, pane.length, now_s)
            ring = Ring(pane.shape, pane.length, self._limits.groups_max, now_s)
            for start in range(0, len(stored.cells), CELLS_AT_ONCE):
                ring.store(stored.cells[start : start + CELLS_AT_ONCE])
                await asyncio.sleep(0)
            if await self._follower.catch_up(feed, stored.offsets):
                feed.install(pane, ring, stored.offsets)
                return True
            await asyncio.sleep(TICK_S)
        return False

    async def _forever(self, pause_s: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(pause_s if self._follower.feeds else REST_S)
            try:
                if self._follower.feeds:
                    await step()
            except StoreUnavailable as error:
                logger().warning("live windows wait for the database", reason=str(error))
                await asyncio.sleep(REREAD_PAUSE_S)
            except Exception:  # noqa: BLE001 - told, and the windows go on: they are put right when read anew
                logger().error("live windows: a step failed", exc_info=True)
                await asyncio.sleep(REREAD_PAUSE_S)

    async def _follow(self) -> None:
        """Count what becomes durable, and tell."""
        self._follower.read()
        now_s, now = self._now_s(), self._clock.monotonic()
        for feed in list(self._follower.feeds.values()):
            for pane in feed.panes.values():
                if pane.views:
                    pane.advance(now_s)
                    self._tell(feed, pane, now)

    def _tell(self, feed: Feed, pane: Pane, now: float) -> None:
        if pane.ring is None:
            return
        told = self._told(feed, pane)
        for view in pane.views.values():
            if now - view.framed_at >= self._limits.frame_s and view.frame(pane.ring, told) is not None:
                view.framed_at = now

    def _told(self, feed: Feed, pane: Pane) -> Told:
        return feed.told(self._clock.now_ns(), complete=self._follower.complete(feed, pane))

    async def _sweep(self) -> None:
        """Read anew what is due, forget what nobody asks for."""
        now, feeds = self._clock.monotonic(), self._follower.feeds
        lost, self._lost = self._lost != self._follower.lost, self._follower.lost
        for feed in list(feeds.values()):
            upkeep.forget_idle(feed, now)
            for pane in feed.panes.values():
                if pane.ring is not None and pane.reading is None and (lost or self._is_due(feed, pane, now)):
                    pane.reading = self._spawn(self._read(feed, pane))
            if not feed.panes:
                del feeds[feed.organization_id]
        if not feeds:
            self._follower.rest()
        upkeep.make_room(feeds, self._limits.memory_bytes)

    def _is_due(self, feed: Feed, pane: Pane, now: float) -> bool:
        pause = REREAD_PAUSE_S if self._follower.overtaken(feed, pane) else self._limits.flush_interval_s
        return now - pane.read_at >= max(pause, pane.cost_s / READING_SHARE)

    def _now_s(self) -> int:
        return self._clock.now_ns() // 1_000_000_000

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger().error("live windows: a task failed", exc_info=error)


def _unavailable(reason: str) -> Refused:
    return Refused(Refusal.LIVE_UNAVAILABLE, f"the live window cannot be shown at present: {reason}", retry_after_s=5)
