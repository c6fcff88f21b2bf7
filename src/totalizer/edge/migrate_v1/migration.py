"""Migrating the batch files of a folder: planned, written down, done step by step; each step can be done again.

For every file: its original is copied to `v1-backup/`, the new file is written, the original is removed; each is
durable before the next begins, and the manifest, which says what will be where, before the first. After a crash at any
point the same command goes on, and `rollback` leads back.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.batch import Batch, FailedBatch
from totalizer.edge.folder import Folders, remove_file, write_file
from totalizer.edge.migrate_v1.document import Converted, convert_document
from totalizer.edge.migrate_v1.manifest import (
    BACKUP_NAME,
    Manifest,
    Step,
    digest_of,
    digest_of_file,
    load_manifest,
    store_manifest,
)
from totalizer.edge.migrate_v1.report import FileReport, MigrationReport, Outcome
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, OperationError
from totalizer.journal.disk import DISK, Disk
from totalizer.journal.folder import FolderLock, make_folder

#: Bytes of the longest file that is read; a batch of the largest size has a hundredth of it.
FILE_BYTES_MAX = 256 * 1024 * 1024
#: Folders below the source in which batch files lie.
FOLDERS = ("", "recovery", "recovery/abandoned")


@dataclass(frozen=True)
class _Plan:
    steps: list[Step]
    reports: list[FileReport]


def migrate(
    source: Path,
    folders: Folders,
    *,
    zone: tzinfo | None = None,
    dry_run: bool = False,
    clock: Clock = SYSTEM_CLOCK,
    disk: Disk = DISK,
) -> MigrationReport:
    """Convert the batch files of a folder, or one file, to version 2.0.0.

    Args:
        source: the folder, or the file. Originals go to `v1-backup/` in it, or beside it.
        folders: where the new files go: delivered batches to the data folder, the others to `recovery/`.
        zone: of times that are written without one; a file with such a time is left if it is None.
        dry_run: only say what would be done; nothing is written.
        clock: for the date in the manifest, and for what is in the future.
        disk: the system calls; tests pass one that fails.

    Raises:
        OperationError: there is nothing to convert, another process is at it, or the disk refuses; what was done so far
            is whole, and the same call goes on with the rest.
    """
    root, candidates = _candidates(source)
    if dry_run:
        return MigrationReport(root, folders.data, True, tuple(_plan(root, candidates, folders, zone, clock).reports))
    try:
        folders.make(disk)
        with migrating(root, disk):
            plan = _plan(root, candidates, folders, zone, clock)
            if plan.steps:
                _write_down(root, plan.steps, clock, disk)
            changed = [step.source for step in plan.steps if not _do(root, step, zone, clock, disk)]
    except OSError as error:
        raise OperationError(
            f"the migration of {root} has stopped: {error}. What was done is whole; run it again to go on"
        ) from error
    return MigrationReport(root, folders.data, False, tuple(_corrected(plan.reports, changed)))


@contextlib.contextmanager
def migrating(root: Path, disk: Disk) -> Iterator[None]:
    """Keep others from migrating the same folder, or undoing that, at the same time. OperationError if one does."""
    make_folder(root / BACKUP_NAME, disk)
    lock = FolderLock(root / BACKUP_NAME)
    if not lock.acquire("migrating"):
        raise OperationError(f"another process is migrating {root}; wait until it has ended")
    try:
        yield
    finally:
        lock.release()


def _candidates(source: Path) -> tuple[Path, list[Path]]:
    """The source folder and the files in it that may be batch files."""
    source = source.expanduser().absolute()
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise OperationError(f"{source} does not exist; name the folder with the batch files of version 1, or one file")
    found = [
        path for name in FOLDERS for path in sorted((source / name).glob("*.json")) if not path.name.startswith(".")
    ]
    if not found and load_manifest(source) is None:
        raise OperationError(f"there is no batch file in {source}: it holds no *.json, nor does its folder recovery/")
    return source, found


def _plan(root: Path, candidates: list[Path], folders: Folders, zone: tzinfo | None, clock: Clock) -> _Plan:
    plan, taken = _Plan([], []), dict[str, Step]()
    for path in candidates:
        name = path.relative_to(root).as_posix()
        try:
            found = _read(path, zone, clock)
            if found is None:
                plan.reports.append(FileReport(name, Outcome.CURRENT))
                continue
            step = _step(name, path, found, folders)
            _check(root, path, step, taken)
        except (BatchFileDamaged, BatchVersionUnknown) as error:
            plan.reports.append(FileReport(name, Outcome.LEFT, reason=str(error)))
            continue
        notes = found.notes
        if step.target in taken:
            notes += (f"the same batch as in {taken[step.target].source}; it is counted once",)
        taken.setdefault(step.target, step)
        plan.steps.append(step)
        plan.reports.append(FileReport(name, Outcome.CONVERTED, step.target, step.entries, notes))
    return plan


def _read(path: Path, zone: tzinfo | None, clock: Clock) -> Converted | None:
    if path.is_symlink() or not path.is_file():
        raise BatchFileDamaged("it is a link or no ordinary file; put the file itself there")
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise BatchFileDamaged(f"it has {size} bytes, more than {FILE_BYTES_MAX}; divide it")
        return convert_document(path.read_bytes(), path.name, zone, clock=clock)
    except OSError as error:
        raise BatchFileDamaged(f"it cannot be read: {error.strerror or error}") from error


def _step(name: str, path: Path, found: Converted, folders: Folders) -> Step:
    digest = digest_of_file(path)
    if digest is None:
        raise BatchFileDamaged("it is gone")
    target = _folder_of(found.batch, folders) / found.batch.file_name
    return Step(name, digest, str(target), digest_of(found.batch.encode()), found.entry_count)


def _folder_of(batch: Batch | FailedBatch, folders: Folders) -> Path:
    if isinstance(batch, Batch):
        return folders.data
    return folders.recovery if batch.abandoned_at is None else folders.abandoned


def _check(root: Path, path: Path, step: Step, taken: dict[str, Step]) -> None:
    """Refuse what would overwrite something."""
    other = taken.get(step.target)
    if other is not None and other.target_digest != step.target_digest:
        raise BatchFileDamaged(
            f"{other.source} holds a batch of the same id with other contents; find out which one counts, and give the "
            "other another batchId"
        )
    target = Path(step.target)
    if target != path and digest_of_file(target) not in (None, step.target_digest):
        raise BatchFileDamaged(f"{target} is there already with other contents")
    if digest_of_file(root / BACKUP_NAME / step.source) not in (None, step.source_digest):
        raise BatchFileDamaged(
            "a file of this name was migrated before, with other contents; undo that with --rollback, or rename this"
        )


def _write_down(root: Path, steps: list[Step], clock: Clock, disk: Disk) -> None:
    manifest = load_manifest(root) or Manifest()
    again = {step.source for step in steps}
    manifest.steps = [step for step in manifest.steps if step.source not in again] + steps
    manifest.migrated_at = clock.now_ns() // 1_000_000
    store_manifest(root, manifest, disk)


def _do(root: Path, step: Step, zone: tzinfo | None, clock: Clock, disk: Disk) -> bool:
    """Do one step; False if the original is not any more what was planned with, and nothing was done."""
    path, target = root / step.source, Path(step.target)
    data = path.read_bytes()
    if digest_of(data) != step.source_digest:
        return False
    found = convert_document(data, path.name, zone, clock=clock)
    assert found is not None
    backup = root / BACKUP_NAME / step.source
    make_folder(backup.parent, disk)
    write_file(backup, data, disk=disk)
    shutil.copystat(path, backup)
    write_file(target, found.batch.encode(), disk=disk)
    if target != path:
        remove_file(path, disk)
    return True


def _corrected(reports: list[FileReport], changed: list[str]) -> Iterator[FileReport]:
    for report in reports:
        if report.source in changed:
            yield replace(
                report, outcome=Outcome.LEFT, target=None, entries=0, reason="it was changed meanwhile; run it again"
            )
        else:
            yield report
