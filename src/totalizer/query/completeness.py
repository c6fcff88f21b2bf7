"""Whether an answer holds everything that was acknowledged before it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from totalizer.journal import JournalReader, Position, journals_in


class LocalJournals:
    """The journals of this machine, as a reader of answers sees them.

    Args:
        spool: folder of journal folders.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._readers: dict[Path, JournalReader] = {}

    def durable_ends(self) -> dict[str, Position]:
        """How far each journal is durable now, by journal id."""
        for folder in journals_in(self._spool):
            if folder not in self._readers:
                self._readers[folder] = JournalReader(folder)
        return {reader.id: reader.durable_end() for reader in self._readers.values()}

    def all_loaded(self, ends: Mapping[str, Position], loaded: Mapping[str, Position]) -> bool:
        """True if no record lies between what is loaded and the ends.

        Args:
            ends: from `durable_ends`, taken before the snapshot.
            loaded: the offsets the snapshot shows, by journal id.
        """
        for reader in self._readers.values():
            end, position = ends.get(reader.id, Position(0, 0)), loaded.get(reader.id, Position(0, 0))
            if position >= end:
                continue
            # A new segment begins beyond the end of the one before without holding anything yet.
            following = reader.read(position, records_max=1, bytes_max=1)
            if following and following[0].position_after <= end:
                return False
        return True
