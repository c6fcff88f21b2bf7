"""How the journals of this machine are: what they take of the disk, and since when something waits in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from totalizer.errors import JournalFailed
from totalizer.event import decode_batch
from totalizer.health.facts import JournalFact
from totalizer.journal import JournalReader, Position, journals_in
from totalizer.journal.format import segment_numbers, segment_path


class Journals:
    """Looks at the journals below a folder. One thread at a time.

    Args:
        spool: folder of journal folders; it need not exist.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._readers: dict[Path, JournalReader] = {}

    def look(self, offsets: Mapping[str, tuple[int, int]] | None, now_ms: int) -> tuple[JournalFact, ...] | None:
        """How each journal is; None if they cannot be looked at.

        Args:
            offsets: how far each is loaded; None if the database does not tell: that nothing is loaded then is its
                fault, and no news.
            now_ms: milliseconds since 1970 UTC.
        """
        try:
            return tuple(self._fact(folder, now_ms, offsets) for folder in journals_in(self._spool))
        except (JournalFailed, OSError):
            self._readers.clear()
            return None

    def _fact(self, folder: Path, now_ms: int, offsets: Mapping[str, tuple[int, int]] | None) -> JournalFact:
        reader = self._readers.get(folder)
        if reader is None:
            reader = self._readers[folder] = JournalReader(folder)
        behind = None if offsets is None else self._behind(reader, now_ms, Position(*offsets.get(reader.id, (0, 0))))
        return JournalFact(folder.name, _bytes_in(folder, reader.durable_end()), behind)

    def _behind(self, reader: JournalReader, now_ms: int, position: Position) -> float | None:
        if position >= reader.durable_end():
            return 0.0
        following = reader.read(position, records_max=1, bytes_max=1)
        if not following:
            return 0.0
        try:
            header, _ = decode_batch(following[0].payload)
            received = datetime.fromisoformat(header.received_at).timestamp()
        except ValueError:  # the loader keeps it as a dead letter when it gets there
            return None
        return max(0.0, now_ms / 1000 - received)


def _bytes_in(folder: Path, end: Position) -> int:
    """Bytes of the disk as the quota counts them: of the segment that is written to, what is in it."""
    total = 0
    for number in segment_numbers(folder):
        if number == end.segment:
            total += end.offset
            continue
        try:
            total += segment_path(folder, number).stat().st_size
        except FileNotFoundError:  # loaded, and discarded meanwhile
            continue
    return total
