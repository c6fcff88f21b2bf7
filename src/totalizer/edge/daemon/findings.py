"""What a health check holds against the figures: the thresholds, each in a function of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from totalizer.edge.daemon.machine import SystemHealth
from totalizer.edge.daemon.options import DAY_MS

if TYPE_CHECKING:
    from totalizer.edge.daemon.health import DaemonHealth
    from totalizer.edge.daemon.performance import Recent

#: Parts of flushes that deliver; below them a warning, or worse.
SUCCESS_RATE_WARNING = 0.90
SUCCESS_RATE_CRITICAL = 0.80
#: Milliseconds of a flush, on average.
PROCESSING_MS_WARNING = 500.0
#: Part of the memory in use.
MEMORY_WARNING = 0.80
#: Little room is what is less than both: a part of a small disk, or an amount on a large one.
DISK_PART_WARNING, DISK_BYTES_WARNING = 0.10, 10 << 30
DISK_PART_CRITICAL, DISK_BYTES_CRITICAL = 0.05, 1 << 30
#: Milliseconds after which a failed batch that still waits is worth a look.
FAILED_AGE_MS_WARNING = DAY_MS
#: The daemon lags if its last scan ended longer ago than so many of its intervals.
LAG_INTERVALS = 3
#: And never sooner than this, milliseconds: short intervals are for tests and small machines.
LAG_MS_MIN = 10_000


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        key: its name, the same as long as it stands.
        severity: `warning` or `critical`.
        message: a sentence with the figure.
    """

    key: str
    severity: str
    message: str


def findings(
    daemon: DaemonHealth, recent: Recent, system: SystemHealth, *, now_ms: int, schedule_interval_ms: int
) -> Iterator[Finding]:
    """Everything that is wrong.

    Args:
        daemon: how the daemon is.
        recent: what the aggregators did lately.
        system: how the machine is.
        now_ms: milliseconds since 1970 UTC.
        schedule_interval_ms: from one scan to the next.
    """
    yield from _flushes(recent)
    yield from _memory(system)
    yield from _disk(system)
    yield from _batches(daemon, now_ms)
    yield from _lag(daemon, schedule_interval_ms)


def _flushes(recent: Recent) -> Iterator[Finding]:
    rate = recent.success_rate
    if rate < SUCCESS_RATE_WARNING:
        severity, limit = (
            ("critical", SUCCESS_RATE_CRITICAL) if rate < SUCCESS_RATE_CRITICAL else ("warning", SUCCESS_RATE_WARNING)
        )
        yield Finding("success_rate", severity, f"success rate of flushes is {rate:.1%}, below {limit:.0%}")
    if recent.average_ms > PROCESSING_MS_WARNING:
        yield Finding(
            "processing_time", "warning",
            f"a flush takes {recent.average_ms:.0f} ms on average, more than {PROCESSING_MS_WARNING:.0f} ms",
        )  # fmt: skip


def _memory(system: SystemHealth) -> Iterator[Finding]:
    memory = system.memory_usage
    if memory.total and memory.used / memory.total > MEMORY_WARNING:
        part = memory.used / memory.total
        yield Finding("memory", "warning", f"{part:.0%} of the memory is in use, more than {MEMORY_WARNING:.0%}")


def _disk(system: SystemHealth) -> Iterator[Finding]:
    space = system.disk_space
    if space is None:
        yield Finding("disk", "critical", "the folder of the batches cannot be looked at: is its disk there?")
        return
    part = space.available / space.total if space.total else 0.0
    message = f"{space.available >> 20} MiB are left on the disk of the batches, {part:.1%}"
    if part < DISK_PART_CRITICAL and space.available < DISK_BYTES_CRITICAL:
        yield Finding("disk", "critical", message)
    elif part < DISK_PART_WARNING and space.available < DISK_BYTES_WARNING:
        yield Finding("disk", "warning", message)


def _batches(daemon: DaemonHealth, now_ms: int) -> Iterator[Finding]:
    if daemon.abandoned_batches:
        yield Finding(
            "abandoned", "warning",
            f"abandoned batches: {daemon.abandoned_batches}; look at their reasons, then put them back or remove them",
        )  # fmt: skip
    if daemon.unreadable_files:
        yield Finding("unreadable", "warning", f"files that cannot be read as batches: {daemon.unreadable_files}")
    if daemon.oldest_failed_at is not None and now_ms - daemon.oldest_failed_at > FAILED_AGE_MS_WARNING:
        hours = (now_ms - daemon.oldest_failed_at) // 3_600_000
        yield Finding("old_failed", "warning", f"a failed batch has been waiting for {hours} hours")


def _lag(daemon: DaemonHealth, schedule_interval_ms: int) -> Iterator[Finding]:
    if daemon.lag_ms is not None and daemon.lag_ms > max(LAG_MS_MIN, LAG_INTERVALS * schedule_interval_ms):
        seconds = daemon.lag_ms / 1000
        yield Finding("lag", "critical", f"the last scan for failed batches ended {seconds:.0f} s ago")
