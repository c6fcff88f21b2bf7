"""Reading a file that anybody may have put into the recovery folder."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from totalizer.errors import BatchFileDamaged

_READ_BYTES = 1 << 20


def read_file(path: Path, bytes_max: int) -> bytes:
    """The bytes of a regular file that belongs to this process' user or to the owner of its folder.

    Never blocks on a pipe, never follows a link, never reads more than `bytes_max`.

    Raises:
        BatchFileDamaged: it is something else, or somebody else's.
        OSError: the system refuses, FileNotFoundError if it is gone; or it is larger (EFBIG).
    """
    # Opening a device can do something to it, so that what it is must be known before.
    _check(path, os.lstat(path), bytes_max)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _check(path, os.fstat(descriptor), bytes_max)
        return _read(path, descriptor, bytes_max)
    finally:
        os.close(descriptor)


def _check(path: Path, status: os.stat_result, bytes_max: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BatchFileDamaged(f"{path} is no regular file")
    if status.st_uid not in (os.geteuid(), os.stat(path.parent).st_uid):
        raise BatchFileDamaged(f"{path} belongs to user {status.st_uid}, who is not the owner of this folder")
    if status.st_size > bytes_max:
        raise _too_large(path, status.st_size, bytes_max)


def _read(path: Path, descriptor: int, bytes_max: int) -> bytes:
    pieces, size = [], 0
    while piece := os.read(descriptor, _READ_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > bytes_max:
            raise _too_large(path, size, bytes_max)
    return b"".join(pieces)


def _too_large(path: Path, size: int, bytes_max: int) -> OSError:
    """Not damage: with a higher limit it may be read."""
    return OSError(errno.EFBIG, f"it has {size} bytes, and file_bytes_max allows {bytes_max}", str(path))
