"""The daemon beside a real aggregator: one delivers through the other, and what either leaves, the other finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from totalizer.edge import FlushError, SmartBatchAggregator
from totalizer.edge.batch import Batch, RefusedEntry, decode_batch_file
from totalizer.edge.daemon import CronRecoveryDaemon, RecoveryResult
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.sink import Delivery
from totalizer.edge.status import waiting
from totalizer.errors import SinkRefused, SinkUnavailable
from unit.edge.daemon.parts import T0, ScriptedSink, away, failed, keep

Make = Callable[..., CronRecoveryDaemon]
ENTRY = {"userId": "u", "action": "edit", "timestamp": T0}


@pytest.fixture
def aggregator(folders: Folders, sink: ScriptedSink) -> Iterator[SmartBatchAggregator]:
    made = SmartBatchAggregator(data_path=folders.data, sink=sink)
    yield made
    made.shutdown()


def test_what_an_aggregator_could_not_deliver_is_delivered_through_it(
    make: Make, aggregator: SmartBatchAggregator, folders: Folders, sink: ScriptedSink
) -> None:
    sink.script = [away] * 3
    for number in range(5):
        aggregator.add({**ENTRY, "id": f"entry-{number}"})
    with pytest.raises(FlushError):
        aggregator.flush()
    assert len(folders.failed_files()) == 1
    daemon = make(aggregator=aggregator, sink=None)
    assert daemon.reprocess_failed_batches() == RecoveryResult(processed=1, succeeded=1)
    assert sorted(sink.entries) == [f"entry-{number}" for number in range(5)]
    assert sink.attempts[-1].recovered
    assert len({batch.batch_id for batch in sink.attempts}) == 1
    assert folders.failed_files() == []


def test_the_aggregator_s_folders_and_figures(aggregator: SmartBatchAggregator, folders: Folders) -> None:
    daemon = CronRecoveryDaemon({}, aggregator)
    assert daemon.folders.data == folders.data
    aggregator.add(ENTRY)
    aggregator.flush()
    assert daemon.perform_health_check().aggregator_health.total_operations == 1
    elsewhere = CronRecoveryDaemon(data_path=folders.data).perform_health_check()
    assert elsewhere.aggregator_health.success_rate == 1.0


def partly(batch: Batch) -> Delivery:
    raise SinkUnavailable(
        "slow down", retry_after_s=7200, undelivered=(2,), refused=(RefusedEntry(0, "invalid_event", "wrong"),)
    )


def test_all_that_a_sink_says_reaches_the_daemon(
    make: Make, aggregator: SmartBatchAggregator, folders: Folders, sink: ScriptedSink
) -> None:
    keep(folders, failed())
    sink.script = [partly]
    daemon = make(aggregator=aggregator, sink=None)
    result = daemon.reprocess_batch(daemon.scan_for_failed_batches()[0])
    assert (result.success, result.abandoned, result.entries_delivered) == (False, True, 1)
    [rest] = daemon.scan_for_failed_batches()
    assert [entry["id"] for entry in rest.entries] == ["a-2"]
    assert rest.next_retry_at == T0 + 7_200_000
    assert len(folders.abandoned_files()) == 1


def refuse(batch: Batch) -> Delivery:
    raise SinkRefused("never")


def test_refused_through_an_aggregator(
    make: Make, aggregator: SmartBatchAggregator, folders: Folders, sink: ScriptedSink
) -> None:
    keep(folders, failed())
    sink.script = [refuse]
    result = make(aggregator=aggregator, sink=None).reprocess_failed_batches()
    assert result == RecoveryResult(processed=1, abandoned=1)
    assert folders.failed_files() == []


class Plain:
    """An aggregator of somebody else's, which says no more than it must."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, 0

    def process_batch(self, batch: Batch) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Answer:
    """What it answers."""

    def __init__(self, success: bool, error: str | None = None, **more: Any) -> None:
        self.success, self.error, self.entries_processed = success, error, 0
        vars(self).update(more)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(False, "no"), "no"),
        (Answer(False), "it did not say why"),
        (Answer(False, "no", undelivered=(), refused=()), "no"),
        (RuntimeError("oh"), "RuntimeError: oh"),
    ],
)
def test_an_aggregator_that_says_little_loses_nothing(make: Make, folders: Folders, answer: Any, error: str) -> None:
    for number in range(5):
        keep(folders, failed(str(number)))
    daemon = make(aggregator=Plain(answer), sink=None)
    [first, *_] = daemon.scan_for_failed_batches()
    result = daemon.reprocess_batch(first)
    assert (result.success, result.retry_count, result.error) == (False, 1, error)
    assert [len(one.entries) for one in daemon.scan_for_failed_batches()] == [3] * 5


def test_one_that_does_not_say_that_the_target_is_away_is_asked_for_every_batch(make: Make, folders: Folders) -> None:
    for number in range(5):
        keep(folders, failed(str(number)))
    aggregator = Plain(Answer(False, "no"))
    assert make(aggregator=aggregator, sink=None).reprocess_failed_batches() == RecoveryResult(processed=5, failed=5)
    aggregator.answer = Answer(True)
    assert make(aggregator=aggregator, sink=None).reprocess_failed_batches(force=True).succeeded == 5


KILLED = """
import os, signal, sys
from totalizer.edge import SmartBatchAggregator
aggregator = SmartBatchAggregator(data_path=sys.argv[1], max_age_ms=3_600_000)
for number in range(7):
    aggregator.add({"id": f"left-{number}", "userId": "u", "action": "edit", "timestamp": 1704067200000})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left_behind(folders: Folders) -> Folders:
    """Seven entries wait in the journal of a process that was killed."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(folders.data)], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    assert [status.waiting for status in waiting(folders)] == [7]
    return folders


LEFT = [f"left-{number}" for number in range(7)]


def test_the_journal_of_a_dead_process_is_delivered(make: Make, left_behind: Folders) -> None:
    daemon = make(sink=None)
    adopted = daemon.adopt_idle_journals()
    assert (adopted.journals, adopted.delivered, adopted.waiting) == (1, 7, 0)
    [path] = left_behind.batch_files()
    assert [entry["id"] for entry in decode_batch_file(path.read_bytes(), path.name).entries] == LEFT
    assert daemon.adopt_idle_journals().journals == 0


def test_also_through_an_aggregator_that_has_nothing_to_do_itself(
    make: Make, left_behind: Folders, aggregator: SmartBatchAggregator, sink: ScriptedSink
) -> None:
    assert make(aggregator=aggregator, sink=None).adopt_idle_journals().delivered == 7
    assert sorted(sink.entries) == LEFT


def test_what_a_target_does_not_take_then_becomes_a_failed_batch(
    make: Make, left_behind: Folders, sink: ScriptedSink
) -> None:
    sink.script = [away, partly]
    daemon = make()
    adopted = daemon.adopt_idle_journals()
    assert (adopted.delivered, adopted.failed, adopted.waiting) == (5, 2, 0)
    assert (len(left_behind.failed_files()), len(left_behind.abandoned_files())) == (1, 1)
    assert daemon.reprocess_failed_batches(force=True).succeeded == 1
