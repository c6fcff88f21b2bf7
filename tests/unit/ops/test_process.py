from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from totalizer.ops.process import ProcessId, command_lines, end_processes, processes_marked, wait_until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"], env={**os.environ, "TOTALIZER_TEST_MARK": f"mark {os.getpid()}"})
    yield child
    child.kill()
    child.wait()


def identity_of(pid: int) -> ProcessId:
    found = ProcessId.of(pid)
    assert found is not None
    return found


def test_a_process_is_itself_and_not_a_later_one_of_its_number(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert identity.running()
    assert not ProcessId(sleeper.pid, identity.created - 60).running()


def test_a_signal_does_not_reach_a_stranger(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    ProcessId(sleeper.pid, identity.created - 60).send(signal.SIGKILL)
    assert identity.running()


def test_a_zombie_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    sleeper.kill()
    assert wait_until(lambda: not identity.running(), 10)
    assert sleeper.returncode is None  # nobody has reaped it
    sleeper.wait()
    assert ProcessId.of(sleeper.pid) is None


def test_ending_goes_from_gentle_to_firm() -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    steps = ((signal.SIGTERM, 0.2), (signal.SIGKILL, 10.0))
    assert not end_processes([identity_of(child.pid)], steps[:1])
    assert end_processes([identity_of(child.pid)], steps)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def test_marked_processes_are_found(sleeper: subprocess.Popen[bytes]) -> None:
    assert wait_until(lambda: bool(processes_marked("TOTALIZER_TEST_MARK", f"mark {os.getpid()}")), 10)
    assert [found.pid for found in processes_marked("TOTALIZER_TEST_MARK", f"mark {os.getpid()}")] == [sleeper.pid]
    assert processes_marked("TOTALIZER_TEST_MARK", "another") == []


def test_command_lines_hold_this_one(sleeper: subprocess.Popen[bytes]) -> None:
    assert wait_until(lambda: (identity_of(sleeper.pid), ["sleep", "60"]) in list(command_lines()), 10)
