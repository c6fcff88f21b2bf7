"""What a cleanup removes, and above all what it never does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from totalizer.edge.daemon import CleanupResult, CronRecoveryDaemon
from totalizer.edge.folder import Folders
from unit.edge.daemon.parts import T0, HandClock, failed, keep

DAY_MS = 86_400_000
Make = Callable[..., CronRecoveryDaemon]


@pytest.fixture
def tree(folders: Folders) -> Folders:
    """One file of each kind, all of them eight days old."""
    (folders.data / "imported").mkdir()
    gone, living = 2**22 + 1, os.getpid()
    assert gone > int(Path("/proc/sys/kernel/pid_max").read_text()) if Path("/proc/sys/kernel").exists() else True
    paths = [
        folders.data / "batch_1_a.json", folders.data / "imported" / "batch_2_b.json",
        folders.data / "imported" / "notes.txt", folders.data / "mine.json",
        folders.data / f".batch_3_c.json.{gone}.abcdef01.tmp", folders.data / f".batch_4_d.json.{living}.abcdef01.tmp",
        folders.recovery / "batch_5_e.failed.json", folders.recovery / "daemon.lock",
        folders.abandoned / "batch_6_f.abandoned.json", folders.errors / "batch_7_g.failed.json",
        folders.errors / "batch_7_g.failed.json.reason", folders.errors / "batch_8_h.failed.json.reason",
        folders.health / "health-1.json", folders.health / "alerts.json", folders.logs / "recovery.log",
        folders.logs / "recovery.log.1", folders.logs / "aggregation.log.4", folders.logs / "mine.log.1",
        folders.journal / "edge-0" / "0000000000000001.segment",
    ]  # fmt: skip
    for path in paths:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x" * 100)
        age(path, 8)
    return folders


def age(path: Path, days: float) -> None:
    seconds = T0 / 1000 - days * 86_400
    os.utime(path, (seconds, seconds), follow_symlinks=False)


def names(folders: Folders, paths: list[Path]) -> set[str]:
    return {str(path.relative_to(folders.data.parent)) for path in paths}


GOES = {
    "aggregated/imported/batch_2_b.json", f"aggregated/.batch_3_c.json.{2**22 + 1}.abcdef01.tmp",
    "aggregated/recovery/errors/batch_8_h.failed.json.reason", "health/health-1.json", "logs/recovery.log.1",
    "logs/aggregation.log.4",
}  # fmt: skip


def everything(folders: Folders) -> set[str]:
    return names(folders, [path for path in folders.data.parent.rglob("*") if path.is_file()])


def test_what_goes_and_what_stays(daemon: CronRecoveryDaemon, tree: Folders) -> None:
    before = everything(tree)
    assert names(tree, daemon.identify_files_for_cleanup()) == GOES
    assert everything(tree) == before
    assert daemon.perform_cleanup() == CleanupResult(files_removed=6, space_freed=600, errors=0)
    assert everything(tree) == before - GOES
    assert daemon.perform_cleanup() == CleanupResult(0, 0, 0)
    assert daemon.get_metrics().cleanup_operations == 2


def test_only_what_is_old(daemon: CronRecoveryDaemon, tree: Folders, clock: HandClock) -> None:
    clock.set_back(2 * DAY_MS)  # nothing is seven days old
    assert daemon.identify_files_for_cleanup() == []
    assert names(tree, daemon.identify_files_for_cleanup(5 * DAY_MS)) == GOES
    age(tree.health / "health-1.json", -30)  # of the future
    assert names(tree, daemon.identify_files_for_cleanup(5 * DAY_MS)) == GOES - {"health/health-1.json"}


def test_batch_files_by_policy(make: Make, tree: Folders) -> None:
    imported = {"aggregated/imported/batch_2_b.json"}
    assert names(tree, make(cleanup_batches="never").identify_files_for_cleanup()) == GOES - imported
    aged = names(tree, make(cleanup_batches="aged").identify_files_for_cleanup())
    assert aged == GOES | {"aggregated/batch_1_a.json"}


def test_no_policy_removes_what_was_not_delivered(make: Make, folders: Folders, clock: HandClock) -> None:
    kept = [keep(folders, failed("a")), keep(folders, failed("b", abandoned_at=T0))]
    clock.forward(1000 * DAY_MS)
    make(cleanup_batches="aged").perform_cleanup(60_000)
    assert [path.name for path in (*folders.failed_files(), *folders.abandoned_files())] == [
        one.file_name for one in kept
    ]


def test_links_and_folders_are_left(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    outside = folders.data.parent / "outside.json"
    outside.write_text("precious")
    age(outside, 30)
    (folders.health / "health-1.json").symlink_to(outside)
    age(folders.health / "health-1.json", 30)
    (folders.health / "health-2.json").mkdir()
    age(folders.health / "health-2.json", 30)
    assert daemon.perform_cleanup() == CleanupResult(0, 0, 0)
    assert outside.read_text() == "precious"


def test_a_file_that_cannot_be_removed_is_counted(
    daemon: CronRecoveryDaemon, tree: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def unlink_others(path: Path) -> None:
        if path.name == "health-1.json":
            raise PermissionError(1, "no", str(path))
        unlink(path)

    monkeypatch.setattr("totalizer.journal.disk.os.unlink", unlink_others)
    assert daemon.perform_cleanup() == CleanupResult(files_removed=5, space_freed=500, errors=1)
    assert "not-removed" in (tree.logs / "recovery.log").read_text()


def test_folders_that_are_missing(tmp_path: Path, clock: HandClock) -> None:
    daemon = CronRecoveryDaemon(data_path=tmp_path / "nowhere" / "aggregated", clock=clock)
    assert daemon.perform_cleanup() == CleanupResult(0, 0, 0)
    assert not (tmp_path / "nowhere").exists()
