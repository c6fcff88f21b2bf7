"""Facts for checks, and reports for alerts."""

from __future__ import annotations

from typing import Any

from totalizer.edge.daemon.machine import DiskSpace, MemoryUsage, SystemHealth
from totalizer.health.facts import ApiFigures, DatabaseAnswer, DatabaseFacts, Facts, JournalFact

GIB = 1 << 30


def database(**changed: Any) -> DatabaseAnswer:
    """The answer of a database where all is well, but for some figures."""
    answer = {name: changed.pop(name) for name in ("took_ms", "skew_s") if name in changed}
    figures: dict[str, Any] = {
        "now_s": 1e9, "marks": 0, "oldest_mark_s": None, "accepted_minute": 0, "accepted_hour": 0,
        "dead_lettered_hour": 0, "without_fate": 0, "letters": 0, "letters_hour": 0, "gaps_day": 0,
        "partition_days": 8, "connections": 5, "connections_max": 100, "offsets": {}, "jobs": [], "mismatches": 0,
        "compared_s": 60.0, **changed,
    }  # fmt: skip
    return DatabaseAnswer(
        DatabaseFacts(**figures), took_ms=answer.get("took_ms", 1.0), skew_s=answer.get("skew_s", 0.0)
    )


AWAY = DatabaseAnswer(None, "cannot be reached")


def machine(*, used: float = 0.5, free: int = 50 * GIB, total: int = 100 * GIB) -> SystemHealth:
    """A machine with so much of its memory in use, and so many bytes left on its disk."""
    return SystemHealth(MemoryUsage(int(used * 1000), 1000, 10), DiskSpace(free, total))


def facts(**changed: Any) -> Facts:
    """Facts where all is well, but for some."""
    given: dict[str, Any] = {
        "at_ms": 1_700_000_000_000, "database": database(), "redis": "ok", "machine": machine(),
        "journals": (JournalFact("api-0", 0, 0.0),), "quota_bytes": 1000, "api": ApiFigures(), **changed,
    }  # fmt: skip
    return Facts(**given)
