"""The files of the batching library, one at a time: whether they decode, and whether others could read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from totalizer.clock import Clock
from totalizer.edge.batch import Batch, decode_batch_file, decode_failed_file
from totalizer.edge.daemon.cleanup import IMPORTED
from totalizer.edge.daemon.scan import REASON_SUFFIX
from totalizer.edge.entry import EntryEncoder
from totalizer.edge.folder import DRAFT_SUFFIX, Folders, is_being_written
from totalizer.edge.integrity.sightings import DELIVERED, Sightings
from totalizer.edge.integrity.verdict import Finding, Level, Verdict, notes, problems
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, ValidationError
from totalizer.prepared import prepared

#: Bytes of the longest file that is read.
FILE_BYTES_MAX = 256 * 1024 * 1024
#: Bytes of the longest entry; what an aggregator may be told to take at most.
ENTRY_BYTES_MAX = 4 << 20
#: Wrong entries of a file that are named.
_NAMED_MAX = 5


@prepared
class _Health(msgspec.Struct):
    timestamp: int
    status: str


class FileCheck:
    """Checks the files below one data folder.

    Args:
        folders: where they are.
        sightings: of the entries of all files.
        full: also hold every entry against what an aggregator takes.
        clock: for what is in the future.
    """

    def __init__(self, folders: Folders, sightings: Sightings, *, full: bool, clock: Clock) -> None:
        self._folders, self._sightings, self._full, self._clock = folders, sightings, full, clock
        self._owner = os.stat(folders.data).st_uid
        self._encoder = EntryEncoder(entry_bytes_max=ENTRY_BYTES_MAX, redact_keys=())

    def verdicts(self) -> Iterator[Verdict]:
        """A verdict for each folder and each file in it. Files that go meanwhile are passed over."""
        folders = self._folders
        for folder in (
            folders.data, folders.data / IMPORTED, folders.journal, folders.recovery, folders.abandoned,
            folders.errors, folders.health, folders.logs,
        ):  # fmt: skip
            if folder.is_dir():
                yield Verdict(folder, "folder", 0, tuple(self._access(folder, os.lstat(folder))))
                yield from self._files(folder)

    def _files(self, folder: Path) -> Iterator[Verdict]:
        for path in sorted(folder.iterdir()):
            try:
                status = os.lstat(path)
                if not stat.S_ISDIR(status.st_mode):
                    yield self._verdict(folder, path, status)
            except FileNotFoundError:  # delivered, recovered or cleaned up meanwhile
                continue

    def _verdict(self, folder: Path, path: Path, status: os.stat_result) -> Verdict:
        kind, check = self._kind(folder, path.name)
        if not stat.S_ISREG(status.st_mode):
            return Verdict(path, kind, 0, tuple(problems(["it is a link or no ordinary file; remove it"])))
        findings = list(self._access(path, status))
        if status.st_size > FILE_BYTES_MAX:
            return Verdict(path, kind, 0, (*findings, *problems([f"it has {status.st_size} bytes: too large to read"])))
        try:
            entries, more = check(path)
        except PermissionError as error:
            entries, more = 0, list(problems([f"it cannot be read: {error.strerror}"]))
        return Verdict(path, kind, entries, (*findings, *more))

    def _kind(self, folder: Path, name: str) -> tuple[str, Callable[[Path], tuple[int, list[Finding]]]]:
        folders = self._folders
        if name.startswith(".") and name.endswith(DRAFT_SUFFIX):
            return "draft", _draft
        if folder == folders.errors:
            return ("other", _nothing) if name.endswith(REASON_SUFFIX) else ("set aside", _set_aside)
        if folder == folders.recovery and name.endswith(".failed.json"):
            return "failed", self._failed
        if folder == folders.abandoned and name.endswith(".abandoned.json"):
            return "abandoned", self._failed
        if folder in (folders.data, folders.data / IMPORTED) and name.startswith("batch_") and name.endswith(".json"):
            return DELIVERED, self._batch
        if folder == folders.health and name.startswith("health-") and name.endswith(".json"):
            return "health", _health
        return "other", _nothing

    def _access(self, path: Path, status: os.stat_result) -> Iterator[Finding]:
        mode = stat.S_IMODE(status.st_mode)
        wanted = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
        if mode & 0o077:
            yield Finding(
                Level.PROBLEM, f"others have access to it (mode {mode:04o}): chmod {wanted:o} '{path}'"
            )  # fmt: skip
        if status.st_uid != self._owner:
            yield Finding(
                Level.PROBLEM, f"it belongs to user {status.st_uid}, its folder's data to user {self._owner}: chown it"
            )

    def _batch(self, path: Path) -> tuple[int, list[Finding]]:
        try:
            batch = decode_batch_file(path.read_bytes(), path.name)
        except (BatchFileDamaged, BatchVersionUnknown) as error:
            return 0, list(problems([str(error)]))
        return self._entries(path, DELIVERED, batch)

    def _failed(self, path: Path) -> tuple[int, list[Finding]]:
        try:
            failed = decode_failed_file(path.read_bytes(), path.name)
        except (BatchFileDamaged, BatchVersionUnknown) as error:
            return 0, list(problems([str(error)]))
        kind = path.name.rsplit(".", 2)[1]
        count, findings = self._entries(path, kind, failed.batch)
        if kind == "abandoned":
            text = f"given up: {failed.last_error[:200]}; `totalizer aggregation requeue` has it tried again"
            findings.extend(notes([text]))
        return count, findings

    def _entries(self, path: Path, kind: str, batch: Batch) -> tuple[int, list[Finding]]:
        findings = list(self._sightings.see(path, kind, batch.entries))
        if not path.name.startswith(f"batch_{batch.batch_id}"):
            findings.extend(notes([f"its batch is called {batch.batch_id}, its name says otherwise"]))
        if self._full:
            findings.extend(problems(self._wrong_entries(batch)))
        return len(batch.entries), findings

    def _wrong_entries(self, batch: Batch) -> Iterator[str]:
        wrong, now_ns = 0, self._clock.now_ns()
        for index, entry in enumerate(batch.entries):
            try:
                self._encoder.encode(entry, now_ns)
            except (ValidationError, OverflowError) as error:
                wrong += 1
                if wrong <= _NAMED_MAX:
                    yield f"entry {index}: {error}"
        if wrong > _NAMED_MAX:
            yield f"… and {wrong - _NAMED_MAX} more entries that no server takes"


def _nothing(_: Path) -> tuple[int, list[Finding]]:
    return 0, []


def _draft(path: Path) -> tuple[int, list[Finding]]:
    if is_being_written(path):
        return 0, []
    return 0, list(notes(["left by a process that was killed while writing; the next start removes it"]))


def _set_aside(path: Path) -> tuple[int, list[Finding]]:
    note = path.with_name(path.name + REASON_SUFFIX)
    reason = note.read_text(errors="replace").strip()[:300] if note.is_file() else "it cannot be read"
    return 0, list(problems([f"set aside: {reason}. Mend it and put it back, or remove it"]))


def _health(path: Path) -> tuple[int, list[Finding]]:
    try:
        msgspec.json.decode(path.read_bytes(), type=_Health)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return 0, list(problems([f"it is no health file: {error}"]))
    return 0, []
