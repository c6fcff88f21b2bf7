"""All checks together: one status, and the documents that say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from totalizer.health.check import CRITICAL, STATUSES, WARNING, CheckResult, Levels, run
from totalizer.health.facts import Facts
from totalizer.health.table import BY_NAME, CHECKS

#: What the whole is called by its worst check.
HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"


@dataclass(frozen=True)
class Report:
    """What all checks found.

    Attributes:
        facts: what they looked at.
        results: one for each check, in the order of the table.
    """

    facts: Facts
    results: tuple[CheckResult, ...]

    @property
    def severity(self) -> str:
        """`normal`, `warning` or `critical`: that of the worst check."""
        worst = max((each.status for each in self.results), key=STATUSES.index)
        return worst if worst in (WARNING, CRITICAL) else "normal"

    @property
    def status(self) -> str:
        """`healthy`; `degraded`, if something wants a look; `unhealthy`, if something is critical."""
        return {"normal": HEALTHY, WARNING: DEGRADED, CRITICAL: UNHEALTHY}[self.severity]

    @property
    def bad(self) -> tuple[CheckResult, ...]:
        """The checks that found something, the worst first."""
        return tuple(sorted((one for one in self.results if one.bad), key=lambda one: -STATUSES.index(one.status)))

    def result(self, name: str) -> CheckResult:
        """The result of one check."""
        return next(each for each in self.results if each.name == name)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "status": self.status, "severity": self.severity, "timestamp": self.facts.at_ms,
            "issues": [f"{each.name}: {each.message}" for each in self.bad],
            "checks": [each.document() for each in self.results],
        }  # fmt: skip

    def performance_document(self) -> dict[str, Any]:
        """The figures of the last minute.

        What there is nothing to measure for is 0; what the database does not tell is None."""
        facts, api = self.facts.database.facts, self.facts.api
        return {
            "ingestion_rate": None if facts is None else round(facts.accepted_minute / 60, 3),
            "processing_latency_ms": round(api.processing_ms or 0.0, 3),
            "query_response_time_ms": round(api.answering_ms or 0.0, 3),
            "memory_usage_mb": round(api.memory_bytes / 1e6, 1),
            "active_connections": None if facts is None else facts.connections,
            "cache_hit_rate": round(api.cache_hit_rate, 4),
            "window_s": 60,
            "processes": api.processes,
            "timestamp": self.facts.at_ms,
        }

    def file_document(self) -> dict[str, Any]:
        """As a health file has it: with the keys that monitoring of the batching library reads, too."""
        machine = self.facts.machine
        system: dict[str, Any] = {}
        if machine is not None:
            system["memoryUsage"] = {"used": machine.memory_usage.used, "total": machine.memory_usage.total}
            if (space := machine.disk_space) is not None:
                system["diskSpace"] = {"available": space.available, "total": space.total}
        document = {**self.document(), "status": "healthy" if self.severity == "normal" else "unhealthy"}
        return {**document, "systemHealth": system}


def judge(facts: Facts, levels: Mapping[str, Levels] | None = None) -> Report:
    """Every check, held against the facts.

    Args:
        facts: what was gathered.
        levels: those that are not as shipped, by the check's name.
    """
    changed = levels or {}
    return Report(facts, tuple(run(check, facts, changed.get(check.name, check.levels)) for check in CHECKS))


def levels_of(name: str, changed: Mapping[str, Levels]) -> Levels:
    """The levels of a check."""
    return changed.get(name, BY_NAME[name].levels)
