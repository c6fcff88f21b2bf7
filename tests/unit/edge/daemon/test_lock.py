"""The lock of a folder, over threads, processes and forks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from totalizer.clock import SYSTEM_CLOCK
from totalizer.edge.daemon.lock import Busy, FileLock, holder, recovery_lock
from totalizer.edge.folder import Folders


def test_one_has_it(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "l", SYSTEM_CLOCK), FileLock(tmp_path / "l", SYSTEM_CLOCK)
    assert holder(tmp_path / "l") is None
    assert first.acquire()
    assert holder(tmp_path / "l") == os.getpid()
    assert not second.acquire(0)
    first.release()
    first.release()
    assert holder(tmp_path / "l") is None
    assert second.acquire(0)
    second.release()
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600


def test_it_is_free_when_its_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from totalizer.clock import SYSTEM_CLOCK\n"
        "from totalizer.edge.daemon.lock import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]), SYSTEM_CLOCK); assert lock.acquire(); sys.stdout.write('x'); "
        "sys.stdout.flush(); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "l"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        assert holder(tmp_path / "l") == process.pid
        lock = FileLock(tmp_path / "l", SYSTEM_CLOCK)
        assert not lock.acquire(0)
        process.kill()
        process.wait()
    assert lock.acquire(0)
    lock.release()


def test_a_forked_child_neither_has_it_nor_keeps_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "l", SYSTEM_CLOCK)
    assert lock.acquire()
    told, tell = os.pipe()
    hold, release = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(release)
        os.write(tell, b"1" if lock.held else b"0")
        os.read(hold, 1)
        os._exit(0)
    try:
        os.close(hold)
        assert os.read(told, 1) == b"0"
        lock.release()
        again = FileLock(tmp_path / "l", SYSTEM_CLOCK)
        assert again.acquire(0), "the child, still alive, kept the lock"
        again.release()
    finally:
        os.close(release)
        os.waitpid(pid, 0)
        os.close(told)
        os.close(tell)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        FileLock(tmp_path / "l", SYSTEM_CLOCK).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_busy(folders: Folders) -> None:
    with recovery_lock(folders, SYSTEM_CLOCK, 0), pytest.raises(Busy), recovery_lock(folders, SYSTEM_CLOCK, 0.05):
        pass
    with recovery_lock(folders, SYSTEM_CLOCK, 0):
        pass
