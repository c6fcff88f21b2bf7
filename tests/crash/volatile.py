"""A disk that remembers what a power loss could take back, and an image of what one would leave.

What POSIX promises and no more: bytes are on the disk after the file's sync, names after the folder's. Anything else
may be there in part, sector by sector and in any order; names may be there up to any of the last changes.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

from crash import tally
from totalizer.journal.disk import Disk

SECTOR_BYTES = 512
#: The file that is written through mapped memory: any of its last states may be the one on the disk.
MAPPED_NAME = "durable"
_STATES_KEPT = 12


@dataclass
class _File:
    """Bytes known to be on the disk, and changes that may be: (offset, data), or (size, None).

    `doomed` are changes whose sync has failed: the system takes them for written, and a later sync is not about them.
    """

    durable: bytearray
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    doomed: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, *change)
        self.pending.clear()

    def fail_sync(self) -> None:
        self.doomed += self.pending
        self.pending.clear()

    def after_loss(self, chance: random.Random) -> bytes:
        content = bytearray(self.durable)
        kept = chance.choice((0.0, 0.5, 0.9, 1.0))
        for offset, data in [*self.doomed, *self.pending]:
            if data is None:
                if chance.random() < kept:
                    _apply(content, offset, None)
                continue
            start = offset
            while start < offset + len(data):
                end = min(start // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES, offset + len(data))
                if chance.random() < kept:
                    _apply(content, start, data[start - offset : end - offset])
                start = end
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    size = offset if data is None else max(len(content), offset + len(data))
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if data is None:
        del content[size:]
    else:
        content[offset : offset + len(data)] = data


class VolatileDisk(Disk):
    """The real disk, without its syncs, until the power fails: then every call is refused.

    Args:
        folder: of a journal, or above some; what is in it now is durable.
        chance: decides what a loss takes.
        calls_until_loss: changes and syncs that are still done; None for no loss.

    Attributes:
        image: file content by path below `folder` as the loss left it; None before.
        refuse_in: changes and syncs that are still done before some are refused; None for no refusal.
        refusals: how many are refused then.
    """

    def __init__(self, folder: Path, chance: random.Random, calls_until_loss: int | None) -> None:
        self._folder, self._chance, self._left = folder, chance, calls_until_loss
        self._lock = threading.RLock()
        self._open: dict[int, _File] = {}
        self._names: dict[Path, _File] = {
            path: _File(bytearray(path.read_bytes())) for path in folder.rglob("*") if path.is_file()
        }
        self._durable_names = dict(self._names)
        self._renamings: list[tuple[Path, _File | None, Path | None]] = []
        self._mapped: dict[Path, list[bytes]] = {}
        self.image: dict[str, bytes] | None = None
        self.refuse_in: int | None = None
        self.refusals = 1

    def fail_after(self, calls: int) -> None:
        """Let the power fail after so many more calls."""
        with self._lock:
            self._left = calls

    def _count(self) -> None:
        """Every call that changes something or syncs: the power may fail before it."""
        if self.image is None and self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.lose_power()
        if self.image is not None:
            raise OSError(errno.EIO, "the power has failed")
        if self.refuse_in is not None:
            self.refuse_in -= 1
            if self.refuse_in < 0:
                self.refuse_in = None if self.refuse_in <= -self.refusals else self.refuse_in
                tally.count("refused call")
                raise OSError(errno.EIO, "refused")

    def kill(self) -> dict[str, bytes]:
        """End the process between two calls: the system keeps all that it was told, and every later call is refused."""
        with self._lock:
            paths = [path for path in self._folder.rglob("*") if path.is_file()]
            self.image = {str(path.relative_to(self._folder)): path.read_bytes() for path in paths}
            return self.image

    def after_kill(self) -> VolatileDisk:
        """The same disk for the next process: what was not synced can still be lost with the power."""
        with self._lock:
            (self._folder / MAPPED_NAME).write_bytes((self.image or {}).get(MAPPED_NAME, b""))
            disk = VolatileDisk(self._folder, self._chance, None)
            known = {path: self._names.get(path, file) for path, file in disk._names.items()}
            disk._names, disk._durable_names, disk._mapped = known, self._durable_names, self._mapped
            disk._renamings = self._renamings
            return disk

    def lose_power(self) -> dict[str, bytes]:
        """Keep what is on the disk now, as chance has it."""
        with self._lock:
            names = dict(self._durable_names)
            for gone, file, name in self._renamings[: self._chance.randint(0, len(self._renamings))]:
                _rename(names, gone, file, name)
            image = {str(path.relative_to(self._folder)): file.after_loss(self._chance) for path, file in names.items()}
            self._remember_mapped()
            for path, states in self._mapped.items():
                name = str(path.relative_to(self._folder))
                if name in image:
                    image[name] = self._chance.choice([*states, states[-1], image[name]])
            self.image = image
            return image

    def _remember_mapped(self) -> None:
        for path in [path for path in self._names if path.name == MAPPED_NAME]:
            self._mapped[path] = [*self._mapped.get(path, [])[-_STATES_KEPT:], path.read_bytes()]

    def create(self, path: Path) -> int:
        with self._lock:
            self._count()
            descriptor = super().create(path)
            file = self._open[descriptor] = self._names[path] = _File(bytearray())
            self._renamings.append((path, file, path))
            return descriptor

    def open(self, path: Path, *, writable: bool = False) -> int:
        with self._lock:
            descriptor = super().open(path, writable=writable)
            if path in self._names:
                self._open[descriptor] = self._names[path]
            return descriptor

    def close(self, descriptor: int) -> None:
        with self._lock:
            self._open.pop(descriptor, None)
            super().close(descriptor)

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        with self._lock:
            self._count()
            written = super().pwrite(descriptor, data, offset)
            self._open[descriptor].pending.append((offset, bytes(data[:written])))
            return written

    def reserve(self, descriptor: int, size: int) -> None:
        with self._lock:
            self._count()
            super().reserve(descriptor, size)
            self._open[descriptor].pending.append((size, None))

    def truncate(self, descriptor: int, size: int) -> None:
        with self._lock:
            self._count()
            super().truncate(descriptor, size)
            self._open[descriptor].pending.append((size, None))

    def fdatasync(self, descriptor: int) -> None:
        self.fsync(descriptor)

    def fsync(self, descriptor: int) -> None:
        with self._lock:
            try:
                self._count()
            except OSError:
                if self.image is None:  # a sync that failed, and not one that was never made
                    self._open[descriptor].fail_sync()
                raise
            self._remember_mapped()
            self._open[descriptor].sync()

    def rename(self, source: Path, target: Path) -> None:
        with self._lock:
            self._count()
            super().rename(source, target)
            file = self._names.pop(source)
            self._names[target] = file
            self._renamings.append((source, file, target))

    def link(self, source: Path, target: Path) -> None:
        with self._lock:
            self._count()
            super().link(source, target)
            file = self._names[target] = self._names[source]
            self._renamings.append((target, file, target))

    def unlink(self, path: Path) -> None:
        with self._lock:
            self._count()
            super().unlink(path)
            self._names.pop(path, None)
            self._renamings.append((path, None, None))

    def sync_folder(self, path: Path) -> None:
        with self._lock:
            self._count()
            kept = []
            for change in self._renamings:
                if change[0].parent == path:
                    _rename(self._durable_names, *change)
                else:
                    kept.append(change)
            self._renamings = kept


def _rename(names: dict[Path, _File], gone: Path, file: _File | None, name: Path | None) -> None:
    names.pop(gone, None)
    if file is not None and name is not None:
        names[name] = file


def restore(image: dict[str, bytes], folder: Path) -> None:
    """Put an image into a new folder, as it would be mounted after the loss."""
    folder.mkdir(mode=0o700)
    for name, content in image.items():
        path = folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content)
        os.chmod(path, 0o600)
