"""The folders of the batching library, and how a file gets into one: whole, durable, private, or not at all.

.totalizer/
├── aggregated/                 data_path
│   ├── batch_<id>.json         delivered to the folder
│   ├── imported/               where batch files may be moved by whoever took them over; cleaned up when old
│   ├── journal/                entries that are not delivered yet, one folder for each process
│   └── recovery/               recovery_path
│       ├── batch_<id>.failed.json
│       ├── abandoned/          batch_<id>.abandoned.json
│       └── errors/             what cannot be read
├── health/                     health_path: health-<ms>.json
└── logs/                       aggregation.log, recovery.log
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK
from totalizer.journal.disk import DISK, Disk
from totalizer.journal.folder import make_folder

#: Ends the name of a file that is being written. What a killed process left of them is swept at the next start.
DRAFT_SUFFIX = ".tmp"
#: A draft older than this is of no living process, even if one has the number in its name: writing takes milliseconds.
DRAFT_AGE_S_MAX = 3600


class Folders:
    """Where everything is.

    Args:
        data_path: of the batches; the others follow from it unless they are given.
        recovery_path: of what failed; `data_path/recovery` by default.
        health_path: of health files; `health` beside `data_path` by default.

    Attributes:
        data, journal, recovery, abandoned, errors, health, logs: the folders. They exist after `make`.
    """

    def __init__(
        self, data_path: str | os.PathLike[str], recovery_path: str | os.PathLike[str] | None = None,
        health_path: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        self.data = Path(data_path).expanduser().absolute()
        self.journal = self.data / "journal"
        self.recovery = Path(recovery_path).expanduser().absolute() if recovery_path else self.data / "recovery"
        self.abandoned = self.recovery / "abandoned"
        self.errors = self.recovery / "errors"
        self.health = Path(health_path).expanduser().absolute() if health_path else self.data.parent / "health"
        self.logs = self.data.parent / "logs"

    def make(self, disk: Disk = DISK) -> None:
        """Make those that are missing, mode 0700, durably, and sweep what killed writers left. OSError if refused."""
        for folder in (self.data, self.recovery, self.abandoned, self.errors, self.health, self.logs):
            make_folder(folder, disk)
            sweep_drafts(folder)

    def failed_files(self) -> list[Path]:
        """Failed-batch files, by name; [] if the folder is missing."""
        return sorted(self.recovery.glob("*.failed.json"))

    def abandoned_files(self) -> list[Path]:
        """Abandoned-batch files, by name; [] if the folder is missing."""
        return sorted(self.abandoned.glob("*.abandoned.json"))

    def batch_files(self) -> list[Path]:
        """Delivered batch files, by name; [] if the folder is missing."""
        return sorted(self.data.glob("batch_*.json"))


def write_file(
    path: Path, data: bytes, *, atomic: bool = True, exclusive: bool = False, disk: Disk = DISK
) -> None:  # fmt: skip
    """Put a file in its folder, durably; mode 0600.

    Args:
        path: of the file; one that is there is replaced.
        data: its contents.
        atomic: write a draft, sync it, rename it, sync the folder: after a crash the old or the new file is there.
            False writes in place, which can leave part of it.
        exclusive: a file that is there, whoever made it and however lately, is left as it is: FileExistsError.
        disk: the system calls; tests pass one that fails.

    Raises:
        OSError: the disk refuses. No draft is left.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}{DRAFT_SUFFIX}") if atomic else path
    if not atomic and not exclusive:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path)
    try:
        descriptor = disk.create(draft)
        try:
            disk.write_all(descriptor, data, 0)
            disk.fsync(descriptor)
        finally:
            disk.close(descriptor)
        if atomic and exclusive:
            disk.link(draft, path)
            disk.unlink(draft)
        elif atomic:
            disk.rename(draft, path)
    except OSError:
        if atomic:
            with contextlib.suppress(OSError):
                disk.unlink(draft)
        raise
    disk.sync_folder(path.parent)


def move_file(source: Path, target: Path, disk: Disk = DISK) -> None:
    """Move a file to another folder of the same file system, durably. OSError if the disk refuses."""
    disk.rename(source, target)
    disk.sync_folder(target.parent)
    disk.sync_folder(source.parent)


def remove_file(path: Path, disk: Disk = DISK) -> None:
    """Remove a file, durably; nothing happens if it is gone. OSError if the disk refuses."""
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(path)
    disk.sync_folder(path.parent)


def sweep_drafts(folder: Path) -> None:
    """Remove the drafts of writers that are gone, and old ones. Those of living processes are left."""
    for draft in _drafts(folder):
        with contextlib.suppress(FileNotFoundError):
            if not is_being_written(draft) or _age_s(draft) > DRAFT_AGE_S_MAX:
                draft.unlink()


def _drafts(folder: Path) -> Iterator[Path]:
    return folder.glob(f".*{DRAFT_SUFFIX}")


def is_being_written(draft: Path) -> bool:
    """True if the process that began a draft is still there, or another one that has its number by now."""
    pid = draft.name.split(".")[-3]
    if not pid.isdigit() or int(pid) == 0:
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it lives, as somebody else
        return True
    return True


def _age_s(draft: Path) -> float:
    return SYSTEM_CLOCK.now_ns() / 1e9 - draft.stat().st_mtime
