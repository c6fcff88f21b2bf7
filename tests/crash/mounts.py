"""File systems of a test's own: images on a loop device that lose power or freeze, and small ones in memory."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import unavailable

#: FS_IOC_SHUTDOWN of ext4 and XFS_IOC_GOINGDOWN of XFS are one number; 2 keeps the log from being flushed as well.
_SHUTDOWN, _WITHOUT_LOG_FLUSH = 0x8004587D, 2
#: FIFREEZE and FITHAW, linux/fs.h.
_FREEZE, _THAW = 0xC0045877, 0xC0045878
#: The smallest images that mkfs makes; they are sparse.
IMAGE_BYTES = {"ext4": 32 << 20, "xfs": 320 << 20}


class Mount:
    """A mounted file system.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path, source: Path | str, kind: str, options: str) -> None:
        self.path, self._source, self._kind, self._options = path, source, kind, options

    def mount(self) -> None:
        """Mount it; skips the test where that is not allowed."""
        command = ["mount", "-t", self._kind, "-o", self._options, str(self._source), str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            unavailable(f"{self._kind} cannot be mounted here: {done.stderr.strip()}")

    def umount(self) -> None:
        """Take it away; what it has in memory is written first, unless the power was cut."""
        subprocess.run(["umount", self.path], check=True)

    def remount(self, options: str) -> None:
        """Change its options while it stays."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def cut_power(self) -> None:
        """From here on nothing reaches the image; every call that would gets an error."""
        self._control(_SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))

    def freeze(self) -> None:
        """Let every call that changes something wait."""
        self._control(_FREEZE)

    def thaw(self) -> None:
        """Let them go on. Nothing happens if it is not frozen."""
        try:
            self._control(_THAW)
        except OSError:
            return

    def break_down(self) -> None:
        """Let ext4 find an error in itself: it turns read-only at once, whoever writes, until it is mounted anew."""
        device = os.stat(self.path).st_dev
        name = Path(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")).name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("a test")

    def _control(self, request: int, argument: bytes = struct.pack("I", 0)) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, request, argument)
        finally:
            os.close(descriptor)


def require_root() -> None:
    """Skip for an ordinary user: only root may mount."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("mounting needs root on Linux")


@contextmanager
def _mounted(mount: Mount) -> Iterator[Mount]:
    mount.path.mkdir()
    mount.mount()
    try:
        yield mount
    finally:
        mount.thaw()
        if os.path.ismount(mount.path):
            # Lazily: after a failed test a journal may still be open in there.
            subprocess.run(["umount", "--lazy", mount.path], check=True)


@contextmanager
def image(place: Path, kind: str) -> Iterator[Mount]:
    """An empty ext4 or XFS; skips where it cannot be had. XFS is no part of what CI must have."""
    require_root()
    program = f"mkfs.{kind}"
    if shutil.which(program) is None:
        (pytest.skip if kind == "xfs" else unavailable)(f"there is no {program}")
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        (pytest.skip if kind == "xfs" else unavailable)(f"this kernel has no {kind}")
    file = place / f"{kind}.image"
    with file.open("wb") as opened:
        opened.truncate(IMAGE_BYTES[kind])
    subprocess.run([program, "-q", file], check=True, capture_output=True)
    with _mounted(Mount(place / kind, file, kind, "loop,errors=remount-ro" if kind == "ext4" else "loop")) as mount:
        yield mount


@contextmanager
def in_memory(place: Path, options: str) -> Iterator[Mount]:
    """A tmpfs with the given options, for example `size=512k,nr_inodes=20`."""
    require_root()
    with _mounted(Mount(place / "memory", "tmpfs", "tmpfs", options)) as mount:
        yield mount
