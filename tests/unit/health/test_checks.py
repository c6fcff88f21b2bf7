"""Each check by itself: where it is content, where it warns, where it is critical, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from totalizer.edge.daemon.machine import SystemHealth
from totalizer.health.check import Levels
from totalizer.health.facts import ApiFigures, DatabaseAnswer, JobFact, JournalFact
from totalizer.health.report import judge
from totalizer.health.table import CHECKS
from unit.health.parts import AWAY, GIB, database, facts, machine


def journal(size: int = 0, behind_s: float | None = 0.0) -> dict[str, Any]:
    return {"journals": (JournalFact("api-0", 1, 0.0), JournalFact("api-1", size, behind_s))}


def job(**changed: Any) -> dict[str, Any]:
    return {"database": database(jobs=[JobFact("quiet"), JobFact(**{"name": "verify", **changed})])}


def usage(seen: bool = True, **changed: Any) -> dict[str, Any]:
    fact = JobFact("usage_aggregation", state="done", **changed)
    return {"database": database(jobs=[fact], usage_seen=seen)}


CASES = [
    ("database", {}, "ok"),
    ("database", {"database": database(took_ms=1000.0)}, "ok"),
    ("database", {"database": database(took_ms=1001.0)}, "warning"),
    ("database", {"database": AWAY}, "critical"),
    ("connections", {"database": database(connections=80)}, "ok"),
    ("connections", {"database": database(connections=81)}, "warning"),
    ("connections", {"database": database(connections=96)}, "critical"),
    ("redis", {"redis": "not configured"}, "ok"),
    ("redis", {"redis": "cannot be reached"}, "warning"),
    ("clock_skew", {"database": database(skew_s=-2.0)}, "ok"),
    ("clock_skew", {"database": database(skew_s=-2.1)}, "warning"),
    ("clock_skew", {"database": database(skew_s=31.0)}, "critical"),
    ("disk", {"machine": machine(free=9 * GIB)}, "warning"),
    ("disk", {"machine": machine(free=11 * GIB, total=1000 * GIB)}, "ok"),
    ("disk", {"machine": machine(free=GIB // 2)}, "critical"),
    ("disk", {"machine": machine(free=2 * GIB)}, "warning"),
    ("disk", {"machine": machine(free=100 << 20, total=1 << 30)}, "warning"),
    ("disk", {"machine": machine(free=10 << 20, total=1 << 30)}, "critical"),
    ("disk", {"machine": SystemHealth(machine().memory_usage, None)}, "critical"),
    ("memory", {"machine": machine(used=0.80)}, "ok"),
    ("memory", {"machine": machine(used=0.81)}, "warning"),
    ("memory", {"machine": machine(used=0.96)}, "critical"),
    ("memory", {"machine": None}, "unknown"),
    ("journal_quota", journal(500), "ok"),
    ("journal_quota", journal(501), "warning"),
    ("journal_quota", journal(801), "critical"),
    ("journal_quota", {"journals": None}, "critical"),
    ("batches", {"batches": ("warning", ("two wait",))}, "warning"),
    ("batches", {"batches": ("critical", ("no daemon",))}, "critical"),
    ("loader_lag", journal(behind_s=60.0), "ok"),
    ("loader_lag", journal(behind_s=61.0), "warning"),
    ("loader_lag", journal(behind_s=601.0), "critical"),
    ("loader_lag", journal(behind_s=None), "unknown"),
    ("rollup_lag", {"database": database(marks=3, oldest_mark_s=60.0)}, "ok"),
    ("rollup_lag", {"database": database(marks=3, oldest_mark_s=61.0)}, "warning"),
    ("rollup_lag", {"database": database(marks=3, oldest_mark_s=901.0)}, "critical"),
    ("jobs_overdue", job(late_s=-50.0), "ok"),
    ("jobs_overdue", job(late_s=121.0), "warning"),
    ("jobs_overdue", job(over_s=901.0), "critical"),
    ("jobs_failed", job(failures=0), "ok"),
    ("jobs_failed", job(failures=1), "warning"),
    ("jobs_failed", job(failures=2), "warning"),
    ("jobs_failed", job(failures=3), "critical"),
    ("usage_aggregation", usage(took_s=300.0), "ok"),
    ("usage_aggregation", usage(took_s=301.0), "warning"),
    ("usage_aggregation", usage(took_s=1.0, alerts=["errors"]), "warning"),
    ("usage_aggregation", usage(took_s=1.0, alerts=["nothing_aggregated"]), "warning"),
    ("usage_aggregation", usage(seen=False, took_s=1.0, alerts=["nothing_aggregated"]), "ok"),
    ("reconciler", {"database": database(mismatches=1)}, "critical"),
    ("reconciler", {"database": database(compared_s=None)}, "ok"),
    ("success_rate", {"database": database(accepted_hour=19, dead_lettered_hour=19)}, "ok"),
    ("success_rate", {"database": database(accepted_hour=100, dead_lettered_hour=10)}, "ok"),
    ("success_rate", {"database": database(accepted_hour=100, dead_lettered_hour=11)}, "warning"),
    ("success_rate", {"database": database(accepted_hour=100, dead_lettered_hour=21)}, "critical"),
    ("processing_time", {"api": ApiFigures(1, 2, 1000.0)}, "ok"),
    ("processing_time", {"api": ApiFigures(1, 2, 1001.0)}, "warning"),
    ("query_time", {"api": ApiFigures(query_requests=2, query_ms=2001.0)}, "warning"),
    ("quarantine", {"database": database(letters=5)}, "ok"),
    ("quarantine", {"database": database(letters=5, letters_hour=1)}, "warning"),
    ("quarantine", {"database": database(letters_hour=1001)}, "critical"),
    ("journal_damage", {"database": database(gaps_day=1)}, "critical"),
    ("ledger", {"database": database(without_fate=1)}, "critical"),
    ("partitions", {"database": database(partition_days=4)}, "ok"),
    ("partitions", {"database": database(partition_days=3)}, "warning"),
    ("partitions", {"database": database(partition_days=1)}, "critical"),
]


@pytest.mark.parametrize(("name", "changed", "status"), CASES)
def test_where_a_check_warns_and_where_it_is_critical(name: str, changed: dict[str, Any], status: str) -> None:
    result = judge(facts(**changed)).result(name)
    assert (result.status, bool(result.remedy)) == (status, status in ("warning", "critical"))
    assert result.message


def test_every_check_is_among_the_cases_and_can_find_something() -> None:
    assert {name for name, _, _ in CASES} == {check.name for check in CHECKS}
    bad = {name for name, _, status in CASES if status in ("warning", "critical")}
    assert bad == {check.name for check in CHECKS}


def test_all_is_well_when_every_check_is_content() -> None:
    report = judge(facts())
    assert (report.status, report.severity, report.bad) == ("healthy", "normal", ())
    assert report.document()["issues"] == []


def test_the_worst_check_is_the_whole() -> None:
    warned = judge(facts(redis="cannot be reached"))
    assert (warned.status, warned.severity) == ("degraded", "warning")
    both = judge(facts(redis="cannot be reached", database=database(without_fate=1)))
    assert (both.status, both.severity) == ("unhealthy", "critical")
    assert [one.name for one in both.bad] == ["ledger", "redis"]


def test_without_the_database_its_checks_know_nothing_and_the_machines_go_on() -> None:
    report = judge(facts(database=AWAY, machine=machine(used=0.9), journals=(JournalFact("api-0", 900, None),)))
    assert {one.name for one in report.bad} == {"database", "memory", "journal_quota"}
    unknown = {one.name for one in report.results if one.status == "unknown"}
    assert unknown == {
        "connections", "clock_skew", "loader_lag", "rollup_lag", "jobs_overdue", "jobs_failed", "usage_aggregation",
        "reconciler", "success_rate", "quarantine", "journal_damage", "ledger", "partitions",
    }  # fmt: skip


def test_levels_can_be_changed() -> None:
    slow = facts(database=database(took_ms=50.0))
    assert judge(slow, {"database": Levels(10, 40)}).result("database").status == "critical"
    assert judge(facts(database=database(letters_hour=9)), {"quarantine": Levels()}).result("quarantine").status == "ok"


def test_a_problem_names_no_address() -> None:
    answer = DatabaseAnswer(None, "cannot be reached")
    assert judge(facts(database=answer)).result("database").message == "the database cannot be reached"


def test_a_health_file_has_the_keys_that_monitoring_reads() -> None:
    document = judge(facts(redis="cannot be reached")).file_document()
    assert document["status"] == "unhealthy"
    assert document["severity"] == "warning"
    assert document["systemHealth"]["memoryUsage"] == {"used": 500, "total": 1000}
    assert document["systemHealth"]["diskSpace"]["total"] == 100 * GIB
    assert set(document) >= {"timestamp", "issues", "checks"}
