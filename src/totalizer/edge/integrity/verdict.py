"""What was found out about one file or folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class Level(Enum):
    """How bad a finding is: a problem needs somebody, a note mends itself or is only worth knowing."""

    PROBLEM = "problem"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing about a file.

    Attributes:
        level: how bad it is.
        text: what it is, and what to do.
    """

    level: Level
    text: str


@dataclass(frozen=True)
class Verdict:
    """One file or folder.

    Attributes:
        path: where it is.
        kind: `batch`, `failed`, `abandoned`, `set aside`, `health`, `journal`, `draft`, `folder` or `other`.
        entries: how many were read in it.
        findings: nothing if all is well.
    """

    path: Path
    kind: str
    entries: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def sound(self) -> bool:
        """True if there is no problem."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    def to_document(self) -> dict[str, Any]:
        """The verdict as JSON: `path`, `kind`, `entries`, `sound` and `findings` with `level` and `text`."""
        findings = [{"level": finding.level.value, "text": finding.text} for finding in self.findings]
        return {
            "path": str(self.path), "kind": self.kind, "entries": self.entries, "sound": self.sound,
            "findings": findings,
        }  # fmt: skip


def problems(texts: Iterable[str]) -> Iterator[Finding]:
    """Findings that need somebody."""
    return (Finding(Level.PROBLEM, text) for text in texts)


def notes(texts: Iterable[str]) -> Iterator[Finding]:
    """Findings that are only worth knowing."""
    return (Finding(Level.NOTE, text) for text in texts)
