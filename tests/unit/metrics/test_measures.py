"""Numbers of several processes, killed and alive, make one sum."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from math import isnan, nan
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client.parser import text_string_to_metric_families

from totalizer.metrics import Measures, metrics_text
from totalizer.metrics.slot import NUMBERS_MAX
from totalizer.metrics.table import ACCEPTED, HEALTH_VALUE, JOURNAL_BYTES, LOAD, LOST, METRICS, PROCESSES, REQUESTS

#: Counts until it is killed; says when it has counted.
CHILD = """
import sys
from pathlib import Path
from totalizer.metrics import MEASURES
from totalizer.metrics.table import ACCEPTED, HEALTH_VALUE, JOURNAL_BYTES, LOAD
MEASURES.open(Path(sys.argv[1]), "api")
MEASURES.count(ACCEPTED, by=1000)
MEASURES.observe(LOAD, 0.004)
MEASURES.set(JOURNAL_BYTES, 500)
sys.stdout.write("counted\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def read(folder: Path) -> dict[str, float]:
    """Sample → value, as Prometheus' own parser reads them."""
    found = {}
    for family in text_string_to_metric_families(metrics_text(folder)):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            assert (sample.name, labels) not in found
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def child(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"counted\n"
    return process


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    process.send_signal(number)
    process.communicate(timeout=30)


def test_a_figure_that_there_is_none_of_is_no_number(tmp_path: Path) -> None:
    measures = Measures()
    measures.open(tmp_path, "monitor")
    measures.set(HEALTH_VALUE, nan, "ledger")
    measures.set(HEALTH_VALUE, 0.5, "disk")
    found = read(tmp_path)
    assert isnan(found[f"{HEALTH_VALUE.name}{{check=ledger}}"])
    assert found[f"{HEALTH_VALUE.name}{{check=disk}}"] == 0.5
    assert f'{HEALTH_VALUE.name}{{check="ledger"}} NaN\n' in metrics_text(tmp_path)
    measures.close()


def test_a_killed_process_loses_nothing_and_its_successor_counts_on(tmp_path: Path) -> None:
    first, second = child(tmp_path), child(tmp_path)
    both = read(tmp_path)
    assert both[ACCEPTED.name] == 2000
    assert both[f"{LOAD.name}_count"] == 2
    assert both[JOURNAL_BYTES.name] == 1000
    assert both[f"{PROCESSES.name}{{component=api}}"] == 2
    end(first, signal.SIGKILL)
    one = read(tmp_path)
    # A counter that fell would be taken for one that began anew, and all it had would be counted twice.
    assert one[ACCEPTED.name] == 2000
    assert one[JOURNAL_BYTES.name] == 500
    assert one[f"{PROCESSES.name}{{component=api}}"] == 1
    third = child(tmp_path)
    assert read(tmp_path)[ACCEPTED.name] == 3000
    assert len(list(tmp_path.glob("*.values"))) == 2, "a successor takes the place of the one that ended"
    for process in (second, third):
        end(process, signal.SIGKILL)
    assert read(tmp_path)[ACCEPTED.name] == 3000


def test_a_histogram_is_cumulated_and_agrees_with_its_count_and_sum(tmp_path: Path) -> None:
    measures = Measures()
    measures.open(tmp_path, "loader")
    for seconds in (0.001, 0.005, 0.006, 3.0, 900.0):
        measures.observe(LOAD, seconds)
    measures.observe(LOAD, 0.04, times=10)
    found = read(tmp_path)
    # A bound belongs to its bucket.
    assert found[f"{LOAD.name}_bucket{{le=0.005}}"] == 2
    assert found[f"{LOAD.name}_bucket{{le=0.01}}"] == 3
    assert found[f"{LOAD.name}_bucket{{le=5.0}}"] == 14
    assert found[f"{LOAD.name}_bucket{{le=+Inf}}"] == found[f"{LOAD.name}_count"] == 15
    assert found[f"{LOAD.name}_sum"] == pytest.approx(903.412)
    measures.close()


def test_threads_lose_nothing(tmp_path: Path) -> None:
    measures = Measures()
    measures.open(tmp_path, "api")
    threads = [Thread(target=lambda: [measures.count(ACCEPTED) for _ in range(20_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(tmp_path)[ACCEPTED.name] == 80_000
    measures.close()


def test_what_another_version_left_is_begun_anew(tmp_path: Path) -> None:
    measures = Measures()
    measures.open(tmp_path, "api")
    measures.count(ACCEPTED, by=7)
    measures.close()
    keys = tmp_path / "api-0.keys"
    keys.write_bytes(keys.read_bytes() + b'["totalizer_of_old", [], 3]\n["totalizer_ingest_events_accepted_total", [')
    assert read(tmp_path)[ACCEPTED.name] == 7, "what comes before is understood"
    measures.open(tmp_path, "api")
    measures.count(ACCEPTED, by=2)
    assert read(tmp_path)[ACCEPTED.name] == 2
    measures.close()


def test_without_room_measurements_are_counted_as_lost_and_nothing_else_is_touched(tmp_path: Path) -> None:
    measures = Measures()
    measures.open(tmp_path, "api")
    measures.count(ACCEPTED, by=5)
    room = NUMBERS_MAX // REQUESTS.size
    for number in range(room + 3):
        measures.observe(REQUESTS, 1.0, "ask", "GET", f"/{number}", "2xx")
    found = read(tmp_path)
    assert found[ACCEPTED.name] == 5
    kept = sum(value for name, value in found.items() if name.startswith(f"{REQUESTS.name}_count"))
    assert kept + found[LOST.name] == room + 3
    assert found[LOST.name] >= 3
    measures.close()


def test_values_of_labels_are_escaped(tmp_path: Path) -> None:
    measures = Measures()
    measures.open(tmp_path, "api")
    measures.observe(REQUESTS, 1.0, "ask", "GET", 'a"b\\c\nd', "2xx")
    families = text_string_to_metric_families(metrics_text(tmp_path))
    routes = {sample.labels.get("route") for family in families for sample in family.samples} - {None}
    assert routes == {'a"b\\c\nd'}
    measures.close()


def test_every_metric_is_there_from_the_start_and_well_named(tmp_path: Path) -> None:
    found = {family.name: family for family in text_string_to_metric_families(metrics_text(tmp_path))}
    for metric in METRICS.values():
        family = found[metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert metric.labels or family.samples
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert not set(metric.labels) & {"organization_id", "organization", "key", "user_id", "le"}
    assert os.listdir(tmp_path) == [], "asking makes nothing"


def test_a_series_of_the_hot_path_is_the_same_metric(tmp_path: Path) -> None:
    measures = Measures()
    measures.open(tmp_path, "api")
    series, counted = measures.series(LOAD), measures.series(ACCEPTED)
    measures.observe(LOAD, 0.02)
    series.observe(0.02)
    series.observe(1000.0)
    counted.add(3)
    measures.count(ACCEPTED)
    found = read(tmp_path)
    assert found[f"{LOAD.name}_bucket{{le=0.025}}"] == 2
    assert found[f"{LOAD.name}_count"] == 3
    assert found[f"{LOAD.name}_sum"] == pytest.approx(1000.04)
    assert found[ACCEPTED.name] == 4
    measures.close()
