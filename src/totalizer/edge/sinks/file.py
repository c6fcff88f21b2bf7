"""A folder as the target of batches: one file each, the default."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from totalizer.edge.batch import Batch, decode_batch_file
from totalizer.edge.folder import Folders, move_file, write_file
from totalizer.edge.sinks.sink import Delivery
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, SinkUnavailable
from totalizer.journal.disk import DISK, Disk


class FileSink:
    """Writes each batch to `batch_<id>.json`, durably, mode 0600; a batch that is there already is not written again.

    Args:
        data_path: the folder; made with its ancestors if missing, mode 0700.
        atomic: False writes in place, which a crash can leave in part; the next attempt mends it.
        disk: the system calls; tests pass one that fails.
    """

    def __init__(
        self, data_path: str | os.PathLike[str], *, atomic: bool = True, disk: Disk = DISK
    ) -> None:  # fmt: skip
        self._folders, self._atomic, self._disk = Folders(data_path), atomic, disk

    @property
    def name(self) -> str:
        return str(self._folders.data)

    def deliver(self, batch: Batch) -> Delivery:
        try:
            if not self._folders.errors.is_dir():
                self._folders.make(self._disk)
            with self._alone():
                self._put(batch)
        except OSError as error:
            raise SinkUnavailable(f"{self.name}: the disk refused batch {batch.batch_id}: {error}") from error
        return Delivery(len(batch.entries))

    def close(self) -> None:
        """Nothing is held open."""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """In place, a file is there before it is whole: nobody else may take it for damaged until it is."""
        if self._atomic:
            yield
            return
        folder = os.open(self._folders.data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _put(self, batch: Batch) -> None:
        """Write the batch under the first of its names that is free, unless it is under one of them."""
        for number in itertools.count(1):
            path = self._folders.data / _name(batch, number)
            try:
                write_file(path, batch.encode(), atomic=self._atomic, exclusive=True, disk=self._disk)
            except FileExistsError:
                if self._holds(path, batch):
                    # Whoever wrote it may have been killed before the name was synced.
                    self._disk.sync_folder(path.parent)
                    return
                if not path.exists():  # it was damaged, and has been moved away
                    write_file(path, batch.encode(), atomic=self._atomic, exclusive=True, disk=self._disk)
                    return
            else:
                return

    def _holds(self, path: Path, batch: Batch) -> bool:
        """True if the file has this batch in it. One that cannot be read is moved to `recovery/errors`."""
        try:
            there = decode_batch_file(path.read_bytes(), path.name)
        except BatchVersionUnknown:
            return False
        except BatchFileDamaged:
            move_file(path, _free(self._folders.errors / path.name), self._disk)
            return False
        return [entry["id"] for entry in there.entries] == [entry.get("id") for entry in batch.entries]


def _name(batch: Batch, number: int) -> str:
    return batch.file_name if number == 1 else f"batch_{batch.batch_id}-{number}.json"


def _free(path: Path) -> Path:
    names = itertools.chain([path], (path.with_name(f"{path.name}.{number}") for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))
