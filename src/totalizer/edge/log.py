"""The log of one process: its journal, and how far what is in it has come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalizer.edge.backlog import entry_of, fold, waiting_records
from totalizer.edge.batch import Entry
from totalizer.edge.folder import Folders
from totalizer.edge.lookahead import Lookahead
from totalizer.edge.options import Options
from totalizer.edge.records import (
    MARK_PAYLOAD,
    Done,
    Seal,
    added_ms,
    done_payload,
    seal_payload,
)
from totalizer.edge.unsynced import Unsynced
from totalizer.errors import JournalError, JournalFailed, JournalFull
from totalizer.journal import Journal, JournalReader, Position, claim

LOGGER = logging.getLogger("totalizer.edge")
PREFIX = "edge"
#: Bytes of a segment, unless the quota is small: a new one every 20 000 entries or so, for few milliseconds each.
SEGMENT_BYTES = 4 << 20
#: The quota holds at least so many segments, so that those dealt with can go while others are filled.
QUOTA_SEGMENTS_MIN = 8
#: Bytes of entries in one batch, unless a single one is longer.
BATCH_BYTES_MAX = 8 << 20
#: Bytes that may be appended between two looks at the quota.
_UNCHECKED_MAX = 64 << 10
#: Room beside the quota for entries that are on their way while it is reached: as much as may wait for the disk.
_ON_THEIR_WAY_MAX = 80 << 20


@dataclass(frozen=True)
class Taken:
    """Waiting entries, read.

    Attributes:
        entries: in the order they were added.
        through: sequence of the last of them.
        after: position behind it.
        sealed: the seal they had already; None if they are a new batch.
    """

    entries: tuple[Entry, ...]
    through: int
    after: Position
    sealed: Seal | None


class EntryLog:
    """An open journal of entries. `append` is for any thread, `waiting` too; the rest for one at a time.

    Attributes:
        folder: of the journal.
        damaged: entries that were lost to damage of the disk, as far as can be counted.
    """

    def __init__(self, journal: Journal, options: Options) -> None:
        self.folder, self._journal, self._options = journal.folder, journal, options
        self.damaged = 0
        self._reader = JournalReader(journal.folder, disk=options.disk)
        state = fold(self._reader)
        self._seal, self._through, self.start = state.seal, state.through, state.start
        self._ahead = Lookahead(self._reader, self.start, self._through)
        # Entries that wait are those at opening, and what was appended since, less our own records, less what is done.
        self._base, self._own, self._done = state.waiting - journal.records, 0, 0
        self._owed: Done | None = None
        self._discarded = -1
        self._damage_seen = len(self._reader.damage)
        self._waits = options.durability == "entry"
        self._unchecked, self._full = 0, self.is_full
        self._unsynced = Unsynced()

    @classmethod
    def claim(cls, folders: Folders, options: Options) -> EntryLog:
        """The first journal that no living process has open, with whatever waits in it. Raises as `journal.claim`."""
        holder: list[EntryLog] = []
        journal = claim(folders.journal, PREFIX, **_sizes(options), on_commit=_answers(holder))
        return cls._of(journal, options, holder)

    @classmethod
    def open(cls, folder: Path, options: Options) -> EntryLog:
        """A certain journal. Raises as `Journal.open`: JournalBusy if a process has it."""
        holder: list[EntryLog] = []
        journal = Journal.open(folder, **_sizes(options), on_commit=_answers(holder))
        return cls._of(journal, options, holder)

    @classmethod
    def _of(cls, journal: Journal, options: Options, holder: list[EntryLog]) -> EntryLog:
        try:
            log = cls(journal, options)
        except BaseException:
            journal.close()
            raise
        holder.append(log)
        return log

    @property
    def waiting(self) -> int:
        """Entries that are durable and not dealt with."""
        return max(self._base + self._journal.records - self._own - self._done, 0)

    @property
    def end(self) -> Position:
        """Where the durable records end."""
        return self._reader.durable_end()

    @property
    def is_full(self) -> bool:
        """True while `quota_bytes` are taken."""
        return self._journal.bytes_on_disk >= self._options.quota_bytes

    @property
    def is_sealed(self) -> bool:
        """True if the oldest waiting entries are a batch that was begun."""
        return self._seal is not None

    @property
    def is_damaged(self) -> bool:
        """True if reading has met damage, and what it took is not counted yet."""
        return len(self._reader.damage) != self._damage_seen

    @property
    def added(self) -> int:
        """Entries that were appended since it was opened, and are durable."""
        return max(self._journal.records - self._own, 0)

    def append(self, payload: bytes) -> None:
        """Take one entry's record; with durability "entry", return when it is durable. Blocks on the disk then.

        Raises:
            JournalFull: the quota is reached; it was not taken.
            JournalFailed: the disk refuses; it was not taken.
        """
        self._unchecked += len(payload)
        if self._unchecked > _UNCHECKED_MAX or self._full:
            self._unchecked, self._full = 0, self.is_full
            if self._full:
                quota = self._options.quota_bytes
                raise JournalFull(f"{self.folder}: quota_bytes={quota} of entries wait for delivery")
        if self._waits:
            self._journal.append_and_wait(payload)
        else:
            self._journal.append(payload, payload)

    def sync(self) -> None:
        """Return when everything appended before is durable. JournalFailed if the disk refuses."""
        if not self._waits:
            self._append_own(MARK_PAYLOAD)

    def take(self, count: int) -> Taken | None:
        """The batch that was begun, or the oldest `count` waiting entries or fewer; None if none wait.

        Raises:
            JournalFailed: the disk refuses to read.
        """
        seal = self._seal
        if seal is None:
            records = self._ahead.peek(count, bytes_max=BATCH_BYTES_MAX)
        else:
            records = self._ahead.peek(seal.count, bytes_max=2 * BATCH_BYTES_MAX, last=seal.through)
        if not records:
            if seal is None:
                self._reckon()
                return None
            # Damage has taken all of it.
            self.done(Done(seal.batch_id, seal.through, self.start.segment, self.start.offset))
            return self.take(count)
        last = records[-1]
        through = seal.through if seal is not None else last.sequence
        return Taken(tuple(map(entry_of, records)), through, last.position_after, seal)

    def seal(self, batch_id: str, timestamp: int, taken: Taken) -> None:
        """Make durable which entries the batch has. Blocks on the disk; JournalFailed if it refuses."""
        seal = Seal(batch_id, timestamp, taken.through, len(taken.entries), self._owed)
        self._append_own(seal_payload(seal))
        self._owed, self._seal = None, seal
        self._discard()

    def done(self, done: Done) -> None:
        """The oldest entries are dealt with. It becomes durable with the next seal, or by `settle`."""
        self._owed, self._seal = done, None
        self._through = done.through
        self._done += done.delivered + done.failed + done.refused + done.dropped
        self._ahead.drop(done.through)
        self.start = done.position

    def settle(self) -> None:
        """Make durable what is done, and give back its room. JournalFailed if the disk refuses."""
        if self._owed is not None:
            self._append_own(done_payload(self._owed))
            self._owed = None
            self._discard()

    def drop_oldest(self) -> int:
        """Give up the oldest waiting entries, a segment of them; how many. JournalFailed if the disk refuses."""
        first = self._ahead.peek(1, bytes_max=1)
        if not first:
            return 0
        segment, count, last = first[0].position_after.segment, 0, first[0]
        for record in waiting_records(self._reader, self.start, self._through):
            if record.position_after.segment != segment:
                break
            count, last = count + 1, record
        # Reading goes on in the next segment, so this one can go.
        self.done(Done("", last.sequence, segment + 1, 0, dropped=count))
        self.settle()
        return count

    def oldest_ms(self) -> int | None:
        """When the oldest waiting entry was added, milliseconds since 1970 UTC; None if none waits."""
        return next((added_ms(record.payload) for record in self._ahead.peek(1, bytes_max=1)), None)

    def retry_unsynced(self) -> None:
        """Take entries again that were taken with durability "interval" and that the disk has refused since."""
        self._unsynced.try_again(lambda payload: self._journal.append(payload, payload))

    @property
    def lost(self) -> int:
        """Entries that were taken with durability "interval" and never became durable."""
        return self._unsynced.lost

    def close(self, timeout_s: float = 10) -> None:
        """Make durable what is pending and give the journal back. JournalFailed if the disk does not finish in time."""
        self.retry_unsynced()
        try:
            self.settle()
        except JournalError as error:
            # Some batch will be delivered again, under its own id, and is known by it.
            LOGGER.error("%s: what was delivered last cannot be noted: %s", self.folder, error)
        self._reader.close()
        self._journal.close(timeout_s)
        self._unsynced.give_up()

    def forget(self) -> None:
        """In a forked child: close what was inherited; the journal is the parent's."""
        self._reader.close()

    def _append_own(self, payload: bytes) -> None:
        """Append a record that is no entry. It counts before it is there: better wake once too late than too soon."""
        self._own += 1
        try:
            self._journal.append_and_wait(payload)
        except BaseException:
            self._own -= 1
            raise

    def _discard(self) -> None:
        """Give back the room of segments that are wholly dealt with, durably so."""
        if self.start.segment != self._discarded:
            self._reader.discard(self.start)
            self._discarded = self.start.segment

    def _reckon(self) -> None:
        """Reading has found nothing: if entries are said to wait and there is new damage, it has taken them."""
        if not self.is_damaged or not self.waiting:
            return
        missing = self.waiting
        # What was counted a moment ago may not have been readable yet; it is behind a mark.
        self._append_own(MARK_PAYLOAD)
        if not self._ahead.peek(1, bytes_max=1):
            self._damage_seen = len(self._reader.damage)
            self.damaged += missing
            self._done += missing

    def _answer(self, tokens: list[object], error: JournalFailed | None) -> None:
        """In the journal's thread: keep what the disk refused."""
        if error is not None:
            self._unsynced.keep(tokens)


def _sizes(options: Options) -> dict[str, Any]:
    segment_bytes = min(SEGMENT_BYTES, options.quota_bytes // QUOTA_SEGMENTS_MIN)
    # Entries stop at quota_bytes. Beyond it there is room for our own records, without which nothing could be
    # delivered any more: with batches of one small entry these are as long as the entries.
    quota_bytes = options.quota_bytes + max(options.quota_bytes, _ON_THEIR_WAY_MAX) + 4 * segment_bytes
    return {"segment_bytes": segment_bytes, "quota_bytes": quota_bytes, "clock": options.clock, "disk": options.disk}


def _answers(holder: list[EntryLog]) -> Callable[[list[object], JournalFailed | None], None]:
    def answer(tokens: list[object], error: JournalFailed | None) -> None:
        holder[0]._answer(tokens, error)

    return answer
