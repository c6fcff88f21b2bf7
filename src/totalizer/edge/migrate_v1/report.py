"""What became of each file in a migration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class Outcome(Enum):
    """What became of a file, or would."""

    CONVERTED = "converted"
    CURRENT = "current"
    LEFT = "left"


@dataclass(frozen=True)
class FileReport:
    """One file.

    Attributes:
        source: its path, relative to the source folder.
        outcome: what became of it.
        target: path of the new file, if it was converted.
        entries: how many were converted.
        notes: what a person should know of how it was read.
        reason: why it was left, if it was.
    """

    source: str
    outcome: Outcome
    target: str | None = None
    entries: int = 0
    notes: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class MigrationReport:
    """A whole migration.

    Attributes:
        source: the folder.
        data_path: where delivered batches went.
        dry_run: True if it only says what would be done.
        files: every file that was looked at, in order.
    """

    source: Path
    data_path: Path
    dry_run: bool
    files: tuple[FileReport, ...]

    def of(self, outcome: Outcome) -> list[FileReport]:
        """The files with an outcome."""
        return [file for file in self.files if file.outcome is outcome]

    @property
    def entries(self) -> int:
        """How many entries were converted."""
        return sum(file.entries for file in self.files)

    def to_document(self) -> dict[str, Any]:
        """The report as JSON: `source`, `dataPath`, `dryRun`, `entries`, a count for each outcome, and `files`."""
        counts = {outcome.value: len(self.of(outcome)) for outcome in Outcome}
        return {
            "source": str(self.source), "dataPath": str(self.data_path), "dryRun": self.dry_run,
            "entries": self.entries, **counts,
            "files": [
                {"source": file.source, "outcome": file.outcome.value, "target": file.target, "entries": file.entries,
                 "notes": list(file.notes), "reason": file.reason}
                for file in self.files
            ],
        }  # fmt: skip
