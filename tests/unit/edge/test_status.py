"""What others see of the journals, what they may ask of living processes, what becomes of the journals of dead ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import wait_until
from totalizer.edge import Batch, Delivery, SmartBatchAggregator
from totalizer.edge.adopt import adopt, idle_journals
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.file import FileSink
from totalizer.edge.status import JournalStatus, read_metrics, request_flush, waiting
from totalizer.journal.format import segment_numbers, segment_path
from unit.edge.parts import MemorySink, aggregator, delivered, entry, kept

TESTS = Path(__file__).parents[2]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "aggregated")


def dead(folders: Folders, count: int) -> set[str]:
    """Let a process add entries and be killed; their ids."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "unit.edge.sender", str(folders.data), str(count), "kill"],
        env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    return set(done.stdout.split())


def test_nothing_is_seen_where_nothing_is(folders: Folders) -> None:
    assert waiting(folders) == []
    assert idle_journals(folders) == []
    assert read_metrics(folders).flushes == 0
    assert adopt(folders, MemorySink()).journals == 0


def test_a_living_process_is_seen_with_what_waits(folders: Folders, tmp_path: Path) -> None:
    sink = MemorySink()
    sink.gate.clear()
    with aggregator(tmp_path, sink=sink, batch_size=3, flush_threshold=1.0) as made:
        before_ms = time.time_ns() // 1_000_000
        for number in range(5):
            made.add(entry(number))
        wait_until(lambda: bool(sink.attempts), "the delivery")
        [status] = waiting(folders)
        assert (status.folder, status.owner_pid) == (folders.journal / "edge-0", os.getpid())
        assert (status.unsealed, status.sealed, status.waiting) == (2, 3, 5)
        assert status.sealed_batch == sink.attempts[0].batch_id
        assert status.oldest_ms is not None
        assert before_ms <= status.oldest_ms <= time.time_ns() // 1_000_000
        assert idle_journals(folders) == []
        sink.gate.set()
    assert waiting(folders) == [JournalStatus(folders.journal / "edge-0", None, 0, None, None)]


def test_a_living_process_flushes_when_it_is_asked_to(folders: Folders, tmp_path: Path) -> None:
    sink = MemorySink()
    with aggregator(tmp_path, sink=sink) as made:
        for number in range(5):
            made.add(entry(number))
        assert sink.attempts == []
        request_flush(folders)
        wait_until(lambda: len(sink.entries) == 5, "the flush")


def test_a_request_from_before_a_process_began_is_not_its_own(folders: Folders, tmp_path: Path) -> None:
    with aggregator(tmp_path) as made:
        made.flush()
    request_flush(folders)
    sink = MemorySink()
    with aggregator(tmp_path, sink=sink) as made:
        made.add(entry(1))
        time.sleep(1.5)
        assert sink.attempts == []


def test_a_journal_of_a_dead_process_is_adopted_whole(folders: Folders) -> None:
    taken = dead(folders, 40)
    found = idle_journals(folders)
    assert [status.owner_pid for status in found] == [None]
    adopted = adopt(folders, FileSink(folders.data))
    assert (adopted.journals, adopted.failed, adopted.waiting, adopted.errors) == (1, 0, 0, ())
    assert set(delivered(folders)) == taken
    assert adopt(folders, FileSink(folders.data)).journals == 0


def test_only_journals_that_are_due_are_adopted(folders: Folders) -> None:
    dead(folders, 3)
    assert adopt(folders, FileSink(folders.data), due=lambda status: status.waiting > 5).journals == 0
    assert adopt(folders, FileSink(folders.data), due=lambda status: status.waiting > 2).delivered == 3


def test_what_cannot_be_delivered_is_kept_for_recovery(folders: Folders) -> None:
    taken = dead(folders, 3)
    sink = MemorySink()
    sink.refuse()
    adopted = adopt(folders, sink)
    assert (adopted.delivered, adopted.failed, adopted.waiting) == (0, 3, 0)
    assert "the target is away" in adopted.errors[0]
    assert set(kept(folders.failed_files())) == taken


def test_an_adoption_that_is_told_to_end_leaves_the_rest(folders: Folders) -> None:
    dead(folders, 200)
    sink = MemorySink()
    adopted = adopt(folders, sink, pause=lambda seconds: False)
    assert adopted.waiting == 200 - len({*delivered(folders), *sink.entries})
    assert len(sink.attempts) == 1


def test_a_killed_batch_keeps_its_name(folders: Folders, tmp_path: Path) -> None:
    """The process died between delivering a batch and noting it: it is delivered again, and known."""
    made = aggregator(tmp_path)
    for number in range(5):
        made.add(entry(number))
    sink = FileSink(folders.data)
    copies: list[Path] = []

    class Copying(MemorySink):
        def deliver(self, batch: Batch) -> Delivery:
            delivery = sink.deliver(batch)
            copies.append(Path(shutil.copytree(folders.journal, tmp_path / "journal as it was")))
            return delivery

    made.sink = made._courier.sink = Copying()
    made.flush()
    made.shutdown()
    shutil.rmtree(folders.journal)
    shutil.copytree(copies[0], folders.journal)
    [status] = idle_journals(folders)
    assert status.sealed == 5
    adopted = adopt(folders, FileSink(folders.data))
    assert adopted.delivered == 5
    assert len(delivered(folders)) == 5
    assert len(folders.batch_files()) == 1


def test_a_new_process_takes_an_idle_journal_up(folders: Folders, tmp_path: Path) -> None:
    taken = dead(folders, 5)
    with aggregator(tmp_path) as made:
        assert made.get_current_batch_size() == 5
        assert made.get_batch_age_ms() > 0
        assert {each["id"] for each in made.get_current_batch()} == taken
        assert [path.name for path in folders.journal.glob("edge-*")] == ["edge-0"]
    assert set(delivered(folders)) == taken


def test_entries_that_waited_too_long_for_a_dead_process_are_flushed_at_once(folders: Folders, tmp_path: Path) -> None:
    dead(folders, 5)
    time.sleep(0.1)
    with aggregator(tmp_path, max_age_ms=100) as made:
        assert made.get_current_batch_size() >= 0
        wait_until(lambda: len(delivered(folders)) == 5, "the flush")


@pytest.fixture
def damaged(folders: Folders) -> Path:
    """A dead process' journal that cannot be listed or read."""
    dead(folders, 3)
    folder = folders.journal / "edge-0"
    (folder / "journal.json").write_text('{"format": "totalizer journal", "version": 99}')
    return folder


def test_a_journal_that_cannot_be_read_is_told_and_stops_nobody(
    folders: Folders, damaged: Path, tmp_path: Path
) -> None:  # fmt: skip
    [status] = waiting(folders)
    assert status.error is not None
    assert "version 99" in status.error
    adopted = adopt(folders, MemorySink())
    assert (adopted.journals, len(adopted.errors)) == (0, 1)


def test_damage_in_a_journal_is_passed_over(folders: Folders) -> None:
    taken = dead(folders, 5)
    [status] = idle_journals(folders)
    path = segment_path(status.folder, segment_numbers(status.folder)[0])
    victim = sorted(taken)[2]
    path.write_bytes(path.read_bytes().replace(b'"id":"%s"' % victim.encode(), b'"id":"%s"' % (b"?" * len(victim))))
    adopted = adopt(folders, FileSink(folders.data))
    assert adopted.delivered == 4
    assert set(delivered(folders)) == taken - {victim}


def test_the_figures_of_a_process_are_there_within_seconds_and_at_its_end(folders: Folders, tmp_path: Path) -> None:
    sink = MemorySink()
    sink.refuse(times=1)
    with aggregator(tmp_path, sink=sink, max_age_ms=50) as made:
        made.add(entry(1))
        wait_until(lambda: read_metrics(folders).flushes == 1, "the figures")
        assert read_metrics(folders).retries == 1
    assert read_metrics(folders).delivered == 1


def test_a_flush_alone_delivers_what_a_dead_process_left(folders: Folders) -> None:
    taken = dead(folders, 5)
    SmartBatchAggregator(data_path=folders.data).flush()
    assert set(delivered(folders)) == taken
