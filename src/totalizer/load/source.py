"""One journal on its way into the database, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from totalizer.journal import JournalReader, Position, Record
from totalizer.store import loading


class Fenced(Exception):
    """Another loader has taken this journal over."""


@dataclass
class Source:
    """One journal being drained."""

    folder: Path
    reader: JournalReader
    offset: loading.Offset
    damage_reported: int = 0
    #: Records that are read but not stored yet.
    ahead: list[Record] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """How far it is loaded."""
        return Position(self.offset.segment, self.offset.position)
