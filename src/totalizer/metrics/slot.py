"""The numbers of one process on disk, where they outlive it: its successor counts on from there.

A slot is three files in the folder `metrics`: `api-0.lock`, held while a process counts in it; `api-0.keys`, a line of
JSON for each metric and labels, `[name, [label, …], size]`; `api-0.values`, mapped memory with that many numbers for
each line, in the order of the lines. A number is written in one go, and a process that is killed loses none.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from totalizer.metrics.table import METRICS

#: Their folder below the data folder.
FOLDER = "metrics"
#: Numbers of one process; its file has holes where none are.
NUMBERS_MAX = 32_768
#: Processes of one component on one data folder.
SLOTS_MAX = 256

Key = tuple[str, tuple[str, ...]]


class Found(NamedTuple):
    """What one slot holds.

    Attributes:
        component: whose it is.
        alive: True if its process runs.
        numbers: by metric and labels.
    """

    component: str
    alive: bool
    numbers: dict[Key, list[float]]


class Slot:
    """The slot of this process.

    Args:
        folder: of all slots; made if missing.
        component: the process' part.

    Attributes:
        values: its numbers.
        places: metric and labels → the first of their numbers.

    Raises:
        OSError: the disk refuses, or all slots are taken.
    """

    def __init__(self, folder: Path, component: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock, path = _claim(folder, component)
        self._keys = _open_keys(path)
        self.places: dict[Key, int] = {}
        self._used = 0
        for name, labels, size in _read_keys(path.with_suffix(".keys")):
            self.places[name, labels] = self._used
            self._used += size
        self.values: memoryview[float] = _map(path.with_suffix(".values"))
        for key, place in self.places.items():
            if METRICS[key[0]].kind == "gauge":
                self.values[place] = 0.0

    def place(self, key: Key) -> int | None:
        """Room for a metric with labels that it has not yet; None if there is none."""
        size = METRICS[key[0]].size
        if self._used + size > NUMBERS_MAX:
            return None
        os.write(self._keys, f"{json.dumps([key[0], key[1], size])}\n".encode())
        self.places[key] = place = self._used
        self._used += size
        return place

    def close(self) -> None:
        """Give it to the next process."""
        os.close(self._keys)
        os.close(self._lock)


def slots(folder: Path) -> Iterator[Found]:
    """Every slot, also of processes that have ended.

    Raises:
        OSError: the disk refuses.
    """
    for path in sorted(folder.glob("*.lock")):
        numbers: dict[Key, list[float]] = {}
        keys = list(_read_keys(path.with_suffix(".keys")))
        if keys:
            values: memoryview[float] = _map(path.with_suffix(".values"))
            place = 0
            for name, labels, size in keys:
                numbers[name, labels] = [float(value) for value in values[place : place + size]]
                place += size
        yield Found(path.stem.rpartition("-")[0], _held(path), numbers)


def _claim(folder: Path, component: str) -> tuple[int, Path]:
    for number in range(SLOTS_MAX):
        path = folder / f"{component}-{number}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return lock, path
    raise OSError(f"all of {component}-0 to {component}-{SLOTS_MAX - 1} in {folder} are in use")


def _held(path: Path) -> bool:
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def _open_keys(path: Path) -> int:
    """The file of keys, to add to; begun anew, with the numbers, if another version left something else there."""
    keys = path.with_suffix(".keys")
    text = keys.read_bytes() if keys.exists() else b""
    if text.count(b"\n") != len(list(_read_keys(keys))) or (text and not text.endswith(b"\n")):
        keys.unlink()
        path.with_suffix(".values").unlink(missing_ok=True)
    return os.open(keys, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _read_keys(path: Path) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """The keys up to the first that is not understood: what comes after it has no known place."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return
    for line in lines:
        try:
            name, labels, size = json.loads(line)
        except ValueError:
            return
        if name not in METRICS or METRICS[name].size != size or len(METRICS[name].labels) != len(labels):
            return
        yield name, tuple(labels), size


def _map(path: Path) -> memoryview[float]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < NUMBERS_MAX * 8:
            os.ftruncate(descriptor, NUMBERS_MAX * 8)
        return memoryview(mmap.mmap(descriptor, NUMBERS_MAX * 8)).cast("d")
    finally:
        os.close(descriptor)
