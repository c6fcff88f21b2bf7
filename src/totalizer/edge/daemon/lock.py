"""A lock that one process has on a file, and that is free again however that process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

from totalizer.clock import Clock
from totalizer.edge.folder import Folders

#: In the recovery folder: held by the running daemon.
DAEMON_LOCK = "daemon.lock"
#: In the recovery folder: held by whoever moves or rewrites failed batches, the daemon or a command.
RECOVERY_LOCK = "recovery.lock"
#: Seconds to wait for another process that moves or rewrites failed batches. It keeps the lock for one delivery.
LOCK_WAIT_S = 30.0
#: Seconds to try for a lock that somebody may be looking at for a moment (`holder`).
_GLANCE_S = 0.5
_POLL_S = 0.02
_NOTE_BYTES = 16


class FileLock:
    """An flock on a file whose text is the process id of the holder.

    The text is for messages; the lock is what counts. It excludes other threads as well as other processes. A forked
    child does not have its parent's lock, and cannot keep it alive.

    Args:
        path: of the file; made if missing, mode 0600, never removed.
        clock: for waiting.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._descriptor = -1
        _LOCKS.add(self)

    @property
    def held(self) -> bool:
        """True if this object has the lock."""
        return self._descriptor >= 0

    def acquire(self, wait_s: float = _GLANCE_S) -> bool:
        """Take the lock, trying for `wait_s` seconds; False if another has it. OSError if the disk refuses."""
        deadline = self._clock.monotonic() + wait_s
        while not self._try():
            if self._clock.monotonic() >= deadline:
                return False
            self._clock.sleep(_POLL_S)
        return True

    def release(self) -> None:
        """Give the lock back. Nothing happens if it is not held."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # the note is for people; a full disk must not keep the lock
                os.pwrite(descriptor, _note(0), 0)
            os.close(descriptor)

    def _try(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):
                os.pwrite(descriptor, _note(os.getpid()), 0)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def _forget(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(path: Path) -> int | None:
    """Process id of the one who has the lock on a file; 0 if it cannot be told, None if nobody has it.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, _NOTE_BYTES, 0).decode("ascii", "replace").strip()
            return int(text) if text.isdecimal() else 0
        return None
    finally:
        os.close(descriptor)


class Busy(Exception):
    """Another process moves or rewrites failed batches just now, and does not end."""


@contextlib.contextmanager
def recovery_lock(folders: Folders, clock: Clock, wait_s: float) -> Iterator[None]:
    """Be the only one who moves or rewrites failed batches.

    Raises:
        Busy: another was for all of `wait_s` seconds.
        OSError: the disk refuses.
    """
    lock = FileLock(folders.recovery / RECOVERY_LOCK, clock)
    if not lock.acquire(wait_s):
        raise Busy
    try:
        yield
    finally:
        lock.release()


def _note(pid: int) -> bytes:
    return f"{pid:<{_NOTE_BYTES - 1}}\n".encode()


_LOCKS: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_LOCKS):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)
