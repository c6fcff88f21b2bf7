"""The log of one process: its journal, and how far what is in it has come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalizer.edge.backlog import entry_of, fold, records_after, waiting_records
from totalizer.edge.batch import Entry
from totalizer.edge.folder import Folders
from totalizer.edge.options import Options
from totalizer.edge.records import (
    ENTRY,
    MARK_PAYLOAD,
    Done,
    Seal,
    added_ms,
    done_payload,
    entry_payload,
    seal_payload,
)
from totalizer.errors import JournalFailed, JournalFull
from totalizer.journal import Journal, JournalReader, Position, Record, claim

PREFIX = "edge"
#: Bytes of a segment, unless the quota is small: a new one every 20 000 entries or so, for few milliseconds each.
SEGMENT_BYTES = 4 << 20
#: The quota holds at least so many segments, so that those dealt with can go while others are filled.
QUOTA_SEGMENTS_MIN = 8
#: Bytes of entries in one batch, unless a single one is longer.
BATCH_BYTES_MAX = 8 << 20
#: Entries that wait in memory for a disk that refused them, with durability "interval".
UNSYNCED_MAX = 10_000


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
        lost: entries that were taken with durability "interval" and never became durable.
    """

    def __init__(self, journal: Journal, options: Options) -> None:
        self.folder, self._journal, self._options = journal.folder, journal, options
        self.damaged = self.lost = 0
        self._reader = JournalReader(journal.folder, disk=options.disk)
        self._fold = fold(self._reader)
        self._seal = self._fold.seal
        self._through, self.start = self._fold.through, self._fold.start
        # Entries that wait are those at opening, and what was appended since, less our own records, less what is done.
        self._base, self._own, self._done = self._fold.waiting - journal.records, 0, 0
        self._damage_seen = 0
        self._unsynced: deque[bytes] = deque()
        self._unsynced_lock = threading.Lock()

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
    def added(self) -> int:
        """Entries that were appended since it was opened, and are durable."""
        return max(self._journal.records - self._own, 0)

    def append(self, encoded: bytes) -> None:
        """Take one entry; with durability "entry", return when it is durable. Blocks on the disk then.

        Raises:
            JournalFull: the quota is reached; it was not taken.
            JournalFailed: the disk refuses; it was not taken.
        """
        if self._journal.bytes_on_disk >= self._options.quota_bytes:
            raise JournalFull(
                f"{self.folder}: {self._options.quota_bytes} bytes of entries wait for delivery, which is quota_bytes"
            )
        payload = entry_payload(encoded, self._options.clock.now_ns() // 1_000_000)
        if self._options.durability == "entry":
            self._journal.append_and_wait(payload)
        else:
            self._journal.append(payload, payload)

    def sync(self) -> None:
        """Return when everything appended before is durable. JournalFailed if the disk refuses."""
        if self._options.durability == "interval":
            self._append_own(MARK_PAYLOAD)

    def take(self, count: int) -> Taken | None:
        """The batch that was begun, or the oldest `count` waiting entries or fewer; None if none wait.

        Raises:
            JournalFailed: the disk refuses to read.
        """
        seal = self._seal
        entries, through, after = self._read(seal.count if seal is not None else count, seal)
        if entries:
            return Taken(tuple(entries), seal.through if seal is not None else through, after, seal)
        if seal is None:
            self._settle()
            return None
        # Damage has taken all of it.
        self.done(Done(seal.batch_id, seal.through, self.start.segment, self.start.offset))
        return self.take(count)

    def seal(self, batch_id: str, timestamp: int, taken: Taken) -> None:
        """Make durable which entries the batch has. Blocks on the disk; JournalFailed if it refuses."""
        seal = Seal(batch_id, timestamp, taken.through, len(taken.entries))
        self._append_own(seal_payload(seal))
        self._seal = seal

    def done(self, done: Done) -> None:
        """Note what became of the oldest entries, and give back their room. JournalFailed if the disk refuses."""
        self._append_own(done_payload(done))
        self._seal = None
        self._through = done.through
        self._done += done.delivered + done.failed + done.refused + done.dropped
        before, self.start = self.start, done.position
        if before.segment != done.segment:
            self._reader.discard(self.start)

    def drop_oldest(self) -> int:
        """Give up the oldest waiting entries, a segment of them; how many. JournalFailed if the disk refuses."""
        first = None
        count, through, after = 0, 0, self.start
        for record in records_after(self._reader, self.start):
            first = record.position_after.segment if first is None else first
            if record.position_after.segment != first:
                break
            if record.payload[0] == ENTRY and record.sequence > self._through:
                count, through = count + 1, record.sequence
            after = record.position_after
        if count:
            self.done(Done("", through, after.segment, after.offset, dropped=count))
        return count

    def oldest_ms(self) -> int | None:
        """When the oldest waiting entry was added, milliseconds since 1970 UTC; None if none waits."""
        return next((added_ms(record.payload) for record in self._waiting_records()), None)

    def retry_unsynced(self) -> None:
        """Take entries again that were taken with durability "interval" and that the disk has refused since."""
        with self._unsynced_lock:
            payloads, self._unsynced = self._unsynced, deque()
        for index, payload in enumerate(payloads):
            try:
                self._journal.append(payload, payload)
            except (JournalFailed, JournalFull):
                with self._unsynced_lock:
                    self._unsynced.extendleft(reversed(list(payloads)[index:]))
                return

    def close(self, timeout_s: float = 10) -> None:
        """Make durable what is pending and give the journal back. JournalFailed if the disk does not finish in time."""
        self.retry_unsynced()
        self._reader.close()
        self._journal.close(timeout_s)
        with self._unsynced_lock:
            self.lost += len(self._unsynced)
            self._unsynced.clear()

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

    def _read(self, count: int, seal: Seal | None) -> tuple[list[Entry], int, Position]:
        entries: list[Entry] = []
        size, through, after = 0, 0, self.start
        for record in self._waiting_records():
            size += len(record.payload)
            if seal is not None:
                if record.sequence > seal.through:
                    break
            elif entries and (len(entries) >= count or size > BATCH_BYTES_MAX):
                break
            entries.append(entry_of(record))
            through, after = record.sequence, record.position_after
            if len(entries) >= count:
                break
        return entries, through, after

    def _waiting_records(self) -> Iterator[Record]:
        return waiting_records(self._reader, self.start, self._through)

    def _settle(self) -> None:
        """Reading has found nothing: if entries are said to wait and there is new damage, it has taken them."""
        if len(self._reader.damage) == self._damage_seen or not self.waiting:
            return
        missing = self.waiting
        # What was counted a moment ago may not have been readable yet; it is behind a mark.
        self._append_own(MARK_PAYLOAD)
        if next(self._waiting_records(), None) is None:
            self._damage_seen = len(self._reader.damage)
            self.damaged += missing
            self._done += missing

    def _answer(self, tokens: list[object], error: JournalFailed | None) -> None:
        """In the journal's thread: keep what the disk refused."""
        if error is None:
            return
        with self._unsynced_lock:
            room = UNSYNCED_MAX - len(self._unsynced)
            self._unsynced.extend(token for token in tokens[:room] if isinstance(token, bytes))
            self.lost += max(len(tokens) - room, 0)


def _sizes(options: Options) -> dict[str, Any]:
    segment_bytes = min(SEGMENT_BYTES, options.quota_bytes // QUOTA_SEGMENTS_MIN)
    # Entries stop at quota_bytes. Beyond it there is room for our own records, without which nothing could be
    # delivered any more: with batches of one small entry these are as long as the entries.
    quota_bytes = 2 * options.quota_bytes + 4 * segment_bytes
    return {"segment_bytes": segment_bytes, "quota_bytes": quota_bytes, "clock": options.clock, "disk": options.disk}


def _answers(holder: list[EntryLog]) -> Callable[[list[object], JournalFailed | None], None]:
    def answer(tokens: list[object], error: JournalFailed | None) -> None:
        holder[0]._answer(tokens, error)

    return answer
