"""Following the journals on their way into the database, for the organisations somebody asks for."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from totalizer.clock import Clock
from totalizer.journal import BEGINNING, Record
from totalizer.live.elsewhere import Elsewhere
from totalizer.live.feed import Feed, Pane
from totalizer.live.stored import Offset, StoredWindows
from totalizer.live.tail import Tail, Tails

#: How a batch of an organisation begins, and where its id stands.
_HEAD = b'{"organization_id":"'
_ID = slice(len(_HEAD), len(_HEAD) + 36)
#: Reads of one journal in one go; then others have their turn.
READS_MAX = 4
#: How often journals are looked at of which nothing is pending.
LOOK_S = 1.0
#: How long windows are called incomplete after a journal has moved of a machine that tells nothing.
ELSEWHERE_S = 60.0


class Failure(NamedTuple):
    """An event or record that was not understood: where it is, and why."""

    journal_id: str
    sequence: int
    reason: str


class Follower:
    """Reads the journals and settles what is loaded.

    Args:
        tails: the journals.
        stored: the database.
        clock: for durations.
        pending_bytes_max: of events that are not loaded; beyond it reading waits.
        failures_max: failures remembered.
        elsewhere: the journals of other machines.

    Attributes:
        feeds: organisations followed, by their ids.
        failures: the latest ones.
    """

    def __init__(
        self, tails: Tails, stored: StoredWindows, clock: Clock, *, pending_bytes_max: int, failures_max: int,
        elsewhere: Elsewhere,
    ) -> None:  # fmt: skip
        self._tails, self._stored, self._clock, self._elsewhere = tails, stored, clock, elsewhere
        self._pending_bytes_max = pending_bytes_max
        self.feeds: dict[str, Feed] = {}
        self.failures: deque[Failure] = deque(maxlen=failures_max)
        self._first: dict[str, Offset] | None = None
        self._offsets: dict[str, Offset] = {}
        self._settled_at = float("-inf")
        # Journal of a machine that tells nothing → when it moved.
        self._moved_at: dict[str, float] = {}
        self._behind = False
        self._lost = 0

    def complete(self, feed: Feed, pane: Pane) -> bool:
        """False if something acknowledged may not be counted in a window."""
        now = self._clock.monotonic()
        if self._behind or any(
            now - at <= ELSEWHERE_S and not self._elsewhere.known(journal_id)
            for journal_id, at in self._moved_at.items()
        ):
            return False
        return self._elsewhere.complete(feed, pane)

    @property
    def lost(self) -> int:
        """How many times records were gone before they were read: windows read before that must be read anew."""
        return self._lost

    async def feed(self, organization_id: str) -> Feed:
        """The feed of an organisation, begun if need be.

        Raises:
            StoreUnavailable: the database is away.
        """
        if self._first is None:
            offsets = await self._stored.offsets()
            if self._first is None:
                self._first = self._offsets = offsets
                self.look()
        if organization_id not in self.feeds:
            feed = self.feeds[organization_id] = Feed(organization_id, self._note)
            feed.since = {tail.id: tail.position for tail in self._tails}
        return self.feeds[organization_id]

    def look(self) -> None:
        """Find journals that are new here."""
        for tail in self._tails.look(self._first or {}):
            for feed in self.feeds.values():
                feed.since[tail.id] = tail.position

    def read(self) -> None:
        """Count what has become durable."""
        room = self._room
        self._behind = False
        for tail in self._tails:
            self._behind |= not self._read_one(tail, room)

    async def hear(self) -> None:
        """Count what other machines tell."""
        await self._elsewhere.exchange(self.feeds, self._tails.by_id, self._room)

    async def cover(self, feed: Feed) -> None:
        """Wait, not for long, until other machines tell of a feed: what is read after that need not be read again."""
        if not self._elsewhere.covers(feed):
            await self._elsewhere.cover(feed, self.feeds, self._tails.by_id, self._room)

    def rest(self) -> None:
        """Nobody asks any more: let go of the journals."""
        self._tails.close()
        self._elsewhere.rest()
        self._first = None
        self._moved_at.clear()

    async def catch_up(self, feed: Feed, offsets: dict[str, Offset]) -> bool:
        """Count the records between what is loaded and what a feed has.

        Args:
            feed: whose.
            offsets: how far journals are loaded.

        Returns:
            False if some were gone, since the loader was faster.

        Raises:
            StoreUnavailable: there are too many.
        """
        async with feed.catching_up:
            for tail in self._tails:
                offset = offsets.get(tail.id, Offset(BEGINNING, 0))
                since = feed.since.get(tail.id, tail.position)
                if offset.position >= since:
                    continue
                records = await tail.between(offset, since, self._pending_bytes_max)
                if records is None:
                    return False
                feed.take(tail.id, by_organization(records).get(feed.organization_id, []), first=True)
                feed.since[tail.id] = offset.position
        return True

    async def settle(self) -> None:
        """Find what was loaded since; it counts as stored, but for what was not.

        Raises:
            StoreUnavailable: the database is away.
        """
        now = self._clock.monotonic()
        if now - self._settled_at < LOOK_S and not any(feed.pending for feed in self.feeds.values()):
            return
        offsets = await self._stored.offsets()
        self._settled_at = now
        self._look_elsewhere(offsets)
        self._offsets = offsets
        for feed in list(self.feeds.values()):
            pieces = feed.loaded(offsets)
            if not pieces:
                continue
            records = [(piece.journal_id, *piece.sequences) for piece in pieces]
            unstored = await self._stored.unstored(feed.organization_id, records)
            for piece, (journal_id, first, last) in zip(pieces, records, strict=True):
                places = frozenset(place for place in unstored[journal_id] if first <= place[1] <= last)
                feed.settle(piece, places)

    def overtaken(self, feed: Feed, pane: Pane) -> bool:
        """True if events were loaded that its window cannot know of: from a journal that nobody tells of here."""
        return any(
            offset != pane.offsets.get(journal_id) and not self._elsewhere.counted(feed, pane, journal_id)
            for journal_id, offset in self._offsets.items()
            if journal_id not in self._tails.by_id
        )

    @property
    def _room(self) -> int:
        """Bytes of events that may be added to those that are not loaded."""
        return self._pending_bytes_max - sum(feed.pending_bytes for feed in self.feeds.values())

    def _look_elsewhere(self, offsets: dict[str, Offset]) -> None:
        self._elsewhere.note_loaded(offsets)
        moved = {journal_id for journal_id, offset in offsets.items() if offset != self._offsets.get(journal_id)}
        moved = {journal_id for journal_id in moved if not self._elsewhere.known(journal_id)}
        if moved - self._tails.by_id.keys():
            self.look()
        self._moved_at |= dict.fromkeys(moved - self._tails.by_id.keys(), self._clock.monotonic())

    def _read_one(self, tail: Tail, room: int) -> bool:
        """False if there is more."""
        for _ in range(READS_MAX):
            if room <= 0:
                return False
            records = tail.read()
            if not records:
                return True
            if tail.lost:
                tail.lost = False
                self._lost += 1
            for organization_id, own in by_organization(records).items():
                if organization_id in self.feeds:
                    self.feeds[organization_id].take(tail.id, own)
        return False

    def _note(self, journal_id: str, sequence: int, reason: str) -> None:
        self.failures.append(Failure(journal_id, sequence, reason))


def by_organization(records: list[Record]) -> dict[str, list[Record]]:
    """Records of batches by their organisations; what is no batch is left to the loader to report."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.payload.startswith(_HEAD):
            found.setdefault(record.payload[_ID].decode("ascii", "replace"), []).append(record)
    return found
