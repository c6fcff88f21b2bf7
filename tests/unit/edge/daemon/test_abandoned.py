"""Batches that were given up: kept together, and put back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from totalizer.edge.batch import FailedBatch, RefusedEntry, decode_failed_file
from totalizer.edge.daemon import CronRecoveryDaemon, RecoveryResult
from totalizer.edge.daemon.abandoned import keep_abandoned
from totalizer.edge.daemon.lock import recovery_lock
from totalizer.edge.folder import Folders
from totalizer.errors import DaemonError
from unit.edge.daemon.parts import T0, HandClock, ScriptedSink, entries, failed, keep

LIMIT = 1 << 20


def abandoned(name: str = "a", **members: object) -> FailedBatch:
    return failed(name, **{"abandoned_at": T0, "retry_count": 5, **members})


def read(path: Path) -> FailedBatch:
    return decode_failed_file(path.read_bytes(), path.name)


def ids(batch: FailedBatch) -> list[str]:
    return [entry["id"] for entry in batch.batch.entries]


def test_put_back_with_all_attempts_before_it(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    keep(folders, abandoned(refusals=(RefusedEntry(0, "x", "y"),), next_retry_at=T0 + 10**9))
    assert daemon.requeue() == [f"{T0}_a"]
    assert folders.abandoned_files() == []
    [path] = folders.failed_files()
    assert read(path) == replace(failed(), file_path=path.name)
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, succeeded=1)
    assert len(sink.entries) == 3


def test_only_those_that_are_named(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    for name in ("a", "b", "c"):
        keep(folders, abandoned(name))
    assert daemon.requeue([f"{T0}_b", "unknown"]) == [f"{T0}_b"]
    assert [path.name for path in folders.failed_files()] == [f"batch_{T0}_b.failed.json"]
    assert len(folders.abandoned_files()) == 2


def test_a_part_that_still_waits_is_put_together_with_it(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    whole = failed(count=4)
    keep(folders, replace(whole, batch=whole.batch.only([1, 2]), retry_count=3, next_retry_at=T0 + 10**9))
    keep(folders, replace(whole, batch=whole.batch.only([0, 2]), abandoned_at=T0))
    daemon.requeue()
    [path] = folders.failed_files()
    assert ids(read(path)) == ["a-1", "a-2", "a-0"]
    assert (read(path).retry_count, read(path).next_retry_at, read(path).abandoned_at) == (0, None, None)
    assert folders.abandoned_files() == []


def test_what_cannot_be_read_is_left(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    (folders.abandoned / "batch_x.abandoned.json").write_text("nonsense")
    keep(folders, abandoned())
    assert daemon.requeue() == [f"{T0}_a"]
    assert (folders.abandoned / "batch_x.abandoned.json").read_text() == "nonsense"


def test_a_busy_folder(daemon: CronRecoveryDaemon, folders: Folders, clock: HandClock) -> None:
    keep(folders, abandoned())
    with recovery_lock(folders, clock, 0), pytest.raises(DaemonError, match="busy"):
        daemon.requeue()
    assert len(folders.abandoned_files()) == 1


def test_parts_of_a_batch_are_kept_in_one_file_each_once(folders: Folders) -> None:
    whole = abandoned(count=3)
    first = replace(whole, batch=whole.batch.only([1]), refusals=(RefusedEntry(0, "x", "one"),))
    second = replace(whole, batch=whole.batch.only([0, 1]), refusals=(RefusedEntry(0, "x", "zero"),), last_error="late")
    for one in (first, second, second):
        path = keep_abandoned(one, folders, LIMIT)
    assert path == folders.abandoned / f"batch_{T0}_a.abandoned.json"
    assert ids(read(path)) == ["a-1", "a-0"]
    assert read(path).refusals == (RefusedEntry(0, "x", "one"), RefusedEntry(1, "x", "zero"))
    assert read(path).last_error == "late"


def test_a_damaged_file_in_the_way_stays(folders: Folders) -> None:
    (folders.abandoned / f"batch_{T0}_a.abandoned.json").write_text("nonsense")
    path = keep_abandoned(abandoned(), folders, LIMIT)
    assert path.name == f"batch_{T0}_a.2.abandoned.json"
    assert read(path).batch.entries == entries("a")
    assert keep_abandoned(abandoned(), folders, LIMIT) == path
    assert (folders.abandoned / f"batch_{T0}_a.abandoned.json").read_text() == "nonsense"
    assert len(folders.abandoned_files()) == 2
