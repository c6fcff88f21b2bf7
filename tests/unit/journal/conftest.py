"""Small journals on a real disk, and a disk that can be told to fail."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from totalizer.journal import BEGINNING, Journal, JournalReader, Position, Record
from totalizer.journal.disk import Disk

SEGMENT_BYTES = 32 << 10
QUOTA_BYTES = 1 << 20


class FaultyDisk(Disk):
    """The real disk until told otherwise.

    Attributes:
        failing: names of methods that raise `error` now.
        error: the errno they raise.
        countdown: method → how many calls still succeed; the one after fails, once.
        short_writes: if set, pwrite takes that many bytes at most.
        calls: every call so far, in order.
        failed: descriptors that a sync was refused for; syncing one again is an assertion error.
    """

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.error = errno.EIO
        self.countdown: dict[str, int] = {}
        self.short_writes: int | None = None
        self.calls: list[str] = []
        self.failed: set[int] = set()

    def _may_fail(self, method: str, descriptor: int | None = None) -> None:
        self.calls.append(method)
        if method in ("fdatasync", "fsync"):
            assert descriptor not in self.failed, "synced again after an error"
        left = self.countdown.get(method)
        if left is not None:
            self.countdown[method] = left - 1
            if left == 0:
                del self.countdown[method]
        if method in self.failing or left == 0:
            if method in ("fdatasync", "fsync") and descriptor is not None:
                self.failed.add(descriptor)
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: Path) -> int:
        self._may_fail("create")
        return super().create(path)

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        self._may_fail("pwrite")
        if self.short_writes is not None:
            data = memoryview(data)[: self.short_writes]
        return super().pwrite(descriptor, data, offset)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        self._may_fail("pread")
        return super().pread(descriptor, length, offset)

    def fdatasync(self, descriptor: int) -> None:
        self._may_fail("fdatasync", descriptor)
        super().fdatasync(descriptor)

    def fsync(self, descriptor: int) -> None:
        self._may_fail("fsync", descriptor)
        super().fsync(descriptor)

    def reserve(self, descriptor: int, size: int) -> None:
        self._may_fail("reserve")
        super().reserve(descriptor, size)

    def truncate(self, descriptor: int, size: int) -> None:
        self._may_fail("truncate")
        super().truncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        self.failed.discard(descriptor)
        super().close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._may_fail("rename")
        super().rename(source, target)

    def sync_folder(self, path: Path) -> None:
        self._may_fail("sync_folder")
        super().sync_folder(path)


class UnsyncedDisk(Disk):
    """For tests of what is read, by the thousand: syncs nothing."""

    def fdatasync(self, descriptor: int) -> None:
        pass

    def fsync(self, descriptor: int) -> None:
        pass


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def open_journal(folder: Path) -> Iterator[Callable[..., Journal]]:
    """Journal.open with small sizes; whatever is still open is closed after the test."""
    opened = []

    def opener(path: Path = folder, **options: Any) -> Journal:
        journal = Journal.open(path, **{"segment_bytes": SEGMENT_BYTES, "quota_bytes": QUOTA_BYTES, **options})
        opened.append(journal)
        return journal

    yield opener
    for journal in opened:
        journal.close()


def drain(reader: JournalReader, after: Position = BEGINNING, **bounds: int) -> list[Record]:
    """Every record after a position."""
    records: list[Record] = []
    bounds = {"records_max": 100, "bytes_max": 1 << 20, **bounds}
    while piece := reader.read(after, **bounds):
        records += piece
        after = piece[-1].position_after
    return records


def payloads_in(folder: Path) -> list[bytes]:
    """Every payload a fresh reader gives."""
    with JournalReader(folder) as reader:
        return [record.payload for record in drain(reader)]


def wait_until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for another thread or process to get somewhere; fails if it does not."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
