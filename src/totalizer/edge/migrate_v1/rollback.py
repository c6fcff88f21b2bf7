"""Undoing a migration: the originals back to where they were, the new files gone, or nothing touched at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from totalizer.edge.folder import remove_file, write_file
from totalizer.edge.migrate_v1.manifest import (
    BACKUP_NAME,
    MANIFEST_NAME,
    Step,
    digest_of_file,
    load_manifest,
)
from totalizer.edge.migrate_v1.migration import migrating
from totalizer.errors import OperationError
from totalizer.journal.disk import DISK, Disk
from totalizer.journal.folder import LOCK_NAME

#: Problems named in a refusal.
_NAMED_MAX = 10


def rollback(source: Path, *, dry_run: bool = False, disk: Disk = DISK) -> list[str]:
    """Put the originals of all migrations of a folder back.

    Originals are restored before new files are removed, and those before the backups, so that a crash at any point
    leaves what the same call finishes.

    Args:
        source: the folder that was migrated, or the file.
        dry_run: only check; nothing is written.
        disk: the system calls; tests pass one that fails.

    Returns:
        The files that are back, relative to the folder.

    Raises:
        OperationError: nothing was migrated there; or a new file was delivered or changed since, or the place of an
            original is taken. Then nothing was touched. Or the disk refuses; then the same call goes on.
    """
    root = source.expanduser().absolute()
    root = root if root.is_dir() else root.parent
    if load_manifest(root) is None:
        raise OperationError(f"nothing was migrated from {root}: there is no {BACKUP_NAME}/{MANIFEST_NAME} in it")
    try:
        with migrating(root, disk):
            manifest = load_manifest(root)
            steps = manifest.steps if manifest is not None else []
            _require_undoable(root, steps)
            if not dry_run:
                _undo(root, steps, disk)
    except OSError as error:
        raise OperationError(f"the rollback of {root} has stopped: {error}; run it again to go on") from error
    return [step.source for step in steps]


def _require_undoable(root: Path, steps: list[Step]) -> None:
    problems = [problem for step in steps if (problem := _problem(root, step)) is not None]
    if problems:
        more = [f"… and {len(problems) - _NAMED_MAX} more"] if len(problems) > _NAMED_MAX else []
        raise OperationError("\n".join(["nothing was rolled back:", *problems[:_NAMED_MAX], *more]))


def _problem(root: Path, step: Step) -> str | None:
    """Why a step cannot be undone; None if it can, or is."""
    original = digest_of_file(root / step.source)
    new = digest_of_file(Path(step.target))
    in_place = root / step.source == Path(step.target)
    if original == step.source_digest:
        return None if in_place or new in (None, step.target_digest) else f"{step.target} was changed since"
    if new is None:
        return f"{step.target} is gone: it was delivered, or removed, since"
    if new != step.target_digest:
        return f"{step.target} was changed since"
    if original is not None and not in_place:
        return f"{root / step.source} is there again, with other contents"
    if digest_of_file(root / BACKUP_NAME / step.source) != step.source_digest:
        return f"{root / BACKUP_NAME / step.source} is gone or was changed"
    return None


def _undo(root: Path, steps: list[Step], disk: Disk) -> None:
    for step in steps:
        backup, original = root / BACKUP_NAME / step.source, root / step.source
        if digest_of_file(original) != step.source_digest:
            write_file(original, backup.read_bytes(), disk=disk)
            shutil.copystat(backup, original)
    for step in steps:
        if Path(step.target) != root / step.source:
            remove_file(Path(step.target), disk)
    for step in steps:
        with contextlib.suppress(FileNotFoundError):
            remove_file(root / BACKUP_NAME / step.source, disk)
    remove_file(root / BACKUP_NAME / MANIFEST_NAME, disk)
    _clear_away(root / BACKUP_NAME)


def _clear_away(folder: Path) -> None:
    """Remove the folders that are empty now; what somebody else put there stays."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / LOCK_NAME)
    for path in (folder / "recovery" / "abandoned", folder / "recovery", folder):
        with contextlib.suppress(OSError):
            path.rmdir()
