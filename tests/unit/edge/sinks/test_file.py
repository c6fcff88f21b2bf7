"""A folder as the target."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from totalizer.edge import Batch, FileSink, SinkUnavailable
from totalizer.edge.batch import decode_batch_file
from totalizer.journal.disk import Disk
from unit.edge.parts import entry

BATCH = Batch("1704067200000_a3f8b2", 1_704_067_200_000, (entry(1, id="a"), entry(2, id="b")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_the_file_is_the_documented_one_and_private(tmp_path: Path) -> None:
    FileSink(tmp_path / "a").deliver(BATCH)
    path = tmp_path / "a" / "batch_1704067200000_a3f8b2.json"
    assert names(tmp_path / "a") == [path.name]
    assert list(json.loads(path.read_bytes())) == [
        "batchId", "timestamp", "version", "entries", "entryCount", "recovered"
    ]  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_of_a_taken_name_gets_a_further_one(tmp_path: Path, atomic: bool) -> None:
    sink = FileSink(tmp_path, atomic=atomic)
    for number in range(3):
        sink.deliver(Batch(BATCH.batch_id, BATCH.timestamp, (entry(number, id=str(number)),)))
    stem = "batch_1704067200000_a3f8b2"
    assert names(tmp_path) == [f"{stem}-2.json", f"{stem}-3.json", f"{stem}.json"]


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("content", [b"", b'{"batchId": "1704067200000_a3f8b2", "entr', b"\0" * 500])
def test_what_a_crash_has_left_of_the_file_is_put_aside(tmp_path: Path, atomic: bool, content: bytes) -> None:
    sink = FileSink(tmp_path, atomic=atomic)
    sink.deliver(Batch("other", 1, (entry(1, id="x"),)))
    path = tmp_path / BATCH.file_name
    path.write_bytes(content)
    sink.deliver(BATCH)
    assert decode_batch_file(path.read_bytes(), path.name).entries == BATCH.entries
    assert (tmp_path / "recovery" / "errors" / path.name).read_bytes() == content


def test_a_file_of_a_later_version_is_left(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    path = tmp_path / BATCH.file_name
    path.write_bytes(b'{"version": "9.0.0"}')
    sink.deliver(BATCH)
    assert path.read_bytes() == b'{"version": "9.0.0"}'
    assert names(tmp_path) == ["batch_1704067200000_a3f8b2-2.json", path.name]


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "a")
    sink.deliver(BATCH)
    for path in sorted((tmp_path / "a").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "a").rmdir()
    sink.deliver(BATCH)
    assert names(tmp_path / "a") == [BATCH.file_name]


class BrokenDisk(Disk):
    """Refuses its N-th call of a kind."""

    def __init__(self, call: str, error: int) -> None:
        self.call, self.error, self.armed = call, error, True

    def _meet(self, call: str) -> None:
        if self.armed and call == self.call:
            self.armed = False
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: Path) -> int:
        self._meet("create")
        return super().create(path)

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        self._meet("pwrite")
        return super().pwrite(descriptor, data[: len(data) // 2 or 1], offset)

    def fsync(self, descriptor: int) -> None:
        self._meet("fsync")
        super().fsync(descriptor)

    def link(self, source: Path, target: Path) -> None:
        self._meet("link")
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self._meet("unlink")
        super().unlink(path)

    def sync_folder(self, path: Path) -> None:
        self._meet("sync_folder")
        super().sync_folder(path)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("call", ["create", "pwrite", "fsync", "link", "unlink", "sync_folder"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_once_leaves_no_draft_and_the_next_attempt_one_file(
    tmp_path: Path, atomic: bool, call: str, error: int
) -> None:
    FileSink(tmp_path).deliver(Batch("other", 1, (entry(1, id="x"),)))
    disk = BrokenDisk(call, error)
    sink = FileSink(tmp_path, atomic=atomic, disk=disk)
    if call in ("link", "unlink") and not atomic:  # are not called then
        sink.deliver(BATCH)
    else:
        with pytest.raises(SinkUnavailable, match=os.strerror(error)):
            sink.deliver(BATCH)
    sink.deliver(BATCH)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []
    found = [decode_batch_file((tmp_path / name).read_bytes(), name) for name in names(tmp_path)]
    assert [each.batch_id for each in found] == [BATCH.batch_id, "other"]


def test_in_place_a_file_that_is_being_written_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Two processes deliver one batch, the second while half of the file is there."""
    half_written, go_on = threading.Event(), threading.Event()

    class SlowDisk(Disk):
        def write_all(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            half = len(data) // 2
            super().write_all(descriptor, data[:half], offset)
            half_written.set()
            assert go_on.wait(30)
            super().write_all(descriptor, data[half:], offset + half)

    with ThreadPoolExecutor() as threads:
        first = threads.submit(FileSink(tmp_path, atomic=False, disk=SlowDisk()).deliver, BATCH)
        assert half_written.wait(30)
        second = threads.submit(FileSink(tmp_path, atomic=False).deliver, BATCH)
        assert not wait([second], timeout=0.3).done
        go_on.set()
        assert first.result(30) == second.result(30)
    assert [path.name for path in tmp_path.glob("batch_*")] == [BATCH.file_name]
    assert list((tmp_path / "recovery/errors").iterdir()) == []
