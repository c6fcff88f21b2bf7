"""Figures of API processes: of the last minute, added up over files, without those of the dead."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from totalizer.health.facts import ApiFigures
from totalizer.health.figures import STALE_S, WINDOW_S, Figures, read_figures
from unit.edge.daemon.parts import HandClock

#: No process has this number.
NOBODY = 2**22 + 1


def leave(folder: Path, pid: int, at_ms: int, figures: ApiFigures) -> Path:
    """A file as a process of that number leaves it."""
    path = folder / f"api-{pid}.json"
    path.write_bytes(msgspec.json.encode((at_ms, figures)))
    return path


def test_what_is_older_than_a_minute_does_not_count() -> None:
    clock = HandClock()
    figures = Figures(None, clock)
    figures.ingested(0.010, clock.monotonic())
    clock.sleep(30)
    figures.ingested(0.030, clock.monotonic())
    figures.queried(0.5, clock.monotonic())
    now = figures.now()
    assert (now.ingest_requests, now.processing_ms, now.answering_ms) == (2, 20.0, 500.0)
    clock.sleep(WINDOW_S - 29)
    assert (figures.now().ingest_requests, figures.now().processing_ms) == (1, 30.0)
    clock.sleep(30)
    assert figures.now().processing_ms is None


def test_processes_are_added_up_and_the_dead_are_forgotten(tmp_path: Path) -> None:
    clock = HandClock()
    mine = Figures(tmp_path, clock)
    mine.ingested(0.1, clock.monotonic())
    mine.cache_hits, mine.cache_misses = 3, 1
    mine.write()
    leave(tmp_path, os.getppid(), clock.ms, ApiFigures(1, 3, 60.0, cache_hits=1, cache_misses=3, memory_bytes=5))
    dead = leave(tmp_path, NOBODY, clock.ms - int(STALE_S * 1000) - 1, ApiFigures(1, 1000, 1.0))
    (tmp_path / "api-7.json").write_text("torn")
    found = read_figures(tmp_path, clock.ms)
    assert (found.processes, found.ingest_requests, found.processing_ms, found.cache_hit_rate) == (2, 4, 40.0, 0.5)
    assert found.memory_bytes > 5
    assert not dead.exists()


def test_a_process_that_hangs_is_left_out_and_its_file_left_alone(tmp_path: Path) -> None:
    clock = HandClock()
    path = leave(tmp_path, os.getppid(), clock.ms - int(STALE_S * 1000) - 1, ApiFigures(1, 9, 9.0))
    assert read_figures(tmp_path, clock.ms).processes == 0
    assert path.exists()


def test_a_process_that_ends_takes_its_file_away(tmp_path: Path) -> None:
    figures = Figures(tmp_path / "monitor", HandClock())
    figures.write()
    assert (tmp_path / "monitor" / f"api-{os.getpid()}.json").stat().st_mode & 0o077 == 0
    figures.remove()
    assert list((tmp_path / "monitor").iterdir()) == []


def test_without_a_folder_or_any_file_there_is_nothing(tmp_path: Path) -> None:
    Figures(None, HandClock()).write()
    assert read_figures(tmp_path / "none", 0) == ApiFigures()
