"""The trail of operations."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from totalizer.edge import audit as audit_module
from totalizer.edge.audit import audit
from totalizer.edge.folder import Folders
from unit.edge.parts import SetClock


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path / "aggregated")
    folders.make()
    return folders


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_each_operation(folders: Folders) -> None:
    trail = audit(folders, "aggregation", SetClock())
    trail.record("flush", batchId="b", entries=5)
    trail.record("flush", level="error", error='a "quoted"\nline')
    path = folders.logs / "aggregation.log"
    assert lines(path) == [
        {"time": "2025-09-04T15:33:20.000000Z", "level": "INFO", "operation": "flush", "pid": os.getpid(),
         "batchId": "b", "entries": 5},
        {"time": "2025-09-04T15:33:20.000000Z", "level": "ERROR", "operation": "flush", "pid": os.getpid(),
         "error": 'a "quoted"\nline'},
    ]  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_full_files_are_put_away_and_the_oldest_goes(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "LOG_BYTES_MAX", 2000)
    trail = audit(folders, "recovery", SetClock())
    for number in range(200):
        trail.record("scan", number=number)
    names = sorted(path.name for path in folders.logs.iterdir())
    assert names == ["recovery.log", *(f"recovery.log.{number}" for number in (1, 2, 3, 4))]
    assert all(path.stat().st_size <= 2000 for path in folders.logs.iterdir())
    order = [f"recovery.log.{number}" for number in (4, 3, 2, 1)] + ["recovery.log"]
    numbers = [line["number"] for name in order for line in lines(folders.logs / name)]
    assert numbers == list(range(200 - len(numbers), 200))


def write(data_path: Path, writer: int) -> None:
    trail = audit(Folders(data_path), "aggregation")
    for number in range(200):
        trail.record("x", writer=writer, number=number, text="y" * 100)


def test_many_processes_write_whole_lines_and_lose_none(folders: Folders) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write, args=(folders.data, writer)) for writer in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [(line["writer"], line["number"]) for line in lines(folders.logs / "aggregation.log")]
    assert sorted(found) == [(writer, number) for writer in range(4) for number in range(200)]


def test_many_processes_put_files_away_once(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "LOG_BYTES_MAX", 40_000)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write, args=(folders.data, writer)) for writer in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    paths = sorted(folders.logs.iterdir())
    assert sum(len(lines(path)) for path in paths) == 800
    assert len(paths) == 5


def test_a_file_that_another_process_has_just_put_away_costs_no_line(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(audit_module, "LOG_BYTES_MAX", 100)
    trail = audit(folders, "aggregation")
    trail.record("first", text="x" * 90)
    put_away = trail._put_away

    def put_away_by_both() -> None:
        put_away()
        put_away()

    monkeypatch.setattr(trail, "_put_away", put_away_by_both)
    trail.record("second")
    assert [path.name for path in sorted(folders.logs.iterdir())] == ["aggregation.log", "aggregation.log.1"]
    assert [line["operation"] for line in lines(folders.logs / "aggregation.log")] == ["second"]
    assert trail.failures == 0


def test_a_trail_that_cannot_be_written_stops_nobody(
    folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    (folders.logs / "aggregation.log").mkdir()
    trail = audit(folders, "aggregation")
    trail.record("flush")
    assert trail.failures == 1
    assert "cannot be written" in caplog.text
