"""Looking for failed batches: what can be read is listed, what cannot be is moved out of the way, nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from totalizer.clock import Clock, utc_text
from totalizer.edge.batch import Entry, FailedBatch, decode_failed_file
from totalizer.edge.daemon.failed_file import read_file
from totalizer.edge.daemon.lock import LOCK_WAIT_S, Busy, recovery_lock
from totalizer.edge.daemon.log import Log
from totalizer.edge.folder import Folders, move_file, write_file
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown

#: Ends the name of the note that lies beside a file in `recovery/errors`.
REASON_SUFFIX = ".reason"


@dataclass(frozen=True)
class ScannedBatch:
    """A failed batch that lies in the recovery folder. Its entries stay on the disk until they are asked for.

    Attributes:
        batch_id: the batch's id.
        timestamp: when it was sealed, milliseconds since 1970 UTC.
        entry_count: how many entries wait.
        retry_count: attempts of the recovery daemon so far.
        last_error: why the last attempt failed.
        failed_at: when the first run of attempts failed, milliseconds since 1970 UTC.
        last_retry_at: when the daemon last tried, milliseconds since 1970 UTC; None before its first try.
        next_retry_at: not before, milliseconds since 1970 UTC; None for at once.
        file_path: the file.
        bytes_max: a file that has grown larger than this is not read.
    """

    batch_id: str
    timestamp: int
    entry_count: int
    retry_count: int
    last_error: str
    failed_at: int
    last_retry_at: int | None
    next_retry_at: int | None
    file_path: str
    bytes_max: int = field(repr=False)

    def load(self) -> FailedBatch:
        """The batch as it is on the disk now.

        Raises:
            BatchFileDamaged, BatchVersionUnknown: it has become unreadable.
            OSError: the disk refuses; FileNotFoundError if it was delivered meanwhile.
        """
        return load_failed(Path(self.file_path), self.bytes_max)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Its entries, read from the disk at each call. Raises what `load` does."""
        return self.load().batch.entries


def load_failed(path: Path, bytes_max: int) -> FailedBatch:
    """A failed or abandoned batch from its file. Raises what `ScannedBatch.load` does."""
    return decode_failed_file(read_file(path, bytes_max), str(path))


@dataclass
class Scan:
    """What one look at the recovery folder found.

    Attributes:
        batches: those that can be read, by file name.
        damaged: files moved to `recovery/errors`, by their old paths, with the reasons.
        left: files that stay where they are and cannot be dealt with, with the reasons.
    """

    batches: list[ScannedBatch] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def scan(folders: Folders, bytes_max: int, clock: Clock, log: Log) -> Scan:
    """Look at every failed-batch file, one at a time.

    Args:
        folders: where to look.
        bytes_max: larger files are not read.
        clock: for the notes.
        log: is told what was moved, and what was left.

    Raises:
        OSError: the recovery folder cannot be listed.
    """
    found = Scan()
    for path in _failed_paths(folders):
        try:
            found.batches.append(_head(load_failed(path, bytes_max), bytes_max))
        except FileNotFoundError:
            continue  # delivered since the folder was listed
        except BatchFileDamaged as error:
            _put_away(path, str(error), folders, found, clock, log)
        except (BatchVersionUnknown, OSError) as error:
            found.left[str(path)] = str(error)
            log.warning("batch_left", file=str(path), reason=str(error))
    return found


def _failed_paths(folders: Folders) -> Iterator[Path]:
    """By name. A folder that is missing has none; one that cannot be listed is an error."""
    try:
        names = sorted(name for name in os.listdir(folders.recovery) if name.endswith(".failed.json"))
    except FileNotFoundError:
        return
    yield from (folders.recovery / name for name in names)


def _head(failed: FailedBatch, bytes_max: int) -> ScannedBatch:
    return ScannedBatch(
        failed.batch_id, failed.batch.timestamp, len(failed.batch.entries), failed.retry_count, failed.last_error,
        failed.failed_at, failed.last_retry_at, failed.next_retry_at, str(failed.file_path), bytes_max,
    )  # fmt: skip


def _put_away(path: Path, reason: str, folders: Folders, found: Scan, clock: Clock, log: Log) -> None:
    """Move a file to `recovery/errors`, its note first: a file there without a reason would tell nobody anything."""
    note = f"{utc_text(clock.now_ns())} {reason}\n".encode("utf-8", "replace")
    try:
        with recovery_lock(folders, clock, LOCK_WAIT_S):
            if not os.path.lexists(path):  # another process has just moved it
                return
            target = _free_name(folders.errors / path.name)
            write_file(target.with_name(target.name + REASON_SUFFIX), note)
            move_file(path, target)
    except (OSError, Busy) as error:
        found.left[str(path)] = f"{reason}; and it cannot be moved to {folders.errors}: {str(error) or error.__doc__}"
        log.error("batch_left", file=str(path), reason=found.left[str(path)])
        return
    found.damaged[str(path)] = reason
    log.warning("batch_unreadable", file=str(path), moved_to=str(target), reason=reason)


def _free_name(target: Path) -> Path:
    number, path = 1, target
    while os.path.lexists(path):
        number += 1
        path = target.with_name(f"{target.name}.{number}")
    return path
