"""The ends of a process: whatever it is, what was taken is delivered, or waits for the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import PATIENCE_S
from totalizer.edge import SmartBatchAggregator
from totalizer.edge.adopt import adopt, idle_journals
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.file import FileSink
from totalizer.edge.status import waiting
from unit.edge.parts import delivered

TESTS = Path(__file__).parents[2]


def start(folder: Path, count: int, end: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "unit.edge.sender", str(folder / "aggregated"), str(count), end],
        env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(folder: Path, count: int, end: str) -> tuple[int, set[str], str]:
    """Exit code, ids that were taken, what it wrote to stderr."""
    process = start(folder, count, end)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, set(out.split()), err


@pytest.mark.parametrize(("end", "code"), [("return", 0), ("exit", 3), ("error", 1), ("shutdown", 0)])
def test_an_orderly_end_delivers_what_waits(tmp_path: Path, end: str, code: int) -> None:
    returned, taken, err = run(tmp_path, 10, end)
    assert returned == code, err
    folders = Folders(tmp_path / "aggregated")
    assert set(delivered(folders)) == taken
    assert len(taken) == 10
    assert [status.waiting for status in waiting(folders)] == [0]


@pytest.mark.parametrize(("end", "code"), [("os._exit", 4), ("kill", -signal.SIGKILL)])
def test_a_sudden_end_leaves_what_waits_to_the_next_process(tmp_path: Path, end: str, code: int) -> None:
    returned, taken, err = run(tmp_path, 10, end)
    assert returned == code, err
    folders = Folders(tmp_path / "aggregated")
    [status] = idle_journals(folders)
    assert 0 < status.waiting <= 10
    assert set(delivered(folders)) < taken
    with SmartBatchAggregator(data_path=folders.data) as made:
        made.flush()
    assert set(delivered(folders)) == taken
    assert len(taken) == 10


def test_sigterm_delivers_what_waits_and_still_ends_the_process_as_a_signal(tmp_path: Path) -> None:
    process = start(tmp_path, 10, "wait")
    assert process.stdout is not None
    taken = set()
    while (line := process.stdout.readline().strip()) != "waiting":
        taken.add(line)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == -signal.SIGTERM
    process.communicate()
    assert set(delivered(Folders(tmp_path / "aggregated"))) == taken
    assert len(taken) == 10


def test_sigterm_delivers_also_what_only_other_threads_have_added(tmp_path: Path) -> None:
    code = (
        "import os, signal, threading, time\n"
        "from totalizer.edge import SmartBatchAggregator\n"
        "from unit.edge.parts import entry\n"
        f"made = SmartBatchAggregator(data_path={str(tmp_path / 'aggregated')!r})\n"
        "thread = threading.Thread(target=made.add, args=(entry(1),))\n"
        "thread.start(); thread.join()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(600)\n"
    )
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    assert process.wait(PATIENCE_S) == -signal.SIGTERM
    assert len(delivered(Folders(tmp_path / "aggregated"))) == 1


def test_a_second_sigterm_ends_the_process_at_once(tmp_path: Path) -> None:
    """The first one waits for a target that hangs."""
    code = (
        "import os, signal, time\n"
        "from totalizer.edge import SmartBatchAggregator\n"
        "from unit.edge.parts import MemorySink, entry\n"
        "sink = MemorySink()\n"
        "sink.gate.clear()\n"
        f"made = SmartBatchAggregator(data_path={str(tmp_path / 'aggregated')!r}, sink=sink, exit_timeout_ms=600_000)\n"
        "made.add(entry(1))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(600)\n"
    )
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    assert process.wait(PATIENCE_S) == -signal.SIGTERM
    [status] = idle_journals(Folders(tmp_path / "aggregated"))
    assert status.waiting == 1


def test_a_thread_that_adds_on_at_the_end_loses_nothing(tmp_path: Path) -> None:
    returned, taken, err = run(tmp_path, 3, "thread")
    assert returned == 0, err
    folders = Folders(tmp_path / "aggregated")
    adopted = adopt(folders, FileSink(folders.data))
    assert adopted.waiting == 0
    found = set(delivered(folders))
    assert taken <= found
    # The last one may have been taken and not told.
    assert len(found - taken) <= 1


def test_a_handler_of_the_programs_own_is_left_alone(tmp_path: Path) -> None:
    code = (
        "import signal, sys, os\n"
        "from totalizer.edge import SmartBatchAggregator\n"
        "from unit.edge.parts import entry\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        f"made = SmartBatchAggregator(data_path={str(tmp_path / 'aggregated')!r})\n"
        "made.add(entry(1))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 7
    assert len(delivered(Folders(tmp_path / "aggregated"))) == 1


def test_a_program_that_wants_no_handler_gets_none(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with SmartBatchAggregator(data_path=tmp_path / "a", flush_on_sigterm=False) as made:
        made.flush()
        assert signal.getsignal(signal.SIGTERM) is before


def test_an_end_that_would_take_long_is_cut_short(tmp_path: Path) -> None:
    """The target hangs; the process ends all the same, and the entries wait."""
    code = (
        "import time\n"
        "from totalizer.edge import SmartBatchAggregator\n"
        "from unit.edge.parts import MemorySink, entry\n"
        "sink = MemorySink()\n"
        "sink.before = lambda batch: time.sleep(600)\n"
        f"made = SmartBatchAggregator(data_path={str(tmp_path / 'aggregated')!r}, sink=sink, exit_timeout_ms=300)\n"
        "made.add(entry(1))\n"
    )
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    assert process.wait(PATIENCE_S) == 0
    [status] = idle_journals(Folders(tmp_path / "aggregated"))
    assert status.waiting == 1
