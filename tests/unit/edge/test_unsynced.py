"""Entries that a disk refused after they were taken."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from support import wait_until
from totalizer.edge import unsynced as module
from totalizer.edge.folder import Folders
from totalizer.edge.status import read_metrics
from totalizer.edge.unsynced import Unsynced
from totalizer.errors import JournalFailed
from totalizer.journal.disk import Disk
from unit.edge.parts import MemorySink, aggregator, entry


def test_they_are_appended_again_in_their_order() -> None:
    kept, taken = Unsynced(), []
    kept.keep([b"1", b"2", b"3"])

    def refuse_the_third(payload: bytes) -> None:
        if payload == b"3":
            raise JournalFailed
        taken.append(payload)

    kept.try_again(refuse_the_third)
    kept.keep([b"4"])
    kept.try_again(taken.append)
    assert taken == [b"1", b"2", b"3", b"4"]
    kept.give_up()
    assert kept.lost == 0


def test_what_is_too_much_to_keep_or_left_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNSYNCED_MAX", 3)
    kept = Unsynced()
    kept.keep([b"1", b"2"])
    kept.keep([b"3", b"4", b"5"])
    assert kept.lost == 2
    kept.give_up()
    assert kept.lost == 5


class BreakableDisk(Disk):
    """Refuses to sync while it is broken."""

    broken = False

    def _meet(self) -> None:
        if self.broken:
            raise OSError(errno.EIO, "broken")

    def fdatasync(self, descriptor: int) -> None:
        self._meet()
        super().fdatasync(descriptor)

    def reserve(self, descriptor: int, size: int) -> None:
        self._meet()
        super().reserve(descriptor, size)


def test_a_disk_that_is_away_for_a_while_costs_nothing(tmp_path: Path) -> None:
    disk, sink = BreakableDisk(), MemorySink()
    made = aggregator(tmp_path, sink=sink, disk=disk, durability="interval")
    made.add(entry(0))
    made.flush()
    disk.broken = True
    taken = [0]
    for number in range(1, 50):
        try:
            made.add(entry(number))
        except JournalFailed:
            continue
        taken.append(number)
    assert len(taken) > 1
    wait_until(lambda: made._running().log._journal.stats().refusal is not None, "the refusal")
    disk.broken = False

    def all_there() -> bool:
        made.force_flush()
        return sorted(map(int, sink.numbers)) == taken

    wait_until(lambda: made._running().log._journal.stats().refusal is None, "the disk's being back")
    wait_until(all_there, "the entries' delivery")
    made.shutdown()
    assert made.get_stats().lost == 0
    assert Folders(tmp_path / "aggregated").failed_files() == []


def test_a_disk_that_never_comes_back_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk, sink = BreakableDisk(), MemorySink()
    made = aggregator(tmp_path, sink=sink, disk=disk, durability="interval")
    made.add(entry(0))
    made.flush()
    disk.broken = True
    made.add(entry(1))
    wait_until(lambda: made._running().log._journal.stats().refusal is not None, "the refusal")
    made._shut(100)
    assert "1 entries never became durable" in caplog.text
    assert made.get_stats().lost == 1
    assert read_metrics(made.folders).lost == 1
