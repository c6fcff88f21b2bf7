"""The aggregator as its users see it."""

from __future__ import annotations

import gc
import logging
import shutil
import threading
import time
from pathlib import Path

import pytest

from support import wait_until
from totalizer.edge import (
    AggregatorClosed,
    Batch,
    FlushError,
    JournalFull,
    RateLimited,
    SinkRefused,
    SmartBatchAggregator,
    ValidationError,
)
from totalizer.edge.batch import RefusedEntry, decode_failed_file
from totalizer.edge.status import read_metrics, waiting
from unit.edge.parts import MemorySink, aggregator, delivered, entry, kept


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


def test_what_is_added_waits_and_a_flush_delivers_it(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink) as made:
        assert made.is_empty()
        assert made.get_batch_age_ms() == 0
        for number in range(5):
            made.add(entry(number))
        assert made.get_current_batch_size() == 5
        assert not made.is_empty()
        assert [each["metadata"]["of"] for each in made.get_current_batch()] == list("01234")
        assert len(made.get_current_batch(limit=2)) == 2
        assert made.get_batch_age_ms() >= 0
        made.flush()
        assert made.is_empty()
        assert made.get_current_batch() == []
        assert sink.numbers == list("01234")
        stats = made.get_stats()
        assert (stats.processed, stats.failed, stats.added, stats.current_batch_size) == (5, 0, 5, 0)


def test_the_current_batch_is_a_copy(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink) as made:
        made.add(entry(1))
        made.get_current_batch()[0]["userId"] = "someone else"
        made.flush()
        assert sink.batches[0].entries[0]["userId"] == "user 1"


def test_a_flush_of_nothing_does_nothing(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink) as made:
        made.flush()
        made.force_flush()
        assert sink.attempts == []
        assert made.get_performance_metrics().total_operations == 0


@pytest.mark.parametrize(
    ("options", "count", "trigger"),
    [
        ({"batch_size": 10, "flush_threshold": 1.0}, 10, "size"),
        ({"batch_size": 10, "flush_threshold": 0.71}, 8, "threshold"),
        ({"max_age_ms": 50}, 3, "age"),
    ],
)
def test_each_trigger_flushes_by_itself_and_is_counted(
    tmp_path: Path, sink: MemorySink, options: dict[str, float], count: int, trigger: str
) -> None:
    with aggregator(tmp_path, sink=sink, **options) as made:
        for number in range(count):
            made.add(entry(number))
        wait_until(lambda: len(sink.entries) == count, f"the flush by {trigger}")
        wait_until(lambda: made.get_performance_metrics().total_operations == 1, "its being counted")
        assert made.get_performance_metrics().triggers == {trigger: 1}


def test_below_the_threshold_nothing_is_flushed(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink, batch_size=10) as made:
        for number in range(8):
            made.add(entry(number))
        time.sleep(0.3)
        assert sink.attempts == []
        made.add(entry(8))
        wait_until(lambda: len(sink.entries) == 9, "the flush")


def test_the_age_is_that_of_the_oldest_entry_not_of_the_last(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink, max_age_ms=300) as made:
        started = time.monotonic()
        while not sink.attempts:
            made.add(entry(0))
            time.sleep(0.01)
            assert time.monotonic() - started < 60
        assert 1 < len(sink.attempts[0].entries) < 1000


def test_no_batch_is_larger_than_the_batch_size(tmp_path: Path, sink: MemorySink) -> None:
    sink.gate.clear()
    with aggregator(tmp_path, sink=sink, batch_size=10) as made:
        for number in range(95):
            made.add(entry(number))
        sink.gate.set()
        made.flush()
        assert sink.numbers == [str(number) for number in range(95)]
        assert max(len(batch.entries) for batch in sink.batches) == 10


def test_a_flush_waits_for_everything_added_before_it(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink, batch_size=7) as made:

        def work(worker: int) -> None:
            for number in range(30):
                name = f"{worker}-{number}"
                made.add(entry(name))
                if number % 5 == 0:
                    made.flush()
                    assert name in sink.numbers

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        failures: list[threading.ExceptHookArgs] = []
        hook, threading.excepthook = threading.excepthook, failures.append
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            threading.excepthook = hook
        assert failures == []
        made.flush()
        assert sorted(sink.numbers) == sorted(f"{worker}-{number}" for worker in range(8) for number in range(30))
        assert made.get_stats().processed == 240


def test_a_failing_target_is_tried_three_times_and_the_batch_is_kept(tmp_path: Path, sink: MemorySink) -> None:
    sink.refuse()
    made = aggregator(tmp_path, sink=sink)
    for number in range(4):
        made.add(entry(number))
    with pytest.raises(FlushError, match="the target is away; it is kept in") as failed:
        made.flush()
    error = failed.value
    assert (error.code, error.batch_size, error.retryable) == ("FLUSH_ERROR", 4, True)
    assert abs(error.timestamp - time.time() * 1000) < 60_000
    assert len(sink.attempts) == 3
    assert len({batch.batch_id for batch in sink.attempts}) == 1
    [file] = made.folders.failed_files()
    found = decode_failed_file(file.read_bytes(), file.name)
    assert (found.batch_id, found.retry_count) == (sink.attempts[0].batch_id, 0)
    assert found.last_error == "the target is away"
    assert len(kept([file])) == 4
    assert made.is_empty()
    metrics = made.get_performance_metrics()
    assert (metrics.failed_flushes, metrics.total_errors, metrics.retry_count, metrics.success_rate) == (1, 1, 2, 0.0)
    assert made.get_stats().failed == 4
    made.shutdown()


def test_a_target_that_comes_back_in_time_gets_the_batch(tmp_path: Path, sink: MemorySink) -> None:
    sink.refuse(times=2, retry_after_s=0.05)
    with aggregator(tmp_path, sink=sink) as made:
        made.add(entry(1))
        made.flush()
        assert made.get_performance_metrics().retry_count == 2
        assert made.get_performance_metrics().success_rate == 1.0


def test_a_target_that_asks_for_a_long_pause_is_left_to_recovery(tmp_path: Path, sink: MemorySink) -> None:
    sink.refuse(retry_after_s=3600)
    made = aggregator(tmp_path, sink=sink)
    made.add(entry(1))
    with pytest.raises(FlushError):
        made.flush()
    assert len(sink.attempts) == 1
    [file] = made.folders.failed_files()
    found = decode_failed_file(file.read_bytes(), file.name)
    assert found.next_retry_at is not None
    assert 3_590_000 < found.next_retry_at - found.failed_at < 3_610_000
    made.shutdown()


def test_only_what_was_not_delivered_is_sent_again_and_kept(tmp_path: Path, sink: MemorySink) -> None:
    """```
    entries   0 1 2 3 4
    first     - + r - -      + taken, r refused for good, - not now
    second    r     + -
    third             -
    ```"""
    from totalizer.edge import SinkUnavailable

    def before(batch: Batch) -> None:
        names = [each["metadata"]["of"] for each in batch.entries]
        if len(names) == 5:
            refused = (RefusedEntry(2, "invalid", "two is bad"),)
            raise SinkUnavailable("busy", undelivered=(0, 3, 4), refused=refused)
        if len(names) == 3:
            raise SinkUnavailable("busy", undelivered=(2,), refused=(RefusedEntry(0, "invalid", "zero is bad"),))
        raise SinkUnavailable("still busy")

    sink.before = before
    made = aggregator(tmp_path, sink=sink)
    for number in range(5):
        made.add(entry(number))
    with pytest.raises(FlushError, match=r"in part \(3 of 5 entries\)") as failed:
        made.flush()
    assert failed.value.retryable
    assert [each["metadata"]["of"] for each in kept(made.folders.failed_files()).values()] == ["4"]
    [file] = made.folders.abandoned_files()
    abandoned = decode_failed_file(file.read_bytes(), file.name)
    assert [each["metadata"]["of"] for each in abandoned.batch.entries] == ["2", "0"]
    assert [(each.index, each.message) for each in abandoned.refusals] == [(0, "two is bad"), (1, "zero is bad")]
    stats = made.get_stats()
    assert (stats.processed, stats.failed) == (2, 3)
    made.shutdown()


def test_a_batch_refused_for_good_is_kept_apart_and_not_tried_again(tmp_path: Path, sink: MemorySink) -> None:
    def before(batch: Batch) -> None:
        raise SinkRefused("no such organisation")

    sink.before = before
    made = aggregator(tmp_path, sink=sink)
    made.add(entry(1))
    with pytest.raises(FlushError, match="was refused: no such organisation") as failed:
        made.flush()
    assert not failed.value.retryable
    assert len(sink.attempts) == 1
    assert made.folders.failed_files() == []
    assert len(kept(made.folders.abandoned_files())) == 1
    made.shutdown()


def test_a_target_that_breaks_its_contract_loses_nothing(
    tmp_path: Path, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    def before(batch: Batch) -> None:
        raise ZeroDivisionError("a bug")

    sink.before = before
    made = aggregator(tmp_path, sink=sink)
    made.add(entry(1))
    with pytest.raises(FlushError, match="ZeroDivisionError: a bug"):
        made.flush()
    assert len(kept(made.folders.failed_files())) == 1
    assert "the sink failed on batch" in caplog.text
    sink.before = lambda batch: None
    made.add(entry(2))
    made.flush()
    made.shutdown()


def test_an_invalid_entry_is_refused_and_counted(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink) as made:
        with pytest.raises(ValidationError):
            made.add(entry(action=""))
        assert made.is_empty()
        assert made.get_stats().rejected == 1


def test_too_many_entries_a_second_are_refused(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink, rate_limit_per_s=3) as made:
        with pytest.raises(RateLimited, match="rate_limit_per_s=3; the next is taken in"):
            _add_all(made, 50)
        taken = made.get_stats().added
        assert 3 <= taken < 50
        time.sleep(0.5)
        made.add(entry("later"))


def _add_all(made: SmartBatchAggregator, count: int) -> None:
    for number in range(count):
        made.add(entry(number))


def _add_and_fail(made: SmartBatchAggregator) -> None:
    made.add(entry(1))
    raise KeyError("of our own")


def fill(made: SmartBatchAggregator) -> int:
    """Add until there is no room; how many were taken."""
    for number in range(3000):
        try:
            made.add(entry(number, metadata={"of": str(number), "x": "y" * 3000}))
        except JournalFull:
            return number
    raise AssertionError("it is never full")


def test_a_full_journal_refuses_if_so_told(tmp_path: Path, sink: MemorySink) -> None:
    sink.gate.clear()
    made = aggregator(tmp_path, sink=sink, quota_bytes=1 << 20, on_full="raise")
    count = fill(made)
    assert made.get_stats().rejected == 1
    sink.gate.set()
    made.flush()
    wait_until(lambda: not made._running().log.is_full, "room")
    made.add(entry("more"))
    made.shutdown()
    assert sink.numbers == [*(str(number) for number in range(count)), "more"]


def test_a_full_journal_holds_up_until_there_is_room(tmp_path: Path, sink: MemorySink) -> None:
    sink.gate.clear()
    made = aggregator(tmp_path, sink=sink, quota_bytes=1 << 20, on_full="block", full_timeout_ms=60_000)
    threading.Timer(0.5, sink.gate.set).start()
    for number in range(800):
        made.add(entry(number, metadata={"of": str(number), "x": "y" * 3000}))
    made.shutdown()
    assert sink.numbers == [str(number) for number in range(800)]
    assert made.get_stats().rejected == 0


def test_a_full_journal_does_not_hold_up_for_ever(tmp_path: Path, sink: MemorySink) -> None:
    sink.gate.clear()
    made = aggregator(tmp_path, sink=sink, quota_bytes=1 << 20, full_timeout_ms=100)
    count = fill(made)
    sink.gate.set()
    made.shutdown()
    assert len(sink.numbers) == count


def test_a_full_journal_drops_the_oldest_if_so_told_and_says_so(
    tmp_path: Path, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.gate.clear()
    made = aggregator(tmp_path, sink=sink, quota_bytes=1 << 20, on_full="drop_oldest", full_timeout_ms=60_000)
    count = 1200

    def slow(batch: Batch) -> None:
        time.sleep(0.3)

    sink.before = slow
    sink.gate.set()
    for number in range(count):
        made.add(entry(number, metadata={"of": str(number), "x": "y" * 3000}))
    made.shutdown()
    stats = made.get_stats()
    assert stats.dropped > 0
    assert stats.processed + stats.dropped == count == stats.added
    assert sink.numbers == sorted(set(sink.numbers), key=int)
    assert sink.numbers[-1] == str(count - 1)
    assert "waiting entries were dropped" in caplog.text


def test_after_shutdown_nothing_is_taken_and_a_second_one_does_nothing(tmp_path: Path, sink: MemorySink) -> None:
    made = aggregator(tmp_path, sink=sink)
    made.add(entry(1))
    made.shutdown()
    made.stop()
    assert sink.numbers == ["1"]
    assert sink.closed == 1
    with pytest.raises(AggregatorClosed):
        made.add(entry(2))
    made.flush()
    assert (made.is_empty(), made.get_current_batch(), made.get_batch_age_ms()) == (True, [], 0)
    assert made.get_stats().processed == 1
    assert made.get_stats().added == 1
    assert [thread.name for thread in threading.enumerate() if "flusher" in thread.name] == []


def test_one_that_was_never_used_has_nothing_running(tmp_path: Path, sink: MemorySink) -> None:
    before = threading.active_count()
    made = aggregator(tmp_path, sink=sink)
    made.get_stats()
    made.get_performance_metrics()
    made.get_batch_age_ms()
    assert threading.active_count() == before
    assert not made.folders.journal.exists()
    made.shutdown()


def test_leaving_the_block_delivers_and_tells_what_failed(tmp_path: Path, sink: MemorySink) -> None:
    sink.refuse()
    with pytest.raises(FlushError), aggregator(tmp_path, sink=sink) as made:
        made.add(entry(1))
    assert len(kept(made.folders.failed_files())) == 1


def test_an_error_in_the_block_is_not_covered_up(tmp_path: Path, sink: MemorySink) -> None:
    sink.refuse()
    with pytest.raises(KeyError, match="of our own"), aggregator(tmp_path, sink=sink) as made:
        _add_and_fail(made)
    assert len(kept(made.folders.failed_files())) == 1


def test_what_a_shutdown_has_no_time_for_stays_for_the_next_one(tmp_path: Path, sink: MemorySink) -> None:
    sink.refuse()
    made = aggregator(tmp_path, sink=sink)
    for number in range(3):
        made.add(entry(number))
    made.shutdown(timeout_ms=0)
    assert made.get_stats().current_batch_size == 3
    assert made.folders.failed_files() == []
    other = MemorySink()
    with aggregator(tmp_path, sink=other) as again:
        assert again.get_current_batch_size() == 3
        again.add(entry(3))
        again.flush()
    assert other.numbers == list("0123")


def test_a_flush_that_takes_too_long_says_so_and_the_entries_are_delivered_later(
    tmp_path: Path, sink: MemorySink
) -> None:
    sink.gate.clear()
    with aggregator(tmp_path, sink=sink) as made:
        made.add(entry(1))
        with pytest.raises(FlushError, match=r"^1 entries stay in the journal: they were not delivered within 0\.05 s"):
            made.flush(timeout_ms=50)
        sink.gate.set()
        made.flush()
        assert sink.numbers == ["1"]


def test_slow_flushes_are_counted_and_told(tmp_path: Path, sink: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    sink.before = lambda batch: time.sleep(0.05)
    with aggregator(tmp_path, sink=sink, target_time_ms=10, max_time_ms=20) as made:
        made.add(entry(1))
        made.flush()
        metrics = made.get_performance_metrics()
        assert (metrics.over_target, metrics.over_max) == (1, 1)
        assert metrics.min_flush_time_ms >= 50
    assert "max_time_ms is 20" in caplog.text


def test_the_figures_add_up(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink) as made:
        for number in range(20):
            made.add(entry(number))
            made.flush()
        metrics = made.get_performance_metrics()
    assert metrics.total_operations == 20
    assert metrics.min_flush_time_ms <= metrics.p50_flush_time_ms <= metrics.p95_flush_time_ms
    assert metrics.p95_flush_time_ms <= metrics.p99_flush_time_ms <= metrics.max_flush_time_ms
    assert metrics.average_flush_time_ms == pytest.approx(metrics.flush_time_sum_ms / 20)
    assert metrics.average_processing_time_ms == metrics.average_flush_time_ms
    counts = [count for _, count in metrics.buckets]
    assert counts == sorted(counts)
    assert metrics.buckets[-1] == (float("inf"), 20)
    total = read_metrics(made.folders)
    assert (total.flushes, total.delivered, total.added) == (20, 20, 20)


def test_figures_are_summed_over_processes_and_lives(tmp_path: Path) -> None:
    for _ in range(3):
        with aggregator(tmp_path) as one, aggregator(tmp_path) as two:
            one.add(entry(1))
            two.add(entry(2))
    assert (read_metrics(one.folders).added, read_metrics(one.folders).delivered) == (6, 6)
    assert len(delivered(one.folders)) == 6


def test_a_batch_is_processed_once_without_the_journal(tmp_path: Path, sink: MemorySink) -> None:
    with aggregator(tmp_path, sink=sink) as made:
        batch = Batch("1704067200000_abc123", 1_704_067_200_000, (entry(1, id="a"), entry(2, id="b")))
        result = made.process_batch(batch)
        assert (result.success, result.entries_processed, result.error) == (True, 2, None)
        assert made.process_batch({"batchId": "x", "entries": [entry(3)]}).success
        assert made.process_batch({"batch_id": "y", "entries": [entry(3)]}).success
        assert [each.batch_id for each in sink.batches] == ["1704067200000_abc123", "x", "y"]
        assert all(each["id"] for each in sink.batches[1].entries)
        assert not made.folders.journal.exists()
        assert made.get_stats().processed == 4


def test_a_batch_that_is_not_taken_is_told_not_raised(tmp_path: Path, sink: MemorySink) -> None:
    sink.refuse(retry_after_s=7.0)
    with aggregator(tmp_path, sink=sink) as made:
        result = made.process_batch({"batchId": "x", "entries": [entry(3)]})
        assert (result.success, result.entries_processed, result.error) == (False, 0, "the target is away")
        assert (result.undelivered, result.retry_after_s) == ((0,), 7.0)
        assert len(sink.attempts) == 1


@pytest.mark.parametrize(
    "batch",
    [
        {}, {"entries": []}, {"entries": 7}, {"entries": [1]}, {"entries": [{"a": object()}]},
        {"entries": [{"a": "\ud800"}]}, {"entries": [{"userId": "u"}], "version": "9.0.0"},
        {"entries": [{"userId": "u"}], "batchId": "../x"},
    ],
)  # fmt: skip
def test_what_is_no_batch_is_told_not_raised(tmp_path: Path, sink: MemorySink, batch: dict[str, object]) -> None:
    with aggregator(tmp_path, sink=sink) as made:
        result = made.process_batch(batch)
        assert not result.success
        assert result.error
        assert sink.attempts == []


def test_the_log_tells_errors_under_one_name(
    tmp_path: Path, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.refuse()
    with caplog.at_level(logging.DEBUG), pytest.raises(FlushError), aggregator(tmp_path, sink=sink) as made:
        made.add(entry(1))
    assert {record.name for record in caplog.records} == {"totalizer.edge"}


def test_one_that_nobody_holds_any_more_is_closed(tmp_path: Path, sink: MemorySink) -> None:
    made = aggregator(tmp_path, sink=sink)
    made.add(entry(1))
    folders = made.folders
    del made
    gc.collect()
    wait_until(lambda: sink.numbers == ["1"], "the delivery")
    wait_until(lambda: not any("flusher" in thread.name for thread in threading.enumerate()), "the thread's end")
    assert [status.owner_pid for status in waiting(folders)] == [None]


def test_a_disk_that_takes_neither_batches_nor_failed_ones_shows_in_the_figures(
    tmp_path: Path, sink: MemorySink
) -> None:
    sink.refuse()
    made = aggregator(tmp_path, sink=sink)
    made.add(entry(1))
    shutil.rmtree(made.folders.recovery)
    made.folders.recovery.write_text("in the way")
    with pytest.raises(FlushError, match="it stays in the journal"):
        made.flush()
    assert made.get_performance_metrics().success_rate == 0.0
    assert made.get_current_batch_size() == 1
    made.folders.recovery.unlink()
    sink.before = lambda batch: None
    made.force_flush()
    assert sink.numbers == ["1"]
    assert len({batch.batch_id for batch in sink.attempts}) == 1
    made.shutdown()


def test_a_target_that_raises_to_end_the_program_ends_no_thread_of_ours(tmp_path: Path, sink: MemorySink) -> None:
    def before(batch: Batch) -> None:
        raise SystemExit("from a target")

    sink.before = before
    with aggregator(tmp_path, sink=sink) as made:
        made.add(entry(1))
        with pytest.raises(FlushError, match="SystemExit: from a target"):
            made.flush()
        sink.before = lambda batch: None
        made.force_flush()
        assert sink.numbers == ["1"]


def test_flushes_that_a_shutdown_overtakes_say_what_is_left(tmp_path: Path, sink: MemorySink) -> None:
    sink.gate.clear()
    made = aggregator(tmp_path, sink=sink)
    made.add(entry(1))
    made.add(entry(2))
    told: list[str] = []

    def flush() -> None:
        try:
            made.flush()
        except FlushError as error:
            told.append(str(error))

    thread = threading.Thread(target=flush)
    thread.start()
    wait_until(lambda: bool(sink.attempts), "the delivery")
    sink.refuse()
    threading.Timer(0.3, sink.gate.set).start()
    made.shutdown(timeout_ms=0)
    thread.join()
    assert len(told) == 1
    assert "stay" in told[0]
