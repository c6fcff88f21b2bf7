"""Everything that can be told of the aggregation in a folder, over all processes, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.daemon.health import Waiting, health_files
from totalizer.edge.daemon.lock import DAEMON_LOCK, holder
from totalizer.edge.daemon.machine import disk_space, system_health
from totalizer.edge.folder import Folders
from totalizer.edge.health_endpoint import folder_health
from totalizer.edge.metric_families import Family, folder_families
from totalizer.edge.metrics import Counts, PerformanceMetrics
from totalizer.edge.status import JournalStatus, read_metrics, waiting
from totalizer.errors import ConfigurationError

#: Failed batches that a detailed overview names.
NAMED_MAX = 100


@dataclass(frozen=True)
class Overview:
    """The aggregation in a folder.

    Attributes:
        folders: where it is.
        now_ms: when this was found, milliseconds since 1970 UTC.
        counts: what all processes have done.
        journals: what waits in them.
        backlog: files in the recovery folder.
        daemon_pid: process of the recovery daemon, 0 if it cannot be told which; None if none runs.
        health: what `GET /health/aggregation` answers.
        system: memory, None if psutil is not installed, and disk.
    """

    folders: Folders
    now_ms: int
    counts: Counts
    journals: list[JournalStatus]
    backlog: Waiting
    daemon_pid: int | None
    health: dict[str, Any]
    system: dict[str, Any]

    @property
    def waiting(self) -> int:
        """Entries that are not delivered yet, in all journals."""
        return sum(journal.waiting for journal in self.journals)

    @property
    def oldest_age_ms(self) -> int | None:
        """How long the oldest of them has waited; None if none waits."""
        oldest = min((journal.oldest_ms for journal in self.journals if journal.oldest_ms is not None), default=None)
        return None if oldest is None else max(self.now_ms - oldest, 0)

    @property
    def performance(self) -> PerformanceMetrics:
        """How flushing goes in all processes."""
        return self.counts.performance()

    def families(self) -> list[Family]:
        """The same for Prometheus."""
        return list(folder_families(self.counts, self.journals, self.backlog, self.now_ms))


def overview(folders: Folders, clock: Clock = SYSTEM_CLOCK) -> Overview:
    """Look at everything. Changes nothing but quarantined damage.

    Raises:
        JournalFailed: the journals cannot be listed.
        OSError: a folder is there and cannot be listed.
    """
    return Overview(
        folders, clock.now_ns() // 1_000_000, read_metrics(folders), waiting(folders), Waiting.in_folders(folders),
        holder(folders.recovery / DAEMON_LOCK), folder_health(folders, clock)[1], _system(folders),
    )  # fmt: skip


def newest_health_check(folders: Folders) -> dict[str, Any] | None:
    """The newest health file, whole; None if there is none that can be read."""
    for path in reversed(health_files(folders.health)):
        try:
            found = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        return found if isinstance(found, dict) else None
    return None


def _system(folders: Folders) -> dict[str, Any]:
    try:
        memory: Any = system_health(folders.data).memory_usage
    except ConfigurationError:  # without psutil there is only the disk to be told of
        memory = None
    return {"memoryUsage": memory, "diskSpace": disk_space(folders.data)}
