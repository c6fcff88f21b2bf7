"""The journals of other machines, as these tell them through Redis: counted like those that are here.

What is told of an organisation begins where its journal was loaded at that time, and each part names the one before. So
who reads knows from where on it has all records, and the database has what is before that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from totalizer.clock import Clock
from totalizer.errors import StoreUnavailable
from totalizer.journal import BEGINNING, Position
from totalizer.live.feed import Feed, Pane
from totalizer.live.relay import ENTRIES_MAX, Entry, LiveRelay, Notice, Wanted, position_of
from totalizer.live.stored import Offset
from totalizer.telemetry import logger

#: How often is said what is asked for here, and looked who is there; seconds.
ATTEND_S = 1.0
#: A machine that was not heard of for so long may know of events that are not counted; until so long that is said.
SILENT_S, GONE_S = 3.0, 60.0
#: How long the loader of another machine may be ahead of what that tells; seconds.
AHEAD_S = 2.0
#: Longest wait for the records of an organisation that was not asked for before, and the pause between two looks.
COVER_S, COVER_PAUSE_S = 1.0, 0.05
#: Pause after Redis was away; seconds.
AWAY_S = 1.0


class _Loaded(NamedTuple):
    """How far a journal was loaded at some time, monotonic seconds."""

    at: float
    position: Position


class Elsewhere:
    """The journals of other machines. Used on one event loop.

    Args:
        relay: the way to them; None if there is none.
        asker: names this process to them: the id of a journal of its machine.
        clock: for durations.
    """

    def __init__(self, relay: LiveRelay | None, asker: str, clock: Clock) -> None:
        self._relay, self._asker, self._clock = relay, asker, clock
        self._busy = asyncio.Lock()
        self._attended_at = self._tried_at = float("-inf")
        self._asked: set[str] = set()
        self._away = self._behind = False
        # Journal → when its machine was last heard of.
        self._heard_at: dict[str, float] = {}
        self._notices: dict[str, Notice] = {}
        # (organisation, journal) → behind the last record that was counted.
        self._at: dict[tuple[str, str], Position] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._ahead: set[str] = set()

    def rest(self) -> None:
        """Nobody asks any more."""
        self._attended_at = float("-inf")
        self._asked.clear()
        self._notices.clear()
        self._at.clear()
        self._loaded.clear()
        self._ahead.clear()

    async def exchange(self, feeds: dict[str, Feed], own: Collection[str], room: int) -> None:
        """Say what is asked for here, and count what other machines tell.

        Args:
            feeds: organisations followed, by their ids.
            own: ids of the journals of this machine.
            room: bytes of records that may be added.
        """
        now = self._clock.monotonic()
        if self._relay is None or (self._away and now - self._tried_at < AWAY_S):
            return
        self._tried_at = now
        async with self._busy:
            try:
                await self._attend(self._relay, feeds, own, now)
                await self._read(self._relay, feeds, room)
            except StoreUnavailable as error:
                if not self._away:
                    logger().warning("live windows do not hear of other machines", reason=str(error))
                self._away = True
            else:
                self._away = False

    async def cover(self, feed: Feed, feeds: dict[str, Feed], own: Collection[str], room: int) -> None:
        """Wait until the other machines tell the records of an organisation, but not for long."""
        deadline = self._clock.monotonic() + COVER_S
        while True:
            await self.exchange(feeds, own, room)
            if self._away or self.covers(feed) or self._clock.monotonic() > deadline:
                return
            await asyncio.sleep(COVER_PAUSE_S)

    def covers(self, feed: Feed) -> bool:
        """True if each machine that is there tells the records of an organisation."""
        known = self._relay is None or feed.organization_id in self._asked
        return known and all(journal_id in feed.since for journal_id in self._living())

    def known(self, journal_id: str) -> bool:
        """True if its machine is there."""
        return journal_id in self._living()

    def note_loaded(self, offsets: dict[str, Offset]) -> None:
        """How far journals are loaded: what is loaded long before it is told is not counted here."""
        now = self._clock.monotonic()
        for journal_id, notice in self._notices.items():
            before = self._loaded.get(journal_id)
            if before is not None and now - before.at < AHEAD_S:
                continue
            if before is not None and before.position > position_of(notice.to):
                self._ahead.add(journal_id)
            else:
                self._ahead.discard(journal_id)
            self._loaded[journal_id] = _Loaded(now, offsets.get(journal_id, Offset(BEGINNING, 0)).position)

    def counted(self, feed: Feed, pane: Pane, journal_id: str) -> bool:
        """True if a window has all records of a journal, those that it was not read with included."""
        since = feed.since.get(journal_id)
        offset = pane.offsets.get(journal_id, Offset(BEGINNING, 0))
        return since is not None and journal_id not in self._ahead and offset.position >= since

    def complete(self, feed: Feed, pane: Pane) -> bool:
        """True if a window has all that was acknowledged anywhere, as far as that can be known here."""
        if self._behind or (self._away and self._heard_at):
            return False
        for journal_id, heard_at in self._heard_at.items():
            silent_s = self._clock.monotonic() - heard_at
            notice = self._notices.get(journal_id)
            if silent_s <= SILENT_S:
                if notice is None or notice.behind or not self.counted(feed, pane, journal_id):
                    return False
            elif silent_s <= GONE_S or (notice is not None and self._unloaded(journal_id, notice)):
                return False
        return True

    def _unloaded(self, journal_id: str, notice: Notice) -> bool:
        """True if a machine that is gone has told what is not in the database."""
        loaded = self._loaded.get(journal_id)
        last = max((position_of(each.last) for each in notice.covered.values()), default=BEGINNING)
        return loaded is None or loaded.position < last

    def _living(self) -> list[str]:
        now = self._clock.monotonic()
        return [journal_id for journal_id, heard_at in self._heard_at.items() if now - heard_at <= SILENT_S]

    async def _attend(self, relay: LiveRelay, feeds: dict[str, Feed], own: Collection[str], now: float) -> None:
        if now - self._attended_at < ATTEND_S and feeds.keys() <= self._asked:
            return
        _, journals = await relay.attend([f"{organization_id} {self._asker}" for organization_id in feeds])
        self._attended_at, self._asked = now, set(feeds)
        self._heard_at = {name: now - age_s for name, age_s in journals.items() if name not in own}
        self._at = {key: position for key, position in self._at.items() if key[0] in feeds}

    async def _read(self, relay: LiveRelay, feeds: dict[str, Feed], room: int) -> None:
        """Count the next records of each organisation, up to the present."""
        self._notices = await relay.notices(list(self._heard_at))
        going_on = [
            (feed, journal_id)
            for journal_id, notice in self._notices.items()
            for feed in feeds.values()
            if self._begin(feed, journal_id, notice)
        ]
        while going_on and room > 0:
            wanted = [
                Wanted(feed.organization_id, each, self._at[feed.organization_id, each]) for feed, each in going_on
            ]
            answers = await relay.records(wanted)
            further = []
            for (feed, journal_id), entries in zip(going_on, answers, strict=True):
                room -= self._count(feed, journal_id, entries)
                if len(entries) == ENTRIES_MAX:
                    further.append((feed, journal_id))
                else:
                    self._check_end(feed, journal_id)
            going_on = further
            await asyncio.sleep(0)
        self._behind = bool(going_on)

    def _begin(self, feed: Feed, journal_id: str, notice: Notice) -> bool:
        """True if there may be records to count."""
        covered = notice.covered.get(feed.organization_id)
        if covered is None:
            feed.since.pop(journal_id, None)
            return False
        key = feed.organization_id, journal_id
        if key not in self._at:
            self._at[key] = feed.since[journal_id] = position_of(covered.since)
        elif journal_id not in feed.since:
            feed.since[journal_id] = self._at[key]
        return self._at[key] < position_of(covered.last)

    def _count(self, feed: Feed, journal_id: str, entries: list[Entry]) -> int:
        """Count records that were not; returns their bytes."""
        key, size = (feed.organization_id, journal_id), 0
        for entry in entries:
            if entry.after > self._at[key]:
                self._at[key] = feed.since[journal_id] = entry.after
            records = [record for record in entry.records if record.position_after > self._at[key]]
            if records:
                feed.take(journal_id, records)
                self._at[key] = records[-1].position_after
            size += sum(len(record.payload) for record in records)
        return size

    def _check_end(self, feed: Feed, journal_id: str) -> None:
        """What was told and is not there any more was lost on the way: it counts when it is loaded."""
        covered = self._notices[journal_id].covered[feed.organization_id]
        last = position_of(covered.last)
        if self._at[feed.organization_id, journal_id] < last:
            self._at[feed.organization_id, journal_id] = feed.since[journal_id] = last
