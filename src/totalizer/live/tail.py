"""The ends of this machine's journals, read beside the loader as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

from totalizer.errors import JournalFailed, StoreUnavailable
from totalizer.journal import BEGINNING, JournalReader, Position, Record, journals_in
from totalizer.live.stored import Offset
from totalizer.telemetry import logger

#: Of one read: what is decoded in some milliseconds.
RECORDS_MAX, BYTES_MAX = 500, 256 << 10


class Tail:
    """One journal.

    Args:
        folder: where it is.

    Attributes:
        id: the journal's.
        position: how far it is read.
        sequence: of the last record read; 0 if not known.
        lost: True if records were gone before they were read. Only who asks sets it back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = JournalReader(folder, looking_on=True)
        self.id = self._reader.id
        self.position, self.sequence, self.lost = BEGINNING, 0, False

    def begin(self, offset: Offset | None) -> None:
        """Read on from where the journal is loaded; from its beginning if nothing of it is."""
        self.position, self.sequence = (BEGINNING, 0) if offset is None else (offset.position, offset.sequence)

    def read(self) -> list[Record]:
        """What has become durable since, not all at once; [] if nothing has."""
        try:
            records = self._reader.read(self.position, records_max=RECORDS_MAX, bytes_max=BYTES_MAX)
        except JournalFailed as error:
            logger().warning("live windows cannot read a journal", journal=str(self.folder), reason=str(error))
            return []
        if records:
            known = self.sequence or self.position == BEGINNING
            if known and records[0].sequence != self.sequence + 1:
                self.lost = True
            self.position, self.sequence = records[-1].position_after, records[-1].sequence
        return records

    async def between(self, offset: Offset, end: Position, bytes_max: int) -> list[Record] | None:
        """The records from where the journal is loaded up to a position, by a reader of their own.

        Args:
            offset: how far it is loaded.
            end: up to there.
            bytes_max: of the records.

        Returns:
            None if some are gone.

        Raises:
            StoreUnavailable: they are more than that.
        """
        other = Tail(self.folder)
        other.begin(offset)
        found: list[Record] = []
        size = 0
        try:
            while other.position < end and (records := other.read()):
                found += [record for record in records if record.position_after <= end]
                size += sum(len(record.payload) for record in records)
                if size > bytes_max:
                    raise StoreUnavailable(f"more than {bytes_max} bytes of the journal are not loaded yet")
                await asyncio.sleep(0)
        finally:
            other.close()
        return None if other.lost else found

    def close(self) -> None:
        """Give back descriptors."""
        self._reader.close()


class Tails:
    """All journals below a folder.

    Args:
        spool: the folder.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._tails: dict[Path, Tail] = {}
        self.by_id: dict[str, Tail] = {}

    def look(self, offsets: Mapping[str, Offset]) -> list[Tail]:
        """Find journals that are new here; returns them.

        Args:
            offsets: how far they are loaded, where that is known.
        """
        found = []
        try:
            folders = journals_in(self._spool, self._refused)
        except OSError as error:
            logger().warning("live windows cannot look for journals", reason=str(error))
            return []
        for folder in folders:
            if folder in self._tails:
                continue
            try:
                tail = Tail(folder)
            except JournalFailed:
                continue  # just being made, or put in order by the loader
            tail.begin(offsets.get(tail.id))
            self._tails[folder] = self.by_id[tail.id] = tail
            found.append(tail)
        return found

    def __iter__(self) -> Iterator[Tail]:
        return iter(list(self._tails.values()))

    def close(self) -> None:
        """Let go of all journals."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()
        self.by_id.clear()

    def _refused(self, path: Path, error: OSError) -> None:
        logger().warning("live windows cannot look for journals", folder=str(path), reason=str(error))
