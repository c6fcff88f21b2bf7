"""Figures of API processes: of the last minute, added up over those that run."""

from __future__ import annotations

from pathlib import Path

import pytest

from totalizer.health.facts import ApiFigures
from totalizer.health.figures import INGEST, QUERY, api_figures
from totalizer.metrics import Measures
from totalizer.metrics.table import ANSWERS, MEMORY, MINUTE_REQUESTS, MINUTE_SECONDS
from totalizer.web.answered import WINDOW_S, Answered


def process(folder: Path, component: str, requests: int, seconds: float) -> Measures:
    """What a process measures that had so many requests of either kind, of so many seconds in all."""
    measures = Measures()
    measures.open(folder, component)
    for kind in (INGEST, QUERY):
        measures.set(MINUTE_REQUESTS, requests, kind)
        measures.set(MINUTE_SECONDS, seconds, kind)
    measures.set(MEMORY, 5_000_000)
    measures.count(ANSWERS, "redis", by=3)
    measures.count(ANSWERS, "missed")
    return measures


def test_what_is_older_than_a_minute_does_not_count() -> None:
    """
    seconds     0      30            61    91
    requests    |10 ms |30 ms, 20 ms |     |
    """
    answered = Answered()
    answered.requests, answered.seconds = 7, 70.0
    assert answered.lately(0.0) == (0, 0)
    answered.requests, answered.seconds = 8, 70.010
    assert answered.lately(1.0) == (1, pytest.approx(0.010))
    answered.requests, answered.seconds = 10, 70.060
    assert answered.lately(30.0) == (3, pytest.approx(0.060))
    assert answered.lately(WINDOW_S + 1) == (2, pytest.approx(0.050))
    assert answered.lately(WINDOW_S + 31) == (0, 0)


def test_processes_that_run_are_added_up(tmp_path: Path) -> None:
    one, other = process(tmp_path, "api", 1, 0.1), process(tmp_path, "api", 3, 0.06)
    ended, worker = process(tmp_path, "api", 1000, 1000.0), process(tmp_path, "worker", 1000, 1000.0)
    ended.close()
    found = api_figures(tmp_path)
    assert (found.processes, found.ingest_requests, found.query_requests) == (2, 4, 4)
    assert found.processing_ms == found.answering_ms == pytest.approx(40.0)
    assert (found.cache_hits, found.cache_misses, found.cache_hit_rate) == (6, 2, 0.75)
    assert found.memory_bytes == 10_000_000
    for each in (one, other, worker):
        each.close()


def test_without_a_folder_there_is_nothing(tmp_path: Path) -> None:
    assert api_figures(tmp_path / "none") == ApiFigures()
    assert not (tmp_path / "none").exists()
