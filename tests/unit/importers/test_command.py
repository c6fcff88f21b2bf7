"""`totalizer import` as a process: exit codes, signals, kill, pipes, and what it shows."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from .conftest import KEY, Receiver, access_line, commit, make_repository


class Command:
    """Starts `totalizer import`."""

    def __init__(self, receiver: Receiver, home: Path) -> None:
        self.receiver, self.home = receiver, home
        self.environment = os.environ | {
            "TOTALIZER_URL": receiver.url, "TOTALIZER_API_KEY": KEY, "TOTALIZER_HOME": str(home), "COLUMNS": "200",
        }  # fmt: skip

    def start(self, *arguments: Any, **options: Any) -> Any:
        command = [sys.executable, "-m", "totalizer", "import", *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(command, env=self.environment, text=True, **streams)

    def run(self, *arguments: Any, text: Any = None) -> Any:
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            process.out, process.err = process.communicate(text, timeout=60)
        return process


@pytest.fixture
def command(receiver: Receiver, tmp_path: Path) -> Any:
    return Command(receiver, tmp_path / "home")


@pytest.fixture
def log(tmp_path: Path) -> Any:
    file = tmp_path / "access.log"
    file.write_text("".join(access_line(n) + "\n" for n in range(20_000)))
    return file


def test_all_accepted_is_0_with_a_table(command: Command, receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("".join(commit(n) + "\n" for n in range(1, 2501)))

    done = command.run("ndjson", file, "--event-type", "commits")

    assert done.returncode == 0, done.err
    assert len(receiver.events("commits")) == 2500
    assert receiver.requests == 3
    for words in ("lines read", "accepted", "2,500", "events/s"):
        assert words in done.out
    assert KEY not in done.out + done.err


def test_some_rejected_is_1_with_lines_reasons_and_file(command: Command, receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("".join((commit(n) if n % 3 else "{broken") + "\n" for n in range(1, 61)))

    done = command.run("ndjson", file, "--event-type", "commits")

    assert done.returncode == 1
    assert "line 3: it is not JSON" in done.err
    assert "… and 10 more" in done.err
    [quarantine] = (command.home / "quarantine").iterdir()
    assert f"rejected lines are in {quarantine}\n" in done.out
    assert [json.loads(line)["line"] for line in quarantine.read_text().splitlines()] == list(range(3, 61, 3))
    assert len(receiver.stored) == 40


def test_what_comes_from_outside_cannot_command_the_terminal(command: Command, receiver: Receiver, log: Path) -> None:
    receiver.refuse = lambda event_type, event: "\x1b[31m[red]words\x9b2J" if event["path"] == "/7" else None
    done = command.run("access-log", log)

    assert "[31m[red]words" in done.err
    assert not {"\x1b", "\x9b"} & set(done.err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ndjson", "/nonexistent/file"],
        ["access-log", "/"],
        ["git", "/nonexistent"],
        ["git", ".", "--all", "--branch", "main"],
        ["ndjson"],
        ["nothing"],
        ["ndjson", "-", "--source", "s" * 256],
        ["ndjson", "-", "--give-up-after", "-1"],
    ],
)
def test_wrong_usage_is_2(command: Command, arguments: Any) -> None:
    assert command.run(*arguments).returncode == 2


def test_an_error_is_1_and_one_line(command: Command, tmp_path: Path) -> None:
    done = command.run("git", tmp_path)

    assert done.returncode == 1
    assert "not a git repository" in done.err
    assert "Traceback" not in done.err


def test_no_server_is_1_with_what_to_do(command: Command, log: Path) -> None:
    del command.environment["TOTALIZER_URL"]
    done = command.run("access-log", log)

    assert done.returncode == 1
    assert "totalizer up" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_place_and_is_130(command: Command, receiver: Receiver, log: Path, number: Any) -> None:
    process = command.start("access-log", log)
    receiver.on_stored = lambda stored: process.send_signal(number) if stored == 3000 else None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "start the same import again" in err
    acknowledged = receiver.received
    assert 3000 <= acknowledged < 20_000

    receiver.on_stored = lambda stored: None
    again = command.run("access-log", log)

    assert again.returncode == 0, again.err
    assert len(receiver.stored) == receiver.received == 20_000, "what was acknowledged was sent again"


def test_a_signal_while_the_server_is_away_does_not_wait(command: Command, receiver: Receiver, log: Path) -> None:
    receiver.script, receiver.retry_after = [503] * 1000, "600"
    process = command.start("access-log", log)
    assert "503" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 130


def test_a_signal_ends_a_quiet_pipe_and_keeps_what_came(command: Command, receiver: Receiver) -> None:
    arrived = threading.Event()
    receiver.on_stored = lambda stored: arrived.set()
    process = command.start("access-log", "-", stdin=subprocess.PIPE)
    process.stdin.write(access_line(1) + "\n")
    process.stdin.flush()
    assert arrived.wait(30), "a line in a quiet pipe was held back"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert len(receiver.stored) == 1


def test_kill_9_loses_and_doubles_nothing(command: Command, receiver: Receiver, log: Path) -> None:
    lines = log.read_text().splitlines()
    broken = range(500, 20_000, 1000)
    for number in broken:
        lines[number - 1] = "no log"
    log.write_text("".join(f"{line}\n" for line in lines))
    for limit in (2000, 9000, 15_000):
        process = command.start("access-log", log)
        receiver.on_stored = lambda stored, limit=limit, process=process: (
            process.kill() if stored >= limit and process.returncode is None else None
        )
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL

    receiver.on_stored = lambda stored: None
    assert command.run("access-log", log).returncode == 1
    assert len(receiver.stored) == 20_000 - len(broken)
    files = (command.home / "quarantine").iterdir()
    quarantined = {json.loads(line)["line"] for file in files for line in file.read_text().splitlines()}
    assert quarantined == set(broken)


def test_another_server_or_key_is_another_import(command: Command, receiver: Receiver, log: Path) -> None:
    assert command.run("access-log", log).returncode == 0
    assert "API key" in command.run("access-log", log, "--key", "another").err
    receiver.stored.clear()
    command.environment["TOTALIZER_URL"] = receiver.url.replace("127.0.0.1", "localhost")

    assert command.run("access-log", log).returncode == 0
    assert len(receiver.stored) == 20_000


def test_restart_sends_all_again(command: Command, receiver: Receiver, log: Path) -> None:
    command.run("access-log", log)
    command.run("access-log", log, "--restart")

    assert (receiver.received, len(receiver.stored)) == (40_000, 20_000)


def test_the_running_stack_is_found(command: Command, receiver: Receiver, log: Path) -> None:
    (command.home / "run").mkdir(parents=True)
    (command.home / "run" / "state.json").write_text(json.dumps({"url": receiver.url}))
    (command.home / "api-key").write_text(KEY)
    del command.environment["TOTALIZER_URL"], command.environment["TOTALIZER_API_KEY"]

    assert command.run("access-log", log).returncode == 0
    assert len(receiver.stored) == 20_000


def test_a_history_and_a_pipe(command: Command, receiver: Receiver, tmp_path: Path) -> None:
    make_repository(tmp_path / "r.git", 30)
    assert command.run("git", tmp_path / "r.git", "--repository", "mine").returncode == 0
    assert {event["repository"] for event in receiver.events("commits")} == {"mine"}

    text = "".join(access_line(n) + "\n" for n in range(30))
    assert command.run("access-log", "-", text=text).returncode == 0
    assert len(receiver.events("http_requests")) == 30


def test_a_terminal_sees_a_bar(command: Command, receiver: Receiver, log: Path) -> None:
    receiver.on_stored = lambda stored: threading.Event().wait(0.05)
    ours, theirs = pty.openpty()
    process = command.start("access-log", log, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # what Linux says at the end of a terminal
    finally:
        os.close(ours)
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert "━".encode() in shown
    assert b"events" in shown
