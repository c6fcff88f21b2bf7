"""Many journals below one folder: one for each process that writes, found by the one that reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from totalizer.errors import JournalBusy, JournalFailed
from totalizer.journal.disk import DISK, Disk
from totalizer.journal.folder import IDENTITY_NAME, FolderLock, check_folder
from totalizer.journal.journal import Journal
from totalizer.journal.recovery import recover

#: Journals of one prefix below one root.
CLAIM_MAX = 1024


def journals_in(root: Path, on_refusal: Callable[[Path, OSError], None] | None = None) -> list[Path]:
    """Every folder below `root` that holds a journal, or `root` itself; sorted, [] if there is none.

    A journal whose `journal.json` is gone counts by its segments: `recover_idle` makes it readable again.
    Symbolic links are not followed.

    Args:
        root: need not exist.
        on_refusal: called for each folder that cannot be listed; without it, the first one raises.

    Raises:
        JournalFailed: a folder cannot be listed, and there is no `on_refusal`.
    """
    found = []

    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            return
        if on_refusal is None:
            raise JournalFailed(f"journals below {root} cannot be listed: {error}") from error
        on_refusal(Path(error.filename or root), error)

    for path, folders, files in os.walk(root, onerror=refuse):
        if IDENTITY_NAME in files or any(name.endswith(".segment") for name in files):
            found.append(Path(path))
            folders.clear()
    return sorted(found)


def claim(root: Path, prefix: str, **open_kwargs: Any) -> Journal:
    """Open the first of `root/prefix-0`, `root/prefix-1`, … that no living process has open, new or old.

    Args:
        root: made if missing.
        prefix: of the folders' names.
        open_kwargs: for `Journal.open`.

    Raises:
        JournalBusy: CLAIM_MAX are in use.
        JournalFailed, ValueError: as `Journal.open`.
    """
    for index in range(CLAIM_MAX):
        try:
            return Journal.open(root / f"{prefix}-{index}", **open_kwargs)
        except JournalBusy:
            continue
    raise JournalBusy(f"all of {root}/{prefix}-0 to {prefix}-{CLAIM_MAX - 1} are in use")


def recover_idle(folder: Path, *, disk: Disk = DISK) -> bool:
    """Put a journal whose writer is gone in order, so that all of it can be read. Cheap if it is.

    Returns:
        False if a process has it open, or is just recovering it; nothing was done then.

    Raises:
        JournalFailed: the disk refuses, or the folder is not one to write into.
    """
    check_folder(folder)
    lock = FolderLock(folder)
    try:
        if not lock.acquire("recovering"):
            return False
        try:
            recover(folder, disk)
        finally:
            lock.release()
    except OSError as error:
        raise JournalFailed(f"the journal in {folder} cannot be recovered: {error}") from error
    return True
