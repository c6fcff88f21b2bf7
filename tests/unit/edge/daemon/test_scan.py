"""Looking for failed batches among whatever lies in the recovery folder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from support import unavailable
from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.folder import Folders
from unit.edge.daemon.parts import T0, entries, failed, keep

#: Where the tests' own modules are found.
TESTS = Path(__file__).parents[3]
GOOD = failed("good").encode()


def moved(folders: Folders) -> dict[str, str]:
    """Files in `recovery/errors` with the reasons beside them."""
    names = sorted(name for name in os.listdir(folders.errors) if not name.endswith(".reason"))
    return {name: (folders.errors / f"{name}.reason").read_text() for name in names}


def test_what_a_scan_tells_of_a_batch(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    kept = keep(folders, failed(retry_count=2, last_retry_at=T0 + 5, next_retry_at=T0 + 9))
    [found] = daemon.scan_for_failed_batches()
    assert (found.batch_id, found.timestamp, found.entry_count) == (f"{T0}_a", T0, 3)
    assert (found.retry_count, found.last_error) == (2, "the disk is full")
    assert (found.failed_at, found.last_retry_at, found.next_retry_at) == (T0, T0 + 5, T0 + 9)
    assert found.file_path == str(folders.recovery / kept.file_name)
    assert found.entries == entries("a")


def test_nothing_waits(daemon: CronRecoveryDaemon, tmp_path: Path) -> None:
    assert daemon.scan_for_failed_batches() == []
    assert CronRecoveryDaemon(data_path=tmp_path / "nowhere").scan_for_failed_batches() == []
    assert not (tmp_path / "nowhere").exists()


def test_files_of_the_documented_form_are_read(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    entry = {"userId": "u", "action": "edit", "timestamp": T0, "metadata": {"sessionId": "s"}}
    members = {
        "batchId": "1704067200000_def456", "timestamp": T0, "version": "2.0.0", "entries": [entry], "entryCount": 1,
        "retryCount": 3, "lastRetryAt": T0 + 600, "lastError": "File system write error", "failedAt": T0 + 300,
    }  # fmt: skip
    (folders.recovery / "batch_1704067200000_def456.failed.json").write_text(json.dumps(members))
    [found] = daemon.scan_for_failed_batches()
    assert (found.retry_count, found.last_error, found.next_retry_at) == (3, "File system write error", None)
    [read] = found.entries
    assert read.pop("id")
    assert read == entry


def make_link(path: Path) -> None:
    (path.parent.parent / "outside").write_bytes(GOOD)
    path.symlink_to(path.parent.parent / "outside")


def make_other_owner(path: Path) -> None:
    if os.geteuid():
        unavailable("only root can give files away")
    path.write_bytes(GOOD)
    os.chown(path, 12345, 12345)


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no JSON": (lambda path: path.write_text("nonsense"), "malformed"),
    "empty": (lambda path: path.write_bytes(b""), "truncated"),
    "cut": (lambda path: path.write_bytes(GOOD[: len(GOOD) // 2]), "truncated"),
    "binary": (lambda path: path.write_bytes(os.urandom(5000)), "batch_x"),
    "deep": (lambda path: path.write_text("[" * 100_000), "batch_x"),
    "another document": (lambda path: path.write_text('{"version": "2.0.0"}'), "batchId"),
    "no entries": (lambda path: path.write_bytes(failed(count=0).encode()), "no entries"),
    "wrong count": (lambda path: path.write_bytes(GOOD.replace(b'"entryCount": 3', b'"entryCount": 4')), "entryCount"),
    "a name that leads away": (lambda path: path.write_bytes(GOOD.replace(b"_good", b"/../x")), "batchId"),
    "a link": (make_link, "no regular file"),
    "a pipe": (os.mkfifo, "no regular file"),
    "a folder": (lambda path: path.mkdir(), "no regular file"),
    "somebody else's": (make_other_owner, "belongs to user 12345"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_cannot_be_read_is_moved_away_and_stops_nothing(
    daemon: CronRecoveryDaemon, folders: Folders, what: str
) -> None:
    spoil, reason = DAMAGED[what]
    keep(folders, failed("good"))
    path = folders.recovery / "batch_x.failed.json"
    spoil(path)
    before = path.lstat()
    assert [one.batch_id for one in daemon.scan_for_failed_batches()] == [f"{T0}_good"]
    assert not os.path.lexists(path)
    [(name, told)] = moved(folders).items()
    assert name == path.name
    assert reason in told
    assert (folders.errors / name).lstat().st_ino == before.st_ino
    assert len(daemon.scan_for_failed_batches()) == 1


def test_nothing_in_the_errors_is_replaced(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    for text in ("first", "second", "third"):
        (folders.recovery / "batch_x.failed.json").write_text(text)
        daemon.scan_for_failed_batches()
    texts = {name: (folders.errors / name).read_text() for name in moved(folders)}
    assert texts == {
        "batch_x.failed.json": "first", "batch_x.failed.json.2": "second", "batch_x.failed.json.3": "third"
    }  # fmt: skip


def test_a_later_version_is_left_and_reported(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    path = folders.recovery / "batch_x.failed.json"
    path.write_bytes(GOOD.replace(b'"2.0.0"', b'"3.0.0"'))
    assert daemon.scan_for_failed_batches() == []
    assert path.exists()
    assert "upgrade totalizer" in (folders.logs / "recovery.log").read_text()
    assert daemon.perform_health_check().daemon_health.unreadable_files == 1


def test_a_file_that_is_too_large_is_left_and_reported(
    make: Callable[..., CronRecoveryDaemon], folders: Folders
) -> None:
    path = folders.recovery / "batch_x.failed.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    keep(folders, failed("good"))
    tracemalloc.start()
    try:
        assert len(make().scan_for_failed_batches()) == 1
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert path.exists()
    assert "file_bytes_max allows" in (folders.logs / "recovery.log").read_text()


def test_a_file_that_the_disk_does_not_give_is_left(
    daemon: CronRecoveryDaemon, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(folders, failed("good"))
    path = folders.recovery / keep(folders, failed("bad")).file_name
    opened = os.open

    def open_others(name: Path, *rest: int) -> int:
        if name == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(name))
        return opened(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("totalizer.edge.daemon.failed_file.os.open", open_others)
        assert [one.batch_id for one in daemon.scan_for_failed_batches()] == [f"{T0}_good"]
    assert len(daemon.scan_for_failed_batches()) == 2


def test_what_cannot_be_moved_is_left(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    folders.errors.rmdir()
    (folders.recovery / "batch_x.failed.json").write_text("nonsense")
    assert daemon.scan_for_failed_batches() == []
    assert (folders.recovery / "batch_x.failed.json").read_text() == "nonsense"
    assert daemon.perform_health_check().daemon_health.unreadable_files == 1


def test_ten_thousand_failed_batches_are_read_one_at_a_time(folders: Folders) -> None:
    """Their entries are 500 MB as Python has them."""
    data = failed("x", count=30).encode().replace(b'"edit"', b'"' + b"e" * 200 + b'"')
    for number in range(10_000):
        name = f"{T0 + number}_x"
        (folders.recovery / f"batch_{name}.failed.json").write_bytes(data.replace(f"{T0}_x".encode(), name.encode()))
    command = [sys.executable, "-m", "unit.edge.daemon.many_failed", str(folders.data)]
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    succeeded, grown = map(int, done.stdout.split())
    assert succeeded == 10_000
    assert grown < 40 << 20, f"{grown >> 20} MiB"
    assert folders.failed_files() == []
