"""This machine's records for the live windows of other machines: those of organisations that are asked for there.

One process of a machine does it, for all journals of the machine. Nothing is read and nothing sent while nobody
elsewhere asks. docs/adr/0023 tells why it is records.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from totalizer.background import Background
from totalizer.clock import Clock
from totalizer.errors import StoreUnavailable
from totalizer.journal import BEGINNING, Position, Record
from totalizer.journal.folder import FolderLock
from totalizer.live.follow import by_organization
from totalizer.live.relay import Changes, Covered, Entry, LiveRelay, Notice, place
from totalizer.live.stored import Offset, StoredWindows
from totalizer.live.tail import Tail, Tails
from totalizer.telemetry import logger

#: Pauses: while somebody elsewhere asks, while nobody does, while another process does it or Redis is away; seconds.
TELL_S, LOOK_S, REST_S = 0.1, 0.25, 1.0
#: How often this machine says that it is there, and finds how far its journals are loaded; seconds.
ATTEND_S = 1.0
#: Parts of a journal that are read in one go; each is an entry for each organisation.
READS_MAX = 16
#: Bytes of packed records that wait in Redis, of one journal; beyond it no more are told.
BYTES_MAX = 64 << 20
#: Bytes of records told at once to who asks anew: what was not loaded by then.
BEHIND_BYTES_MAX = 64 << 20
#: Seconds that records are kept beyond their being loaded: readers may be somewhat behind.
KEPT_S = 10.0


class _Told:
    """What is told of one journal.

    Attributes:
        since: by organisation, from where on; who asks anew begins there.
        last: by organisation, the place behind its last record that is told.
        bytes: of the entries that wait in Redis.
    """

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.since: dict[str, Position] = {}
        self.last: dict[str, Position] = {}
        self.bytes = 0
        self.notice: Notice | None = None
        self.noticed_at = float("-inf")
        #: Of whom more is not loaded than may be told at once, and how far it was loaded then.
        self.too_much: dict[str, Position] = {}
        self._entries: deque[tuple[Position, int]] = deque()

    def begin(self, organization_id: str, position: Position) -> None:
        """Tell an organisation's records behind a place from now on."""
        self.since[organization_id] = self.last[organization_id] = position

    def end(self, organization_id: str) -> None:
        """Tell it no more."""
        del self.since[organization_id], self.last[organization_id]

    def add(self, organization_id: str, position: Position, size: int) -> None:
        """An entry is told."""
        self.last[organization_id] = position
        self.bytes += size
        self._entries.append((position, size))

    def trim(self, position: Position) -> bool:
        """Entries that end before a place are forgotten; True if there are some."""
        before = self.bytes
        while self._entries and self._entries[0][0] < position:
            self.bytes -= self._entries.popleft()[1]
        return self.bytes < before


class Publisher:
    """Tells other machines. Used on one event loop.

    Args:
        relay: the way to them.
        tails: the journals of this machine; its own readers.
        stored: the database.
        folder: where the process that does it holds a lock; made if missing.
        clock: for durations.
    """

    def __init__(self, relay: LiveRelay, tails: Tails, stored: StoredWindows, folder: Path, clock: Clock) -> None:
        self._relay, self._tails, self._stored, self._clock = relay, tails, stored, clock
        self._folder, self._lock = folder, FolderLock(folder)
        self._holds = False
        self._told: dict[str, _Told] = {}
        self._attended_at = float("-inf")
        #: True while Redis may have something that was told before.
        self._stale = True
        self._loaded: deque[tuple[float, dict[str, Offset]]] = deque()
        self._background = Background(self._run)

    def start(self) -> None:
        """Begin, on the running loop."""
        self._background.start()

    async def stop(self) -> None:
        """End; another process of this machine takes over."""
        await self._background.stop()
        self._forget()
        self._lock.release()
        self._holds = False

    async def _run(self) -> None:
        well = True
        while True:
            pause_s = REST_S
            try:
                if self._holds or self._take_turn():
                    pause_s = await self.step()
                well = True
            except (StoreUnavailable, OSError) as error:
                # What was told of it, and what not, is not known: it begins anew.
                self._forget()
                if well:
                    logger().warning("other machines are not told of live records", reason=str(error))
                well = False
            except Exception:  # noqa: BLE001 - told, and begun anew
                self._forget()
                logger().error("other machines are not told of live records", exc_info=True)
            await asyncio.sleep(pause_s)

    def _take_turn(self) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._holds = self._lock.acquire("sharing")
        return self._holds

    async def step(self) -> float:
        """Tell what is new; returns how many seconds to wait until the next.

        Raises:
            StoreUnavailable: Redis or the database is away.
        """
        now, own = self._clock.monotonic(), self._tails.by_id
        attends = now - self._attended_at >= ATTEND_S
        if attends:
            self._attended_at = now
            self._tails.look(self._loaded[-1][1] if self._loaded else {})
        asked, _ = await self._relay.attend(journals=list(own) if attends else ())
        wanted = {name.split(" ")[0] for name in asked if name.split(" ")[1] not in own}
        if self._stale or (self._told and not wanted):
            await self._take_back()
        if not wanted:
            return LOOK_S
        await self._find_loaded(now)
        for tail in self._tails:
            await self._tell(tail, wanted)
        return TELL_S

    async def _take_back(self) -> None:
        """Nobody must rely on what was told before: by this process, or by one before it."""
        self._forget()
        for journal_id, notice in (await self._relay.notices(list(self._tails.by_id))).items():
            pipeline = self._relay.pipeline()
            changes = Changes(journal_id, pipeline)
            for organization_id in notice.covered:
                changes.begin(organization_id)
            changes.notice(None)
            await self._relay.carry_out(pipeline)
        self._stale = False

    async def _find_loaded(self, now: float) -> None:
        """How far journals are loaded, every so often."""
        if self._loaded and now - self._loaded[-1][0] < ATTEND_S:
            return
        offsets = await self._stored.offsets()
        if not self._loaded:
            for tail in self._tails:
                tail.begin(offsets.get(tail.id))
        self._loaded.append((now, offsets))
        while len(self._loaded) > 1 and now - self._loaded[1][0] >= KEPT_S:
            self._loaded.popleft()

    async def _tell(self, tail: Tail, wanted: set[str]) -> None:
        """Tell what is new of a journal."""
        told = self._told.setdefault(tail.id, _Told(tail))
        pipeline = self._relay.pipeline()
        changes = Changes(tail.id, pipeline)
        for organization_id in told.since.keys() - wanted:
            changes.begin(organization_id)
            told.end(organization_id)
        self._trim(told, changes)
        for organization_id in wanted - told.since.keys():
            await self._begin(told, changes, organization_id)
        behind = await self._go_on(told, changes)
        covered = {each: Covered(place(told.since[each]), place(told.last[each])) for each in told.since}
        notice = Notice(place(tail.position), behind, covered)
        now = self._clock.monotonic()
        # Also if nothing has changed: a server that forgot everything must know again.
        if notice != told.notice or now - told.noticed_at >= ATTEND_S:
            changes.notice(notice)
            await self._relay.carry_out(pipeline)
            told.notice, told.noticed_at = notice, now

    async def _begin(self, told: _Told, changes: Changes, organization_id: str) -> None:
        """Tell an organisation's records from where the journal is loaded up to the present place."""
        offset = self._loaded[-1][1].get(told.tail.id, Offset(BEGINNING, 0))
        if told.too_much.get(organization_id) == offset.position:
            return
        records: list[Record] | None = []
        if offset.position < told.tail.position:
            try:
                records = await told.tail.between(offset, told.tail.position, BEHIND_BYTES_MAX)
            except StoreUnavailable:
                told.too_much[organization_id] = offset.position
                return
        if records is None:
            return  # The loader was faster: the next offset is behind them.
        changes.begin(organization_id)
        told.begin(organization_id, min(offset.position, told.tail.position))
        if own := by_organization(records).get(organization_id):
            self._add(told, changes, organization_id, own)

    async def _go_on(self, told: _Told, changes: Changes) -> bool:
        """Tell what has become durable since; True if that is not all there is."""
        for _ in range(READS_MAX if told.since else 0):
            if told.bytes >= BYTES_MAX:
                return True
            records = told.tail.read()
            if told.tail.lost:
                # They were loaded and removed before they were read: it begins anew behind them.
                told.tail.lost = False
                for organization_id in told.since:
                    changes.begin(organization_id)
                    told.begin(organization_id, told.tail.position)
                continue
            if not records:
                return False
            for organization_id, own in by_organization(records).items():
                if organization_id in told.since:
                    self._add(told, changes, organization_id, own)
            await asyncio.sleep(0)
        return bool(told.since)

    def _add(self, told: _Told, changes: Changes, organization_id: str, records: list[Record]) -> None:
        size = changes.add(organization_id, Entry(told.last[organization_id], records))
        told.add(organization_id, records[-1].position_after, size)

    def _trim(self, told: _Told, changes: Changes) -> None:
        """Forget what was loaded a while ago."""
        offset = self._loaded[0][1].get(told.tail.id)
        if offset is None or not told.trim(offset.position):
            return
        for organization_id, since in told.since.items():
            if since < offset.position:
                changes.trim(organization_id, offset.position)
                told.since[organization_id] = offset.position

    def _forget(self) -> None:
        """Begin anew when somebody asks again."""
        self._told.clear()
        self._loaded.clear()
        self._stale = True
