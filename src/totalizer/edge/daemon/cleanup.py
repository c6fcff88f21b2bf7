"""Removing what is old and not needed any more; never what was not delivered, and never what nobody has read.

| removed when older than the age | never removed |
|---|---|
| `health/health-*.json` | failed, abandoned and unreadable batches |
| `logs/*.log.N`: full log files that were put away | the log files in use |
| drafts (`.*.tmp`) of processes that are gone | drafts of living processes |
| reasons in `recovery/errors` whose file is gone | reasons beside their file |
| `data_path/imported/batch_*.json`: batch files that whoever took them over has moved there | the journal |
| `data_path/batch_*.json`, with `cleanup_batches="aged"` only | |

A batch file in `data_path` is a delivery that nobody may have fetched yet, so that by default its age does not matter.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalizer.clock import Clock
from totalizer.edge.daemon.document import document
from totalizer.edge.daemon.log import Log
from totalizer.edge.daemon.scan import REASON_SUFFIX
from totalizer.edge.folder import DRAFT_SUFFIX, Folders, is_being_written
from totalizer.journal.disk import DISK

#: Below `data_path`: where a batch file is moved by whoever has taken its entries over.
IMPORTED = "imported"

_BATCH = re.compile(r"batch_.+\.json").fullmatch
_HEALTH = re.compile(r"health-\d+\.json").fullmatch
_OLD_LOG = re.compile(r"(aggregation|recovery)\.log\.\d+").fullmatch
_DRAFT = re.compile(rf"\..+\.\d+\.[0-9a-f]+{re.escape(DRAFT_SUFFIX)}").fullmatch


@dataclass(frozen=True)
class CleanupResult:
    """What a cleanup did.

    Attributes:
        files_removed: how many.
        space_freed: bytes of them.
        errors: files that could not be removed.
    """

    files_removed: int
    space_freed: int
    errors: int

    def to_document(self) -> dict[str, Any]:
        """As JSON has it."""
        return document(self)


class Cleanup:
    """Finds and removes old files.

    Args:
        folders: where they lie.
        age_ms: only what was last written longer ago.
        batches: which batch files: `imported`, `never` or `aged`, as `DaemonOptions.cleanup_batches`.
        clock: the time now.
        log: is told what was removed, and what could not be.
    """

    def __init__(self, folders: Folders, age_ms: int, batches: str, clock: Clock, log: Log) -> None:
        self._folders, self._age_ms, self._batches = folders, age_ms, batches
        self._clock, self._log = clock, log

    def identify(self) -> list[Path]:
        """Files that may go, by folder and name. A folder that is missing has none.

        Raises:
            OSError: a folder is there and cannot be listed.
        """
        before_ns = self._clock.now_ns() - self._age_ms * 1_000_000
        return [path for path in self._candidates() if _is_old(path, before_ns)]

    def perform(self) -> CleanupResult:
        """Remove them. OSError as `identify`."""
        removed = freed = errors = 0
        touched = set()
        for path in self.identify():
            try:
                size = os.lstat(path).st_size
                DISK.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                errors += 1
                self._log.warning("not_removed", file=str(path), reason=str(error))
                continue
            removed, freed = removed + 1, freed + size
            touched.add(path.parent)
            self._log.debug("removed", file=str(path), bytes=size)
        for folder in touched:
            DISK.sync_folder(folder)
        self._log.info("cleanup", files_removed=removed, space_freed=freed, errors=errors)
        return CleanupResult(removed, freed, errors)

    def _candidates(self) -> Iterator[Path]:
        folders = self._folders
        yield from _matching(folders.health, _HEALTH)
        yield from _matching(folders.logs, _OLD_LOG)
        if self._batches in ("imported", "aged"):
            yield from _matching(folders.data / IMPORTED, _BATCH)
        if self._batches == "aged":
            yield from _matching(folders.data, _BATCH)
        for folder in (folders.data, folders.recovery, folders.abandoned, folders.errors, folders.health):
            yield from (path for path in _matching(folder, _DRAFT) if not is_being_written(path))
        for path in _matching(folders.errors, lambda name: name.endswith(REASON_SUFFIX)):
            if not os.path.lexists(path.with_name(path.name.removesuffix(REASON_SUFFIX))):
                yield path


def _matching(folder: Path, matches: Callable[[str], object]) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    yield from (folder / name for name in names if matches(name))


def _is_old(path: Path, before_ns: int) -> bool:
    """A link, or anything else that is no file, is nothing that this library has written."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_mtime_ns < before_ns
