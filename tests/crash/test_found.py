"""What the tests of this folder have found, each at its smallest."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from crash.oracle import KEPT
from crash.pipeline import Pipeline
from support import PATIENCE_S
from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Journal, JournalReader, recover_idle
from totalizer.journal.disk import Disk
from totalizer.store import loading
from totalizer.store.roles import Role


def test_a_watermark_that_cannot_be_opened_is_told_as_a_journals_failure(tmp_path: Path) -> None:
    """It was a bare OSError, which nobody expects of a reader. A link to itself stands for a disk that refuses."""
    folder = tmp_path / "journal"
    with Journal.open(folder, segment_bytes=64 << 10, quota_bytes=1 << 20) as journal:
        journal.append_and_wait(b"x")
    (folder / "durable").rename(folder / "aside")
    (folder / "durable").symlink_to("durable")
    with JournalReader(folder) as reader:
        with pytest.raises(JournalFailed, match="cannot be read"):
            reader.read(BEGINNING, records_max=1, bytes_max=1)
        with pytest.raises(JournalFailed, match="cannot be read"):
            reader.durable_end()
        (folder / "aside").rename(folder / "durable")
        assert [record.payload for record in reader.read(BEGINNING, records_max=1, bytes_max=1)] == [b"x"]


@pytest.mark.parametrize(("set_up", "expected"), [("off", "on"), ("remote_apply", "remote_apply"), ("local", "local")])
def test_the_loaders_transaction_waits_for_the_disk_at_least(pipeline: Pipeline, set_up: str, expected: str) -> None:
    """With `off`, a crash of the server took back commits whose journal was discarded."""
    with pipeline.database_as(Role.WRITER) as connection:
        connection.execute(f"SET synchronous_commit = {set_up}")
        offset = loading.take_over(connection, "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11")
        with connection.transaction():
            assert loading.fence(connection, "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", offset.epoch) == offset
            assert connection.execute("SHOW synchronous_commit").fetchone() == (expected,)
        assert connection.execute("SHOW synchronous_commit").fetchone() == (set_up,)


SIZES = {"segment_bytes": 16 << 10, "quota_bytes": 1 << 20}


def test_segments_that_vanish_do_not_make_their_numbers_be_used_again(tmp_path: Path) -> None:
    """What came after was before the loader's position, acknowledged, and never loaded."""
    folder = tmp_path / "journal"
    with Journal.open(folder, **SIZES) as journal:
        for _ in range(10):
            journal.append_and_wait(b"." * 9000)
    with JournalReader(folder) as reader:
        position = reader.durable_end()
    for path in folder.glob("*.segment"):
        path.unlink()
    with Journal.open(folder, **SIZES) as journal, JournalReader(folder) as reader:
        journal.append_and_wait(b"new")
        [record] = reader.read(position, records_max=9, bytes_max=99)
        assert (record.payload, record.sequence) == (b"new", 11)
        assert record.position_after > position


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a list of open descriptors")
def test_a_loader_that_starts_over_gives_its_descriptors_back(pipeline: Pipeline) -> None:
    """Each outage of the database cost one a journal, until there were none left."""
    loader = pipeline.loader()
    counts = []
    for number in range(6):
        pipeline.acknowledge([f"{number}"])
        loader.drain()
        loader.close()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] <= counts[1]
    assert pipeline.verdict() == KEPT


def test_a_folder_that_cannot_be_listed_does_not_end_the_loader(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with JournalFailed, and with it the loading of all other journals."""
    pipeline.acknowledge(["a"])
    real = os.scandir
    (pipeline.spool / "broken").mkdir()

    def scandir(path: str) -> object:
        if str(path).endswith("broken"):
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    pipeline.load()
    assert pipeline.verdict() == KEPT


@pytest.mark.parametrize("name", ["0000000000000007.segment", "journal.json", "durable"])
def test_a_pipe_in_a_journals_folder_keeps_nobody_waiting(name: str, tmp_path: Path) -> None:
    """Opening one waits for its other end: recovery, and with it the loader, stood still for ever."""
    folder = tmp_path / "journal"
    with Journal.open(folder, **SIZES) as journal:
        journal.append_and_wait(b"x")
    if (folder / name).exists():
        (folder / name).rename(folder / "aside")
    os.mkfifo(folder / name)

    def look() -> None:
        if name.endswith("segment"):
            assert recover_idle(folder)
        else:
            with pytest.raises(JournalFailed):
                recover_idle(folder)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_folder_by_the_name_of_the_next_segment_does_not_stop_the_start(tmp_path: Path) -> None:
    """A start tries one number, the same at every start, and a file cannot be renamed over a folder."""
    folder = tmp_path / "journal"
    Journal.open(folder, **SIZES).close()
    for number in range(2, 6):
        (folder / f"{number:016x}.segment").mkdir()
    with Journal.open(folder, **SIZES) as journal, JournalReader(folder) as reader:
        journal.append_and_wait(b"x")
        assert reader.read(BEGINNING, records_max=1, bytes_max=1)[0].payload == b"x"


def test_a_folder_that_cannot_be_looked_at_is_told_as_a_journals_failure(tmp_path: Path) -> None:
    """A bare OSError from below a file ended the loader."""
    (tmp_path / "file").touch()
    for call in (recover_idle, JournalReader):
        with pytest.raises(JournalFailed, match="cannot be looked at"):
            call(tmp_path / "file" / "journal")


class RefusingDisk(Disk):
    """Closes the watermark behind the writer's back, so that the next publishing is refused."""

    watermark = -1

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self.watermark = descriptor if path.name == "durable" else self.watermark
        return descriptor

    def open(self, path: Path, *, writable: bool = False) -> int:
        descriptor = super().open(path, writable=writable)
        self.watermark = descriptor if path.name == "durable" else self.watermark
        return descriptor


def test_a_watermark_that_is_refused_refuses_the_group(tmp_path: Path) -> None:
    """It was stored through mapped memory: a frozen disk held every thread up, a failed one could end the process."""
    disk, folder = RefusingDisk(), tmp_path / "journal"
    with Journal.open(folder, disk=disk, **SIZES) as journal, JournalReader(folder) as reader:
        journal.append_and_wait(b"before")
        kept, null = os.dup(disk.watermark), os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, disk.watermark)
        with pytest.raises(JournalFailed, match="disk refused"):
            journal.append_and_wait(b"refused")
        records = reader.read(BEGINNING, records_max=9, bytes_max=99)
        assert [record.payload for record in records] == [b"before"]
        os.dup2(kept, disk.watermark)
        for descriptor in (kept, null):
            os.close(descriptor)
        while journal.stats().refusal is not None:
            threading.Event().wait(0.02)
        journal.append_and_wait(b"after")
        more = reader.read(records[-1].position_after, records_max=9, bytes_max=99)
        assert [record.payload for record in more] == [b"after"]
