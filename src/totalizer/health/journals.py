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
        self._known: dict[str, tuple[int, int]] = {}

    def look(self, offsets: Mapping[str, tuple[int, int]] | None, now_ms: int) -> tuple[JournalFact, ...] | None:
        """How each journal is; None if they cannot be looked at.

        Args:
            offsets: how far each is loaded; None if the database does not tell: then what it said last is taken, and
                records behind that are not loaded yet.
            now_ms: milliseconds since 1970 UTC.
        """
        if offsets is not None:
            self._known.update(offsets)
        asked = offsets is not None or bool(self._known)
        try:
            return tuple(self._fact(folder, now_ms, asked=asked) for folder in journals_in(self._spool))
        except (JournalFailed, OSError):
            self._readers.clear()
            return None

    def _fact(self, folder: Path, now_ms: int, *, asked: bool) -> JournalFact:
        reader = self._readers.get(folder)
        if reader is None:
            reader = self._readers[folder] = JournalReader(folder)
        behind = self._behind(reader, now_ms) if asked else None
        return JournalFact(folder.name, _bytes_in(folder, reader.durable_end()), behind)

    def _behind(self, reader: JournalReader, now_ms: int) -> float | None:
        position = Position(*self._known.get(reader.id, (0, 0)))
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
