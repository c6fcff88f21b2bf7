"""`totalizer up` with stand-in programs: order, restarts, giving up, being killed, taking over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from totalizer.ops.down import bring_down
from totalizer.ops.plan import PLAN_VARIABLE, UpPlan
from totalizer.ops.process import ProcessId, wait_until
from totalizer.ops.state import State, read_state

STANDIN = Path(__file__).with_name("standin.py")
#: Seconds within which anything expected of the supervisor has to happen.
PATIENCE = 40.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Up:
    """One data folder and the supervisors started on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.started: list[subprocess.Popen[str]] = []

    def start(self, **changes: object) -> subprocess.Popen[str]:
        plan = UpPlan(str(self.home), "127.0.0.1", self.port, program=(sys.executable, str(STANDIN)))
        text = json.dumps({**json.loads(plan.encode()), **changes})
        child = subprocess.Popen(
            [sys.executable, "-m", "totalizer.ops.up"], env={**os.environ, PLAN_VARIABLE: text},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(child)
        return child

    def ready(self, **changes: object) -> tuple[subprocess.Popen[str], State]:
        child = self.start(**changes)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert "is ready" in line, line + child.communicate()[1]
        state = read_state(self.home)
        assert state is not None
        parts = {str(state.pids[name]) for name in ("api", "loader", "scheduler", "monitor")}
        # Only the API is waited for until it is ready.
        assert wait_until(lambda: parts <= {line.split()[1] for line in self.text("runs")}, PATIENCE), self.log()
        return child, state

    def text(self, file: str) -> list[str]:
        path = self.home / file
        # A line that is being written has no end yet.
        return (
            [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if path.exists()
            else []
        )

    def lines(self, file: str) -> list[str]:
        return [line.split()[0] for line in self.text(file)]

    def wait_for(self, file: str, name: str, times: int) -> None:
        assert wait_until(lambda: self.lines(file).count(name) >= times, PATIENCE), self.log()

    def log(self) -> str:
        return (self.home / "log" / "up.log").read_text()


def end(child: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    child.send_signal(number)
    _, errors = child.communicate(timeout=PATIENCE)
    return child.returncode, errors


def runs(pid: int) -> bool:
    """True unless it has ended; one that nobody has reaped yet has."""
    identity = ProcessId.of(pid)
    return identity is not None and identity.running()


def left_running(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join([*process.cmdline(), process.environ().get("TOTALIZER_HOME", "")]):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture
def up() -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp(prefix="tz-", dir="/tmp"))
    stack = Up(folder / "home")
    yield stack
    for child in stack.started:
        if child.poll() is None:
            child.kill()
        child.communicate()
    bring_down(stack.home)
    left = left_running(folder)
    shutil.rmtree(folder)
    assert left == []


# --- start and stop ---------------------------------------------------------------------------------------------


def test_parts_start_in_order_and_stop_in_reverse(up: Up) -> None:
    child, state = up.ready()
    assert up.lines("starts")[:2] == ["migrate", "keys"]
    assert sorted(up.lines("starts")[2:]) == ["load", "monitor", "scheduler", "serve"]
    assert set(state.pids) == {"postgres", "valkey", "api", "loader", "scheduler", "monitor"}
    assert state.running()
    assert all(runs(pid) for pid in state.pids.values())
    code, errors = end(child)
    assert (code, "Traceback" in errors) == (0, False), errors
    assert up.lines("ends") == ["serve", "load", "scheduler", "monitor"]
    assert not any(runs(pid) for pid in state.pids.values())
    assert read_state(up.home) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_terminals_signals_stop_it_in_order_too(up: Up, number: signal.Signals) -> None:
    child, _ = up.ready()
    assert end(child, number)[0] == 0
    assert up.lines("ends") == ["serve", "load", "scheduler", "monitor"]


def test_a_second_start_makes_no_second_key_and_starts_what_was_asked_for(up: Up) -> None:
    for _ in range(2):
        child, _state = up.ready()
        end(child)
    assert up.lines("starts").count("keys") == 1
    assert up.lines("starts").count("migrate") == 2


def test_children_get_addresses_and_no_password(up: Up) -> None:
    child, state = up.ready()
    secret = (up.home / "secret").read_text().strip()
    assert state.dsn == f"postgresql:///totalizer?host={up.home}/run/pg"
    for name in ("api", "loader", "scheduler", "monitor"):
        process = psutil.Process(state.pids[name])
        assert process.environ()["DATABASE_URL"] == state.dsn
        assert process.environ()["REDIS_URL"] == state.redis_url
        assert secret not in " ".join([*process.cmdline(), *process.environ().values()])
    assert secret not in (up.home / "run" / "state.json").read_text()
    end(child)
    assert not any(secret in log.read_text() for log in (up.home / "log").iterdir())


def test_nothing_embedded_is_started_when_others_are_named(up: Up) -> None:
    _child, state = up.ready(own_database=False, own_redis=False)
    assert set(state.pids) == {"api", "loader", "scheduler", "monitor"}
    assert (state.dsn, state.redis_url) == (None, None)
    assert not (up.home / "postgres").exists()


def test_files_are_closed_to_others(up: Up) -> None:
    up.ready()
    for name in ("secret", "up.lock", "run/state.json", "run/api.json", "log/up.log", "log/api.log"):
        assert (up.home / name).stat().st_mode & 0o077 == 0, name
    assert up.home.stat().st_mode & 0o066 == 0


def test_a_stubborn_program_is_ended_by_a_second_signal(up: Up) -> None:
    up.home.mkdir()
    (up.home / "stubborn-load").touch()
    child, state = up.ready()
    child.send_signal(signal.SIGINT)
    up.wait_for("ends", "serve", 1)
    code, _ = end(child, signal.SIGINT)
    assert code == 0
    assert not runs(state.pids["loader"])
    assert up.lines("ends") == ["serve", "scheduler", "monitor"]


# --- refusals ---------------------------------------------------------------------------------------------------


def test_a_second_up_on_one_folder_is_refused(up: Up) -> None:
    first, state = up.ready()
    second = up.start()
    _, errors = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert f"pid {first.pid}" in errors
    assert state.started_at[:16] in errors
    assert first.poll() is None


def test_a_busy_port_is_named_before_anything_is_started(up: Up) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", up.port))
        other.listen()
        child = up.start()
        _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1
    assert f"port {up.port}" in errors
    assert "PORT=" in errors
    assert not (up.home / "postgres").exists()
    assert up.lines("starts") == []


def test_a_failing_migration_stops_the_start_and_says_why(up: Up) -> None:
    up.home.mkdir()
    (up.home / "fail-migrate").touch()
    child = up.start()
    _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1
    assert "migrate ended with 7" in errors
    assert "migrate cannot go on: told so" in errors
    assert up.lines("starts") == ["migrate"]
    assert left_running(up.home) == []


def test_a_program_that_fails_at_start_stops_everything_and_says_why(up: Up) -> None:
    up.home.mkdir()
    (up.home / "fail-load").touch()
    child = up.start()
    _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1
    assert "loader ended with 7" in errors
    assert "load cannot go on: told so" in errors
    assert left_running(up.home) == []


def test_stopping_during_the_start_is_no_error(up: Up) -> None:
    up.home.mkdir()
    (up.home / "not-ready").touch()
    child = up.start()
    up.wait_for("starts", "serve", 1)
    code, errors = end(child)
    assert (code, "not ready" in errors) == (0, False), errors
    assert left_running(up.home) == []


# --- while it runs ----------------------------------------------------------------------------------------------


def test_what_is_killed_is_started_again(up: Up) -> None:
    child, state = up.ready()
    for name in ("loader", "valkey", "postgres"):
        os.kill(state.pids[name], signal.SIGKILL)

    def all_again() -> bool:
        now = read_state(up.home)
        return now is not None and all(
            now.pids.get(name, pid) != pid and runs(now.pids[name])
            for name, pid in state.pids.items()
            if name in ("loader", "valkey", "postgres")
        )

    assert wait_until(all_again, PATIENCE), up.log()
    now = read_state(up.home)
    assert now is not None
    assert now.pids["api"] == state.pids["api"], "a part that ran was restarted"
    assert child.poll() is None


def test_one_that_keeps_ending_is_given_up(up: Up) -> None:
    child, state = up.ready()
    (up.home / "fail-scheduler").touch()
    os.kill(state.pids["scheduler"], signal.SIGKILL)
    _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1
    assert "scheduler ended 5 times" in errors
    assert "scheduler cannot go on: told so" in errors
    assert up.lines("starts").count("scheduler") == 5
    assert left_running(up.home) == []


def test_children_of_a_killed_supervisor_end_by_themselves(up: Up) -> None:
    child, state = up.ready()
    child.kill()
    child.wait()
    for name in ("api", "loader", "scheduler", "monitor"):
        assert wait_until(lambda name=name: not runs(state.pids[name]), PATIENCE)  # type: ignore[misc]
    assert sorted(up.lines("ends")) == ["load", "monitor", "scheduler", "serve"]
    assert runs(state.pids["postgres"])


def test_the_next_up_takes_over_what_a_killed_one_left(up: Up) -> None:
    up.home.mkdir()
    (up.home / "stubborn-serve").touch()  # this one does not listen to its lifeline's SIGTERM: it has to be ended
    child, before = up.ready()
    child.kill()
    child.wait()
    # The port is held by the old API until it is ended, which the new supervisor has to do first.
    (up.home / "stubborn-serve").unlink()
    os.kill(before.pids["api"], 0)
    _child, after = up.ready(leftover_seconds=1.0)
    assert after.pids["postgres"] == before.pids["postgres"]
    assert after.pids["valkey"] == before.pids["valkey"]
    assert after.pids["api"] != before.pids["api"]
    assert not runs(before.pids["api"])


def test_down_stops_a_running_up(up: Up) -> None:
    child, _ = up.ready()
    assert bring_down(up.home) == ["up"]
    assert child.wait(PATIENCE) == 0
    assert bring_down(up.home) == []


def test_down_ends_what_a_killed_up_left(up: Up) -> None:
    child, state = up.ready()
    child.kill()
    child.wait()
    stopped = bring_down(up.home)
    assert {"valkey", "postgres"} <= set(stopped)
    assert not any(runs(pid) for pid in state.pids.values())
    assert read_state(up.home) is None


def test_the_supervisor_stays_small(up: Up) -> None:
    child, _ = up.ready()
    assert psutil.Process(child.pid).memory_info().rss < 40 << 20
