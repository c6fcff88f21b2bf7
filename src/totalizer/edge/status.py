"""What waits, in whatever process, and how flushing goes in all of them: read from their journals' folders."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from totalizer.clock import Clock
from totalizer.edge.backlog import fold, waiting_records
from totalizer.edge.folder import Folders
from totalizer.edge.log import PREFIX
from totalizer.edge.metrics import Counts, Metrics, from_document, to_document
from totalizer.edge.records import added_ms
from totalizer.errors import JournalError
from totalizer.journal import JournalReader, journals_in
from totalizer.journal.folder import LOCK_NAME

METRICS_NAME = "metrics.json"
#: Whoever wants living processes to flush touches this file in the folder of the journals.
FLUSH_REQUESTED_NAME = "flush-requested"


@dataclass(frozen=True)
class JournalStatus:
    """One process' journal.

    Attributes:
        folder: where it is.
        owner_pid: the living process that has it; None if none has.
        unsealed: entries that wait and are in no batch yet.
        sealed_batch: id of the batch that was begun; None if there is none.
        oldest_ms: when the oldest waiting entry was added, milliseconds since 1970 UTC; None if none waits.
        sealed: entries in the batch that was begun.
        error: why the journal cannot be read; None if it can.
    """

    folder: Path
    owner_pid: int | None
    unsealed: int
    sealed_batch: str | None
    oldest_ms: int | None
    sealed: int = 0
    error: str | None = None

    @property
    def waiting(self) -> int:
        """Entries that are not delivered yet."""
        return self.unsealed + self.sealed


def waiting(folders: Folders) -> list[JournalStatus]:
    """Every journal below the folder, living or not. Reads all that waits; changes nothing but quarantined damage."""
    return [journal_status(folder) for folder in edge_journals(folders)]


def edge_journals(folders: Folders) -> list[Path]:
    """Folders of the journals; [] if there are none. JournalFailed if they cannot be listed."""
    return [path for path in journals_in(folders.journal) if path.name.startswith(f"{PREFIX}-")]


def journal_status(folder: Path) -> JournalStatus:
    """One journal."""
    owner = owner_pid(folder)
    try:
        with JournalReader(folder) as reader:
            state = fold(reader)
            batch = state.seal.batch_id if state.seal is not None else None
            first = next(waiting_records(reader, state.start, state.through), None)
            oldest = added_ms(first.payload) if first is not None else None
    except JournalError as error:
        return JournalStatus(folder, owner, 0, None, None, error=str(error))
    return JournalStatus(folder, owner, state.waiting - state.sealed, batch, oldest, state.sealed)


def owner_pid(folder: Path) -> int | None:
    """The living process that has the journal open; None if none has."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # The note in the file outlives its process, and its number may be another's by now: the lock is what counts.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        _, _, pid = os.pread(descriptor, 64, 0).decode(errors="replace").strip().partition(" ")
        return int(pid) if pid.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None


def read_metrics(folders: Folders) -> Counts:
    """The counts of all processes, past ones included, as of their last second or their end."""
    total = Counts()
    for folder in edge_journals(folders):
        total += read_counts(folder)
    return total


def read_counts(folder: Path) -> Counts:
    """The counts kept in one journal's folder; of nothing if there are none or they cannot be read."""
    try:
        return from_document(msgspec.json.decode((folder / METRICS_NAME).read_bytes()))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Counts()


def add_counts(folder: Path, counts: Counts, clock: Clock) -> None:
    """Add to the counts kept in the folder of a journal that is this process'. Never raises: they are for people."""
    with contextlib.suppress(OSError):
        _write_counts(folder, read_counts(folder) + counts, clock)


def _write_counts(folder: Path, counts: Counts, clock: Clock) -> None:
    document: dict[str, Any] = {"pid": os.getpid(), "atMs": clock.now_ns() // 1_000_000} | to_document(counts)
    path, draft = folder / METRICS_NAME, folder / f"{METRICS_NAME}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(document))
    finally:
        os.close(descriptor)
    os.replace(draft, path)


def request_flush(folders: Folders) -> None:
    """Ask every living process to flush what waits; they look once a second. OSError if the disk refuses."""
    if not folders.journal.is_dir():
        return  # nobody ever added anything
    path = folders.journal / FLUSH_REQUESTED_NAME
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    os.utime(path)


class Report:
    """What one process lets others see, and what others ask of it.

    Args:
        folders: of the journals.
        folder: of the process' own.
        metrics: what to tell.
    """

    def __init__(self, folders: Folders, folder: Path, metrics: Metrics, clock: Clock) -> None:
        self._request = folders.journal / FLUSH_REQUESTED_NAME
        self._path, self._metrics, self._clock = folder / METRICS_NAME, metrics, clock
        self._before = read_counts(folder)
        self._written: Counts | None = None
        self._asked_ns = self._requested_ns()

    def flush_requested(self) -> bool:
        """True if somebody has asked for a flush since it was asked last."""
        before, self._asked_ns = self._asked_ns, self._requested_ns()
        return self._asked_ns != before

    def write(self, added: int, lost: int) -> None:
        """Put the counts into the journal's folder if they have changed: whole, but not synced. Never raises.

        Args:
            added: entries that were taken.
            lost: entries that were taken and never became durable, beside those of the counts.
        """
        counts = self._metrics.counts()
        counts.added = added
        counts.lost += lost
        if counts == self._written:
            return
        # The figures are for people; a disk that refuses them shows itself where it matters.
        with contextlib.suppress(OSError):
            _write_counts(self._path.parent, self._before + counts, self._clock)
            self._written = counts

    def _requested_ns(self) -> int:
        try:
            return self._request.stat().st_mtime_ns
        except OSError:
            return 0
