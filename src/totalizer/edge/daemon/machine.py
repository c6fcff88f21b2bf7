"""How the machine is: memory, or the container's share of it, and the disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from totalizer.edge.daemon.needs import need

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryUsage:
    """Memory, in bytes.

    Attributes:
        used: what programs have, without what the system could take back at once.
        total: what there is; in a container with a limit, the limit.
        process: resident memory of this process.
    """

    used: int
    total: int
    process: int


@dataclass(frozen=True)
class DiskSpace:
    """Room on the file system of the batches, in bytes.

    Attributes:
        available: what this user may still take.
        total: its size.
    """

    available: int
    total: int


@dataclass(frozen=True)
class SystemHealth:
    """How the machine is.

    Attributes:
        memory_usage: the machine's, or the container's.
        disk_space: of the batches' file system; None if it cannot be told.
    """

    memory_usage: MemoryUsage
    disk_space: DiskSpace | None


def system_health(data_path: Path) -> SystemHealth:
    """Memory and disk now. ConfigurationError if psutil is not installed."""
    psutil = need("psutil")
    machine = psutil.virtual_memory()
    used, total = container_memory() or (machine.total - machine.available, machine.total)
    return SystemHealth(MemoryUsage(used, total, psutil.Process().memory_info().rss), disk_space(data_path))


def disk_space(folder: Path) -> DiskSpace | None:
    """Room where a folder is; None if the folder is missing or the system does not say."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return DiskSpace(usage.free, usage.total)


def container_memory(cgroup: Path = _CGROUP) -> tuple[int, int] | None:
    """Bytes used and allowed of a container with a memory limit (cgroup v2); None where there is no limit."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no cgroup v2 here, or its limit is the word "max"
        return None
    # The page cache counts as used there, and is taken back when something needs room.
    return max(0, used - int(statistics.get("inactive_file", 0))), limit
