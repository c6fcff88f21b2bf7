"""What Prometheus is told: the same in the text of the command and through its own client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from totalizer.edge import SmartBatchAggregator
from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.metric_families import Family, aggregator_families, text
from totalizer.edge.prometheus import AggregatorCollector, FolderCollector

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(exposition: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def exposed(collector: AggregatorCollector | FolderCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def entry(number: int) -> dict[str, object]:
    return {"userId": "u", "action": f"a{number}", "timestamp": int(time.time() * 1000)}


@pytest.fixture
def aggregator(tmp_path: Path) -> Iterator[SmartBatchAggregator]:
    with SmartBatchAggregator(data_path=tmp_path / "aggregated", batch_size=10, max_age_ms=600_000) as made:
        for number in range(25):
            made.add(entry(number))
        made.flush()
        made.add(entry(25))
        yield made


PREFIX = "totalizer_aggregation_"


def test_the_figures_are_those_of_the_aggregator(aggregator: SmartBatchAggregator) -> None:
    samples = samples_of(exposed(AggregatorCollector(aggregator)))
    performance = aggregator.get_performance_metrics()
    assert samples[f"{PREFIX}entries_total", (("outcome", "added"),)] == 26
    assert samples[f"{PREFIX}entries_total", (("outcome", "processed"),)] == 25
    assert samples[f"{PREFIX}waiting_entries", ()] == 1
    operations = {
        dict(labels)["trigger"]: value
        for (name, labels), value in samples.items()
        if name == f"{PREFIX}operations_total"
    }
    assert sum(operations.values()) == performance.total_operations >= 3
    assert operations["age"] == 0, "a trigger that has not been met yet is there"


def test_the_histogram_is_a_real_one(aggregator: SmartBatchAggregator) -> None:
    samples = samples_of(exposed(AggregatorCollector(aggregator)))
    performance = aggregator.get_performance_metrics()
    name = f"{PREFIX}flush_time_seconds"
    buckets = sorted(
        (float(dict(labels)["le"]), value) for (each, labels), value in samples.items() if each == f"{name}_bucket"
    )
    counts = [value for _, value in buckets]
    assert counts == sorted(counts)
    assert buckets[-1] == (float("inf"), performance.total_operations)
    assert samples[f"{name}_count", ()] == performance.total_operations
    assert samples[f"{name}_sum", ()] == pytest.approx(performance.flush_time_sum_ms / 1000)
    assert (0.5, performance.total_operations) in buckets or performance.max_flush_time_ms > 500


def test_the_command_tells_the_same_without_the_client(aggregator: SmartBatchAggregator) -> None:
    own = text(aggregator_families(aggregator.get_performance_metrics(), aggregator.get_stats()))
    theirs = samples_of(exposed(AggregatorCollector(aggregator)))
    mine = samples_of(own)
    ages = {(f"{PREFIX}oldest_entry_seconds", ())}
    assert {key: value for key, value in mine.items() if key not in ages} == {
        key: value for key, value in theirs.items() if key not in ages
    }


def test_a_daemon_is_told_beside_it(aggregator: SmartBatchAggregator) -> None:
    daemon = CronRecoveryDaemon(aggregator=aggregator)
    samples = samples_of(exposed(AggregatorCollector(aggregator, daemon)))
    assert samples[f"{PREFIX}daemon_running", ()] == 0
    assert samples[f"{PREFIX}recoveries_total", (("outcome", "failed"),)] == 0


def test_a_folder_is_told_with_all_that_was_done_in_it(tmp_path: Path) -> None:
    for _ in range(2):
        with SmartBatchAggregator(data_path=tmp_path / "aggregated") as made:
            made.add(entry(0))
    samples = samples_of(exposed(FolderCollector(tmp_path / "aggregated")))
    assert samples[f"{PREFIX}entries_total", (("outcome", "added"),)] == 2
    assert samples[f"{PREFIX}entries_total", (("outcome", "processed"),)] == 2
    assert samples[f"{PREFIX}failed_batches", ()] == 0


def test_entries_that_damage_has_taken_are_told(tmp_path: Path) -> None:
    with SmartBatchAggregator(data_path=tmp_path / "aggregated", max_age_ms=600_000) as made:
        for number in range(3):
            made.add(entry(number))
        segment = next(made.folders.journal.rglob("*.segment"))
        segment.write_bytes(segment.read_bytes().replace(b'"action":"a1"', b'"action":"??"'))
    assert made.get_stats().lost == 1
    samples = samples_of(exposed(FolderCollector(tmp_path / "aggregated")))
    assert samples[f"{PREFIX}entries_total", (("outcome", "lost"),)] == 1
    assert samples[f"{PREFIX}entries_total", (("outcome", "processed"),)] == 2


def test_what_would_break_a_line_is_escaped() -> None:
    family = Family("x_total", "counter", "X.", (({"name": 'a"b\\c\nd'}, 1.5),))
    assert samples_of(text([family])) == {("x_total", (("name", 'a"b\\c\nd'),)): 1.5}
