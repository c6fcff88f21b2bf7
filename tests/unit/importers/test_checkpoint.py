"""The file that remembers: whole after a crash, private, paced."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from totalizer.errors import OperationError
from totalizer.ops.importers.checkpoint import SAVE_INTERVAL_S, Checkpoint, Mark
from totalizer.ops.importers.quarantine import Quarantine
from totalizer.ops.importers.source import Line


class HandClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now_ns(self) -> int:
        return 1_700_000_000_000_000_000

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: Any) -> None:
        self.seconds += seconds


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "new", ["a"]).save()
    assert Checkpoint(tmp_path / "new", ["a"]).load() is None

    checkpoint = Checkpoint(tmp_path / "new", ["a", "b"])
    checkpoint.advance(Mark(5, "d"))
    checkpoint.save()

    assert Checkpoint(tmp_path / "new", ["a", "b"]).load() == Mark(5, "d")
    assert Checkpoint(tmp_path / "new", ["ab"]).load() is None
    assert stat.S_IMODE(checkpoint.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(checkpoint.file.parent.stat().st_mode) == 0o700
    assert os.listdir(checkpoint.file.parent) == [checkpoint.file.name]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lines":"x"}'])
def test_a_damaged_file_starts_over(tmp_path: Path, content: Any) -> None:
    checkpoint = Checkpoint(tmp_path, ["a"])
    checkpoint.advance(Mark(5, "d"))
    checkpoint.save()
    checkpoint.file.write_bytes(content)

    assert Checkpoint(tmp_path, ["a"]).load() is None


def test_it_is_due_once_a_second(tmp_path: Path) -> None:
    clock = HandClock()
    checkpoint = Checkpoint(tmp_path, ["a"], clock)
    assert checkpoint.due()
    checkpoint.advance(Mark(1, "d"))
    checkpoint.save()
    assert not checkpoint.due()
    clock.sleep(SAVE_INTERVAL_S)
    assert checkpoint.due()


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "imports").write_text("in the way")
    checkpoint = Checkpoint(tmp_path, ["a"])
    checkpoint.advance(Mark(1, "d"))
    with pytest.raises(OperationError, match="cannot be written"):
        checkpoint.save()
    (tmp_path / "quarantine").write_text("in the way")
    with pytest.raises(OperationError, match="cannot be written"):
        Quarantine(tmp_path, "s").add(Line(1, b"x"), "reason")


def test_a_quarantine_file_is_named_after_its_source_and_stays_in_its_folder(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, "../..//etc/passwd é", HandClock())
    quarantine.add(Line(3, b"caf\xe9 \xc3\xa9"), "why")
    quarantine.close()

    assert quarantine.file.name == "import-..-..-etc-passwd--20231114T221320.000000Z.ndjson"
    assert quarantine.file.parent == tmp_path / "quarantine"
    assert quarantine.file.read_text() == '{"line":3,"reason":"why","text":"caf\\\\xe9 é"}\n'
