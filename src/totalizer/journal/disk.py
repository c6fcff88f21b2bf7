"""Every system call with which the journal touches a disk, in one small class: what a fault test replaces.

Nothing here retries or hides an error: OSError goes up to the one who knows what was being written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path

#: Bytes of zeros written at once where a file cannot be preallocated by a system call.
_ZEROS_BYTES = 1 << 20
_NOT_SUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOTTY}


class Disk:
    """The real one. All methods may block, and raise OSError when the system refuses."""

    def create(self, path: Path) -> int:
        """Descriptor of a new file, mode 0600, for reading and writing; FileExistsError if there is one."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)

    def open(self, path: Path, *, writable: bool = False) -> int:
        """Descriptor of a file that exists and is no symbolic link."""
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW)

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write some of `data` at `offset`; returns how many bytes, which may be fewer than asked."""
        return os.pwrite(descriptor, data, offset)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end of the file."""
        return os.pread(descriptor, length, offset)

    def fdatasync(self, descriptor: int) -> None:
        """Return when the file's data, and its size, would survive a power loss."""
        if sys.platform == "darwin":
            _full_sync(descriptor)
        else:
            os.fdatasync(descriptor)

    def fsync(self, descriptor: int) -> None:
        """Return when the file, data and everything about it, would survive a power loss."""
        if sys.platform == "darwin":
            _full_sync(descriptor)
        else:
            os.fsync(descriptor)

    def reserve(self, descriptor: int, size: int) -> None:
        """Give the file `size` bytes, zeros where nothing was written, with blocks that later writes cannot lack."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
            else:
                return
        zeros = memoryview(bytes(_ZEROS_BYTES))
        for offset in range(0, size, _ZEROS_BYTES):
            self.write_all(descriptor, zeros[: size - offset], offset)

    def truncate(self, descriptor: int, size: int) -> None:
        """Make the file `size` bytes long."""
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        """Give the descriptor back."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file over whatever is at `target`, on one file system. Durable after `sync_folder`."""
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a further name; FileExistsError if that is taken. Durable after `sync_folder`."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file. Durable after `sync_folder`."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Make a folder, mode 0700. Durable after `sync_folder` of its parent."""
        os.mkdir(path, 0o700)

    def sync_folder(self, path: Path) -> None:
        """Return when the folder's entries would survive a power loss."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(descriptor)
        finally:
            self.close(descriptor)

    def write_all(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`, going on after short writes."""
        written = self.pwrite(descriptor, data, offset)
        while written < len(data):
            more = self.pwrite(descriptor, memoryview(data)[written:], offset + written)
            if more <= 0:
                raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
            written += more

    def replace_file(self, path: Path, data: bytes) -> None:
        """Put a whole new file at `path`, durably: after a power loss there is the old one or the new one."""
        draft = path.with_name(path.name + ".new")
        if os.path.lexists(draft):
            self.unlink(draft)
        descriptor = self.create(draft)
        try:
            self.write_all(descriptor, data, 0)
            self.fsync(descriptor)
        finally:
            self.close(descriptor)
        self.rename(draft, path)
        self.sync_folder(path.parent)


def _full_sync(descriptor: int) -> None:
    """On macOS fsync leaves data in the drive's cache; F_FULLFSYNC empties that too, where the volume can."""
    try:
        fcntl.fcntl(descriptor, getattr(fcntl, "F_FULLFSYNC"))  # noqa: B009 - the name exists on macOS alone
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        os.fsync(descriptor)


DISK = Disk()
