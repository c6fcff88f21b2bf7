"""Which files a folder of batches gives, in which order, and what becomes of those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from totalizer.edge.batch import Batch
from totalizer.ops.importers import batch_files
from totalizer.ops.importers.batch_files import BatchFilesSource, find_files
from totalizer.ops.importers.reading import LINE_BYTES_MAX
from totalizer.ops.importers.source import Line

from .conftest import NOW_MS


def write(folder: Path, name: str, *metadata: dict[str, object]) -> Path:
    """A batch file with an entry for each metadata."""
    entries = tuple(
        {"id": f"{name}-{n}", "userId": "u", "action": "a", "timestamp": NOW_MS, "metadata": each}
        for n, each in enumerate(metadata or ({},))
    )
    batch = Batch(name, NOW_MS, entries)
    (folder / batch.file_name).write_bytes(batch.encode())
    return folder / batch.file_name


def lines(source: BatchFilesSource) -> list[Line]:
    return [line for line in source.lines() if line is not None]


def test_batches_come_by_their_names_wherever_they_lie(tmp_path: Path) -> None:
    below = tmp_path / "recovery"
    below.mkdir()
    second, first = write(tmp_path, "2_a"), write(below, "1_a")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "batch_3_a.json").mkdir()
    os.mkfifo(tmp_path / "batch_4_a.json")
    assert find_files([str(tmp_path)]) == [first, second]
    assert find_files([str(second), str(tmp_path), str(first)]) == [second, first], "each once"


def test_a_folder_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    file = write(tmp_path, "1_a")
    (tmp_path / "again").symlink_to(tmp_path)
    assert find_files([str(tmp_path)]) == [file]


def test_a_file_that_goes_away_is_told_and_not_counted(tmp_path: Path) -> None:
    gone, file = write(tmp_path, "1_a"), write(tmp_path, "2_a")
    source = BatchFilesSource([str(tmp_path)])
    gone.unlink()
    assert [line.damage for line in lines(source)] == [None]
    assert any(str(gone) in note for note in source.notes)
    assert source.progress().done == source.progress().total
    assert file.exists()


def test_what_may_not_be_read_is_damage(tmp_path: Path) -> None:
    file = write(tmp_path, "1_a")
    file.unlink()
    file.symlink_to(file)  # a loop: ELOOP for whoever asks, root included
    source = BatchFilesSource([str(file)])
    [line] = lines(source)
    assert "cannot be read" in str(line.damage)
    assert str(file) in source.notes[0]


def test_a_file_or_an_entry_that_is_too_large_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "1_a", {}, {"text": "x" * LINE_BYTES_MAX}, {})
    assert [line.damage is None for line in lines(BatchFilesSource([str(tmp_path)]))] == [True, False, True]
    monkeypatch.setattr(batch_files, "FILE_BYTES_MAX", 1000)
    [line] = lines(BatchFilesSource([str(tmp_path)]))
    assert "larger than 1000 bytes" in str(line.damage)
    assert len(line.raw) < 70_000
