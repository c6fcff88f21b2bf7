"""One `totalizer up` per data folder: a lock that the kernel frees when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock, utc_text
from totalizer.errors import OperationError
from totalizer.ops.record import read_json


@dataclass(frozen=True)
class Holder:
    """Who holds a data folder.

    Attributes:
        pid: its process id; 0 if it has not said so yet.
        started_at: since when, UTC text.
    """

    pid: int
    started_at: str


def lock_path(home: Path) -> Path:
    """The lock's file; it stays, what counts is the lock on it."""
    return home / "up.lock"


@contextlib.contextmanager
def hold_folder(home: Path, clock: Clock = SYSTEM_CLOCK) -> Iterator[Holder]:
    """Hold the data folder for this process.

    Args:
        home: data folder; made, mode 0700, when missing.
        clock: time source.

    Raises:
        OperationError: another process holds it; the message names its pid and start time.
    """
    descriptor = _open(home)
    try:
        if not _take(descriptor):
            raise OperationError(_held_text(home))
        holder = Holder(os.getpid(), utc_text(clock.now_ns()))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": holder.pid, "started_at": holder.started_at}).encode(), 0)
        yield holder
    finally:
        os.close(descriptor)


def holder_of(home: Path) -> Holder | None:
    """Who holds the data folder now; None if nobody does."""
    if not lock_path(home).exists():
        return None
    descriptor = _open(home)
    try:
        return None if _take(descriptor) else _read(home)
    finally:
        os.close(descriptor)


def _open(home: Path) -> int:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(lock_path(home), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise OperationError(f"cannot use {home} as the data folder: {error}; choose another one (--home)") from error


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(home: Path) -> Holder:
    value = read_json(lock_path(home)) or {}
    return Holder(int(value.get("pid", 0)), str(value.get("started_at", "just now")))


def _held_text(home: Path) -> str:
    holder = _read(home)
    return (
        f"`totalizer up` already runs on {home} (pid {holder.pid or 'unknown'}, started {holder.started_at}); "
        "stop it with `totalizer down`, or choose another data folder (--home)"
    )
