"""fork(): the child gets a journal and a thread of its own, and takes nothing of the parent's."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import wait_until
from totalizer.edge import SmartBatchAggregator
from totalizer.edge.adopt import adopt
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.file import FileSink
from totalizer.edge.status import waiting
from unit.edge.parts import aggregator, delivered, entry

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def in_child(work: Callable[[], None]) -> int:
    """Run something in a forked child, which then ends without any clean-up; the pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def ended_well(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def add(made: SmartBatchAggregator, names: list[str]) -> None:
    for name in names:
        made.add(entry(name, id=name))


def test_made_before_the_fork_used_after_it_on_both_sides(tmp_path: Path) -> None:
    """As under a server that loads the application before it forks its workers."""
    made = aggregator(tmp_path)

    def work() -> None:
        add(made, ["child"])
        made.shutdown()

    pids = [in_child(work) for _ in range(1)]
    add(made, ["parent"])
    assert all(map(ended_well, pids))
    made.shutdown()
    assert set(delivered(made.folders)) == {"child", "parent"}
    assert {status.folder.name for status in waiting(made.folders)} <= {"edge-0", "edge-1"}


def test_used_before_the_fork_and_after_it_on_both_sides(tmp_path: Path) -> None:
    made = aggregator(tmp_path)
    add(made, ["before"])

    def work() -> None:
        assert made.get_stats().added == 0
        add(made, [f"child {number}" for number in range(5)])
        assert made.get_current_batch_size() == 5
        made.flush()
        made.shutdown()

    pids = [in_child(work) for _ in range(1)]
    add(made, ["after"])
    assert all(map(ended_well, pids))
    assert made.get_current_batch_size() == 2
    made.shutdown()
    assert set(delivered(made.folders)) == {"before", "after", *(f"child {number}" for number in range(5))}


def test_a_child_that_ends_without_a_word_leaves_its_entries_to_others(tmp_path: Path) -> None:
    made = aggregator(tmp_path)
    add(made, ["parent"])
    assert ended_well(in_child(lambda: add(made, ["child"])))
    adopted = adopt(made.folders, FileSink(made.folders.data))
    assert (adopted.journals, adopted.delivered, adopted.waiting) == (1, 1, 0)
    assert set(delivered(made.folders)) == {"child"}
    assert made.get_current_batch_size() == 1
    made.shutdown()
    assert set(delivered(made.folders)) == {"child", "parent"}


def test_forks_while_threads_are_adding_and_flushing(tmp_path: Path) -> None:
    """Whatever a thread was at when the process forked, the child finds no lock held."""
    made = aggregator(tmp_path, batch_size=5)
    stop = threading.Event()
    names: list[str] = []

    def keep_adding(worker: int) -> None:
        number = 0
        while not stop.is_set():
            add(made, [f"parent {worker} {number}"])
            names.append(f"parent {worker} {number}")
            number += 1
            if number % 20 == 0:
                made.flush()

    threads = [threading.Thread(target=keep_adding, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for number in range(15):
        name = f"child {number}"

        def work(name: str = name) -> None:
            add(made, [name])
            made.flush()
            made.shutdown()

        assert ended_well(in_child(work))
        names.append(name)
    stop.set()
    for thread in threads:
        thread.join()
    made.shutdown()
    assert set(delivered(made.folders)) == set(names)


def test_a_child_that_does_nothing_disturbs_nothing(tmp_path: Path) -> None:
    made = aggregator(tmp_path)
    add(made, ["before"])

    def work() -> None:
        gc.collect()

    assert ended_well(in_child(work))
    add(made, ["after"])
    made.flush()
    assert set(delivered(made.folders)) == {"before", "after"}
    made.shutdown()


def test_a_child_of_a_closed_one_is_closed(tmp_path: Path) -> None:
    made = aggregator(tmp_path)
    add(made, ["before"])
    made.shutdown()
    assert ended_well(in_child(made.shutdown))


def test_ids_of_parent_and_child_differ(tmp_path: Path) -> None:
    made = aggregator(tmp_path)
    made.add(entry(0))

    def work() -> None:
        for number in range(200):
            made.add(entry(number))
        made.shutdown()

    pid = in_child(work)
    for number in range(200):
        made.add(entry(number))
    assert ended_well(pid)
    made.shutdown()
    assert len(delivered(made.folders)) == 401


def test_a_grandchild(tmp_path: Path) -> None:
    made = aggregator(tmp_path)
    add(made, ["parent"])

    def work() -> None:
        add(made, ["child"])
        assert ended_well(in_child(lambda: (add(made, ["grandchild"]), made.shutdown())[1]))
        made.shutdown()

    assert ended_well(in_child(work))
    made.shutdown()
    assert set(delivered(made.folders)) == {"parent", "child", "grandchild"}


def test_a_living_process_adopts_what_a_dead_child_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totalizer.edge.engine.ADOPT_INTERVAL_S", 0.2)
    made = aggregator(tmp_path)
    add(made, ["parent"])
    assert ended_well(in_child(lambda: add(made, [f"child {number}" for number in range(50)])))
    wait_until(lambda: len(delivered(made.folders)) == 50, "the adoption")
    wait_until(lambda: sum(status.waiting for status in waiting(made.folders)) == 1, "its being noted")
    assert made.get_performance_metrics().triggers == {"adopted": 1}
    time.sleep(0.1)
    made.shutdown()
    assert len(delivered(made.folders)) == 51


def _work(data_path: Path, name: str) -> None:
    made = SmartBatchAggregator(data_path=data_path, max_age_ms=600_000)
    add(made, [f"{name} {number}" for number in range(3)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_delivers_at_its_end(tmp_path: Path, method: str) -> None:
    folders = Folders(tmp_path / "aggregated")
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=_work, args=(folders.data, f"worker {number}")) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(delivered(folders)) == 6


def test_a_child_that_is_told_to_end_ends_as_a_signal(tmp_path: Path) -> None:
    """The parent handles SIGTERM; a child that never used its aggregator has inherited that handler."""
    made = SmartBatchAggregator(data_path=tmp_path / "aggregated")
    add(made, ["parent"])
    pid = in_child(lambda: time.sleep(600))
    time.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    made.shutdown()
