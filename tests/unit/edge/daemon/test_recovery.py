"""Trying failed batches again, and what is left on the disk after each answer."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from totalizer.edge.batch import Batch, FailedBatch, RefusedEntry, decode_batch_file, decode_failed_file
from totalizer.edge.daemon import CronRecoveryDaemon, RecoveryResult
from totalizer.edge.daemon import recovery as recovery_module
from totalizer.edge.daemon.lock import recovery_lock
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.sink import Delivery
from totalizer.errors import SinkRefused, SinkUnavailable
from unit.edge.daemon.parts import HOUR_MS, T0, HandClock, ScriptedSink, away, entries, failed, keep

Make = Callable[..., CronRecoveryDaemon]


def read(path: Path) -> FailedBatch:
    return decode_failed_file(path.read_bytes(), str(path))


def the_failed(folders: Folders) -> FailedBatch:
    [path] = folders.failed_files()
    return read(path)


def the_abandoned(folders: Folders) -> FailedBatch:
    [path] = folders.abandoned_files()
    return read(path)


def refused(*indexes: int) -> tuple[RefusedEntry, ...]:
    return tuple(RefusedEntry(index, "invalid_event", f"entry {index} is wrong") for index in indexes)


def raising(error: Exception) -> Callable[[Batch], Delivery]:
    def answer(batch: Batch) -> Delivery:
        raise error

    return answer


def test_delivered(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    keep(folders, failed(retry_count=1))
    [found] = daemon.scan_for_failed_batches()
    result = daemon.reprocess_batch(found)
    assert (result.success, result.abandoned, result.retry_count, result.error) == (True, False, 1, None)
    assert result.entries_delivered == 3
    [attempt] = sink.attempts
    assert attempt == Batch(f"{T0}_a", T0, entries("a"), recovered=True)
    assert folders.failed_files() == folders.abandoned_files() == []


def test_not_delivered_waits_longer_each_time(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, clock: HandClock
) -> None:
    keep(folders, failed())
    sink.always = away
    waits = []
    for count in (1, 2, 3, 4):
        assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, failed=1)
        kept = the_failed(folders)
        assert (kept.retry_count, kept.last_error) == (count, "connection refused")
        assert kept.last_retry_at == clock.ms
        assert kept.failed_at == T0
        assert kept.next_retry_at is not None
        assert daemon.reprocess_failed_batches() == RecoveryResult(skipped=1)
        waits.append((kept.next_retry_at - clock.ms) / 60_000)
        clock.forward(kept.next_retry_at - clock.ms)
    assert all(0.8 * longest <= wait <= longest for wait, longest in zip(waits, (5, 20, 80, 320), strict=True))
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, abandoned=1)
    assert len(sink.attempts) == 5


def test_past_the_limit_it_is_abandoned(make: Make, folders: Folders, sink: ScriptedSink, clock: HandClock) -> None:
    keep(folders, failed(retry_count=1))
    sink.always = away
    daemon = make(batch_retry_limit=2)
    [found] = daemon.scan_for_failed_batches()
    result = daemon.reprocess_batch(found)
    assert (result.success, result.abandoned, result.retry_count, result.error) == (
        False,
        True,
        2,
        "connection refused",
    )
    assert folders.failed_files() == []
    kept = the_abandoned(folders)
    assert kept.batch.entries == entries("a")
    assert (kept.abandoned_at, kept.retry_count, kept.last_error) == (clock.ms, 2, "connection refused")
    [path] = folders.abandoned_files()
    assert path.name == f"batch_{T0}_a.abandoned.json"
    assert json.loads(path.read_bytes())["abandonedAt"] == clock.ms


def test_one_that_comes_with_all_its_attempts_is_not_tried(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    keep(folders, failed(retry_count=5))
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, abandoned=1)
    assert sink.attempts == []
    assert the_abandoned(folders).last_error == "the disk is full"
    metrics = daemon.get_recovery_metrics()
    assert (metrics.abandoned_batches, metrics.total_recovery_attempts) == (1, 0)


def test_half_delivered_keeps_only_the_rest(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    keep(folders, failed())

    def half(batch: Batch) -> Delivery:
        sink.take(batch, 1)
        raise SinkUnavailable("busy", undelivered=(0, 2))

    sink.script = [half]
    [found] = daemon.scan_for_failed_batches()
    result = daemon.reprocess_batch(found)
    assert (result.success, result.abandoned, result.retry_count) == (False, False, 1)
    assert result.entries_delivered == 1
    assert [entry["id"] for entry in the_failed(folders).batch.entries] == ["a-0", "a-2"]
    assert daemon.reprocess_batch(found).success
    assert [entry["id"] for entry in sink.attempts[1].entries] == ["a-0", "a-2"]
    assert sorted(sink.entries) == ["a-0", "a-1", "a-2"]


def test_refused_entries_are_abandoned_with_the_reasons(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    keep(folders, failed())
    sink.script = [lambda batch: Delivery(2, refused(1))]
    [found] = daemon.scan_for_failed_batches()
    result = daemon.reprocess_batch(found)
    assert (result.success, result.abandoned, result.retry_count) == (False, True, 1)
    assert result.error == "1 of 3 entries refused: invalid_event: entry 1 is wrong"
    assert folders.failed_files() == []
    kept = the_abandoned(folders)
    assert [entry["id"] for entry in kept.batch.entries] == ["a-1"]
    assert kept.refusals == (RefusedEntry(0, "invalid_event", "entry 1 is wrong"),)


def test_refused_one_away_one_delivered_one(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    """And the part that waits is given up later: both parts are in one file, each with what was said about it."""
    keep(folders, failed(retry_count=3))

    def answer(batch: Batch) -> Delivery:
        raise SinkUnavailable("busy", undelivered=(2,), refused=refused(0))

    sink.script, sink.always = [answer], away
    [found] = daemon.scan_for_failed_batches()
    first = daemon.reprocess_batch(found)
    assert (first.success, first.abandoned, first.entries_delivered) == (False, True, 1)
    assert [entry["id"] for entry in the_failed(folders).batch.entries] == ["a-2"]
    assert [entry["id"] for entry in the_abandoned(folders).batch.entries] == ["a-0"]
    second = daemon.reprocess_batch(found)
    assert (second.success, second.abandoned, second.retry_count) == (False, True, 5)
    assert folders.failed_files() == []
    kept = the_abandoned(folders)
    assert [entry["id"] for entry in kept.batch.entries] == ["a-0", "a-2"]
    assert kept.refusals == refused(0)
    assert kept.last_error == "connection refused"


def test_refused_as_a_whole(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    keep(folders, failed())
    sink.script = [raising(SinkRefused("no such key"))]
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, abandoned=1)
    kept = the_abandoned(folders)
    assert kept.last_error == "no such key"
    assert kept.batch.entries == entries("a")


def test_a_sink_that_lies(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    """Places that do not exist are nobody's, and what is said to wait and to be refused waits."""
    keep(folders, failed())

    def answer(batch: Batch) -> Delivery:
        raise SinkUnavailable("x", undelivered=(1, 7, -1), refused=refused(1, 9, -1))

    sink.script = [answer]
    result = daemon.reprocess_batch(daemon.scan_for_failed_batches()[0])
    assert (result.abandoned, result.entries_delivered) == (False, 2)
    assert [entry["id"] for entry in the_failed(folders).batch.entries] == ["a-1"]


def test_a_sink_that_raises_what_it_should_not(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, caplog: pytest.LogCaptureFixture
) -> None:
    keep(folders, failed())
    sink.script = [raising(KeyError("oh"))]
    result = daemon.reprocess_batch(daemon.scan_for_failed_batches()[0])
    assert (result.success, result.retry_count, result.error) == (False, 1, "KeyError: 'oh'")
    assert the_failed(folders).batch.entries == entries("a")
    assert "the sink failed on batch" in caplog.text


def test_the_oldest_first_then_the_fewest_attempts(daemon: CronRecoveryDaemon) -> None:
    young, old = failed("b", timestamp=T0 + 1), failed("c", timestamp=T0, retry_count=3)
    fresh = failed("d", timestamp=T0, retry_count=1)
    assert daemon.prioritize_batches([young, old, fresh]) == [fresh, old, young]


def test_they_are_tried_in_this_order(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    for name, timestamp in (("x", T0 + 2), ("y", T0), ("z", T0 + 1)):
        keep(folders, failed(name, timestamp=timestamp))
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=3, succeeded=3)
    assert [batch.batch_id[-1] for batch in sink.attempts] == ["y", "z", "x"]


def test_the_clock_set_back_keeps_no_batch_waiting(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, clock: HandClock
) -> None:
    keep(folders, failed())
    sink.script = [away]
    assert daemon.reprocess_failed_batches().failed == 1
    clock.set_back(1000 * HOUR_MS)
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, succeeded=1)


def test_backoff_survives_a_restart(make: Make, folders: Folders, sink: ScriptedSink, clock: HandClock) -> None:
    keep(folders, failed())
    sink.script = [away]
    make().reprocess_failed_batches()
    assert make().reprocess_failed_batches() == RecoveryResult(skipped=1)
    clock.forward(HOUR_MS)
    assert make().reprocess_failed_batches() == RecoveryResult(processed=1, succeeded=1)


def test_what_the_target_asks_for_is_kept_to_for_every_batch(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, clock: HandClock
) -> None:
    for name in ("a", "b"):
        keep(folders, failed(name))
    sink.script = [raising(SinkUnavailable("slow down", retry_after_s=1800))]
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, failed=1, skipped=1)
    assert [one.next_retry_at for one in daemon.scan_for_failed_batches()] == [T0 + 1_800_000, None]
    clock.forward(1_799_000)
    assert daemon.reprocess_failed_batches() == RecoveryResult(skipped=2)
    clock.forward(1000)
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=2, succeeded=2)


def test_a_target_that_is_away_costs_three_batches_an_attempt_and_not_all(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    for number in range(10):
        keep(folders, failed(str(number), timestamp=T0 + number))
    sink.always = away
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=3, failed=3, skipped=7)
    assert [one.retry_count for one in daemon.scan_for_failed_batches()] == [1] * 3 + [0] * 7
    assert daemon.reprocess_failed_batches(force=True) == RecoveryResult(processed=10, failed=10)


def test_a_batch_that_is_always_answered_with_an_error_keeps_no_other_waiting(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    for number in range(10):
        keep(folders, failed(str(number), timestamp=T0 + number))
    sink.always = lambda batch: away(batch) if batch.batch_id.endswith(("0", "1", "5")) else sink.take(batch)
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=10, succeeded=7, failed=3)


def test_a_chosen_batch_alone(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    for name in ("a", "b"):
        keep(folders, failed(name, next_retry_at=T0 + HOUR_MS))
    chosen = [one for one in daemon.scan_for_failed_batches() if one.batch_id.endswith("b")]
    assert daemon.reprocess_failed_batches(chosen) == RecoveryResult(skipped=1)
    assert daemon.reprocess_failed_batches(chosen, force=True) == RecoveryResult(processed=1, succeeded=1)
    assert [batch.batch_id for batch in sink.attempts] == [f"{T0}_b"]


def test_a_batch_that_lies_nowhere_is_kept_before_it_is_tried(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    seen = []
    sink.script = [lambda batch: (seen.extend(folders.failed_files()), away(batch))[1]]
    assert daemon.reprocess_batch(failed()).retry_count == 1
    assert [path.name for path in seen] == [f"batch_{T0}_a.failed.json"]
    assert the_failed(folders).retry_count == 1


def test_one_that_another_has_delivered_is_not_tried(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    keep(folders, failed())
    [found] = daemon.scan_for_failed_batches()
    Path(found.file_path).unlink()
    result = daemon.reprocess_batch(found)
    assert (result.success, result.tried) == (False, False)
    assert "is gone" in str(result.error)
    assert daemon.reprocess_failed_batches([found]) == RecoveryResult(skipped=1)
    assert sink.attempts == []


def test_the_file_counts_and_not_what_was_read_of_it(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    keep(folders, failed())
    [found] = daemon.scan_for_failed_batches()
    keep(folders, replace(failed(), retry_count=1, next_retry_at=T0 + HOUR_MS))  # another process has just tried it
    assert daemon.reprocess_failed_batches([found]) == RecoveryResult(skipped=1)
    assert sink.attempts == []


def test_a_batch_in_another_process_hands_is_left(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, clock: HandClock
) -> None:
    keep(folders, failed())
    with recovery_lock(folders, clock, 0):
        assert daemon.reprocess_failed_batches() == RecoveryResult(skipped=1)
    assert sink.attempts == []


def test_many_threads_try_a_batch_once(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    for number in range(20):
        keep(folders, failed(str(number)))
    threads = [threading.Thread(target=daemon.reprocess_failed_batches) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(batch.batch_id for batch in sink.attempts) == sorted(f"{T0}_{number}" for number in range(20))
    assert folders.failed_files() == []


def refusing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *rest: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(recovery_module, name, refuse)


def test_a_full_disk_loses_nothing(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(folders, failed(retry_count=2))
    [found] = daemon.scan_for_failed_batches()
    for name, answer in (("write_file", away), ("keep_abandoned", raising(SinkRefused("no")))):
        with monkeypatch.context() as patch:
            refusing(name, patch)
            sink.script = [answer]
            result = daemon.reprocess_batch(found)
        assert (result.success, result.abandoned, result.retry_count) == (False, False, 2)
        assert "No space left" in str(result.error)
        assert the_failed(folders) == replace(failed(retry_count=2), file_path=found.file_path)
    assert daemon.reprocess_batch(found).success


def test_delivered_and_the_disk_refuses_to_forget_it(
    daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(folders, failed())
    with monkeypatch.context() as patch:
        refusing("remove_file", patch)
        result = daemon.reprocess_batch(daemon.scan_for_failed_batches()[0])
    assert result.success
    assert "No space left" in str(result.error)
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, succeeded=1)
    assert len(sink.entries) == 3


def test_to_batch_files_by_default(make: Make, folders: Folders) -> None:
    keep(folders, failed())
    daemon = make(sink=None)
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, succeeded=1)
    [path] = folders.batch_files()
    assert decode_batch_file(path.read_bytes(), path.name) == Batch(f"{T0}_a", T0, entries("a"), recovered=True)


def test_the_log_says_what_became_of_each(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    for name in ("a", "b", "c"):
        keep(folders, failed(name))
    sink.script = [away, raising(SinkRefused("no"))]
    daemon.reprocess_failed_batches()
    lines = [json.loads(line) for line in (folders.logs / "recovery.log").read_text().splitlines()]
    told = [(line["operation"], line["level"], line.get("batchId")) for line in lines]
    assert told == [
        ("batch-failed", "WARNING", f"{T0}_a"), ("batch-abandoned", "ERROR", f"{T0}_b"),
        ("batch-recovered", "INFO", f"{T0}_c"), ("recovery", "INFO", None),
    ]  # fmt: skip
    assert lines[0]["error"] == "connection refused"
    assert lines[3] | {"processed": 3, "succeeded": 1, "failed": 1, "abandoned": 1} == lines[3]


def test_the_log_level(make: Make, folders: Folders) -> None:
    keep(folders, failed())
    make(log_level="error").reprocess_failed_batches()
    assert not (folders.logs / "recovery.log").exists()
