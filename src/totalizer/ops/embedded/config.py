"""The configuration of the embedded PostgreSQL, sized for this machine.

It is written to `totalizer.conf` in the data folder at every start. `ALTER SYSTEM` is stronger: what an operator sets
that way stays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from totalizer.ops.embedded.folders import Folders
from totalizer.ops.process import memory_bytes

MIB = 1 << 20

#: Connections beyond those of the pools: loader, scheduler, migrate, people.
MAX_CONNECTIONS = 60
#: Shared buffers: a quarter of the memory, within these bounds. The operating system caches the rest.
SHARED_BUFFERS_MIN = 32 * MIB
SHARED_BUFFERS_MAX = 256 * MIB
#: Parallel queries keep their shared memory in /dev/shm; a container's default of 64 MiB is too small for them.
SHM_BYTES_MIN = 256 * MIB


@dataclass(frozen=True)
class PostgresConfig:
    """What may differ between two starts.

    Attributes:
        max_connections: at least 10.
        fsync: False only for tests that throw the data away; it loses data when the machine stops.
        socket_mode: octal mode of the socket; the folder around it is closed to others anyway.
    """

    max_connections: int = MAX_CONNECTIONS
    fsync: bool = True
    socket_mode: str = "0700"

    def text(self, folders: Folders) -> str:
        """The content of totalizer.conf."""
        settings = {
            **_access(folders, self.socket_mode, self.max_connections),
            **_memory(memory_bytes()),
            **_durability(self.fsync),
            **_UPKEEP,
            **_LOGGING,
        }
        lines = [f"{name} = {_quoted(str(value))}" for name, value in settings.items()]
        head = "# Written by `totalizer up` at every start. Use ALTER SYSTEM to set something else for good.\n"
        return head + "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _access(folders: Folders, socket_mode: str, max_connections: int) -> dict[str, object]:
    return {
        "listen_addresses": "",
        "unix_socket_directories": folders.postgres_sockets,
        "unix_socket_permissions": socket_mode,
        "password_encryption": "scram-sha-256",
        "max_connections": max_connections,
        # Every partition that a statement touches takes a lock; a year of days is several hundred.
        "max_locks_per_transaction": 1024,
        # In the title of every server process: by it, orphans of a killed server are found.
        "cluster_name": cluster_name(folders),
    }


def cluster_name(folders: Folders) -> str:
    """The name of this data folder's server in the titles of its processes."""
    return f"totalizer-{folders.key}"


def _memory(total: int) -> dict[str, object]:
    shared = min(max(total // 4, SHARED_BUFFERS_MIN), SHARED_BUFFERS_MAX)
    settings: dict[str, object] = {
        "shared_buffers": f"{shared // MIB}MB",
        "effective_cache_size": f"{max(total // 2, SHARED_BUFFERS_MIN) // MIB}MB",
        "work_mem": "16MB",
        "maintenance_work_mem": f"{min(max(total // 16, 16 * MIB), 128 * MIB) // MIB}MB",
        "huge_pages": "off",
        "random_page_cost": "1.1",
        "jit": "off",
    }
    if os.path.ismount("/dev/shm") and _size("/dev/shm") < SHM_BYTES_MIN:
        settings["dynamic_shared_memory_type"] = "mmap"
    return settings


def _size(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_frsize * status.f_blocks


def _durability(fsync: bool) -> dict[str, object]:
    switch = "on" if fsync else "off"
    return {
        "fsync": switch,
        "synchronous_commit": switch,
        "full_page_writes": switch,
        # Few, spread checkpoints: each one makes the next change of a page write the whole page to the log.
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "min_wal_size": "256MB",
        "max_wal_size": "4GB",
        "wal_compression": "on",
        "wal_buffers": "16MB",
    }


_UPKEEP: dict[str, object] = {
    "autovacuum_naptime": "15s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_vacuum_insert_scale_factor": "0.1",
    "autovacuum_analyze_scale_factor": "0.05",
    "autovacuum_vacuum_cost_limit": "1000",
}

_LOGGING: dict[str, object] = {
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_lock_waits": "on",
    # A statement that sets a password must not get into the log when it fails.
    "log_min_error_statement": "panic",
}
