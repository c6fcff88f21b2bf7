"""`totalizer import` into a running stack: what arrives is what was there, once, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


class Command:
    """Runs `totalizer import` against the stack."""

    def __init__(self, stack: Any, home: Path) -> None:
        self.stack, self.home = stack, home
        self._environment = os.environ | {
            "TOTALIZER_URL": stack.url, "TOTALIZER_API_KEY": stack.key, "TOTALIZER_HOME": str(home), "COLUMNS": "200",
        }  # fmt: skip

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "totalizer", "import", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: object, expect: int = 0) -> str:
        """Import, wait until all of it is loaded, and return what was shown."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=100)
        assert process.returncode == expect, out + err
        self.stack.drain()
        return out + err

    def quarantined(self) -> list[dict[str, Any]]:
        files = sorted((self.home / "quarantine").glob("*.ndjson"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def command(stack: Any, tmp_path: Path) -> Command:
    return Command(stack, tmp_path / "home")


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A name that no other test's events have."""
    return f"test-{tmp_path.name}-{os.getpid()}"


def git(path: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org", "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org", "GIT_CONFIG_GLOBAL": "/dev/null",
    }  # fmt: skip
    done = subprocess.run(
        ["git", "-C", path, *arguments], env=os.environ | identity, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def make_history(path: Path, commits: int) -> None:
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for number in range(commits):
        (path / f"file {number % 3}\nodd").write_text("line\n" * (number + 1))
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", f"commit {number}")
    git(path, "checkout", "-q", "-b", "side", "HEAD~1")
    git(path, "commit", "-q", "--allow-empty", "-m", "side")
    git(path, "checkout", "-q", "main")
    git(path, "merge", "-q", "--no-edit", "side")


def numstat(path: Path) -> tuple[int, int]:
    """Lines added and removed over the history, as git itself sums them."""
    counts = [line.split("\t")[:2] for line in git(path, "log", "--numstat", "--format=").splitlines() if line]
    return sum(int(added) for added, _ in counts), sum(int(removed) for _, removed in counts)


def test_a_history_is_stored_as_git_counts_it(command: Command, stack: Any, tmp_path: Path, name: str) -> None:
    history = tmp_path / "history"
    make_history(history, 12)
    git(tmp_path, "clone", "-q", "--bare", str(history), str(tmp_path / "clone.git"))

    command.run("git", history, "--repository", name)
    command.run("git", history, "--repository", name, "--restart")
    command.run("git", tmp_path / "clone.git", "--repository", name)

    rows = stack.sql(
        "select count(*), count(distinct commit_hash), count(*) filter (where is_merge), sum(lines_added), "
        f"sum(lines_removed) from events.commits where repository = '{name}'"
    )
    total = int(git(history, "rev-list", "--count", "HEAD"))
    assert [tuple(map(int, row)) for row in rows] == [(total, total, 1, *numstat(history))]


def log_line(number: int, name: str) -> str:
    clock = f"{number // 60 % 60:02d}:{number % 60:02d}"
    return f'192.0.2.1 - - [10/Oct/2025:13:{clock} +0200] "GET /{name}/{number} HTTP/1.1" 200 7'


def stored_requests(stack: Any, name: str) -> int:
    rows = stack.sql(f"select count(*) from events.http_requests where path like '/{name}/%'")
    return int(rows[0][0])


def test_a_log_arrives_once_and_its_growth_is_added(command: Command, stack: Any, tmp_path: Path, name: str) -> None:
    log = tmp_path / f"{name}.log"
    log.write_text("".join(log_line(n, name) + "\n" for n in range(3000)))
    command.run("access-log", log)
    log.write_text("".join(log_line(n, name) + "\n" for n in range(3500)))
    log.rename(rotated := tmp_path / f"{name}.log.1")
    command.run("access-log", rotated)

    assert stored_requests(stack, name) == 3500


def test_lines_the_server_refuses_are_named(command: Command, stack: Any, tmp_path: Path, name: str) -> None:
    lines = [log_line(n, name) for n in range(20)]
    lines[4] = lines[4].replace('" 200 7', '" 999 7')
    lines[9] = "no log at all"
    log = tmp_path / f"{name}.log"
    log.write_text("".join(line + "\n" for line in lines))

    shown = command.run("access-log", log, expect=1)

    assert [line["line"] for line in command.quarantined()] == [5, 10]
    assert "status" in command.quarantined()[0]["reason"]
    assert "line 5:" in shown
    assert stored_requests(stack, name) == 18


def test_interrupted_and_killed_imports_are_exact_in_the_end(
    command: Command, stack: Any, tmp_path: Path, name: str
) -> None:
    log = tmp_path / f"{name}.log"
    log.write_text("".join(log_line(n, name) + "\n" for n in range(60_000)))
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = command.start("access-log", log)
        checkpoints = command.home / "imports"
        before = {file: file.stat().st_mtime_ns for file in checkpoints.glob("*.json")}
        while process.poll() is None and before == {f: f.stat().st_mtime_ns for f in checkpoints.glob("*.json")}:
            pass
        process.send_signal(number)
        process.communicate(timeout=60)
    command.run("access-log", log)

    assert stored_requests(stack, name) == 60_000


def test_json_lines_and_cloud_events_of_one_id_are_one_event(
    command: Command, stack: Any, tmp_path: Path, name: str
) -> None:
    fields = {
        "repository": name, "commit_hash": "a" * 40, "is_merge": False, "files_changed": 1, "lines_added": 2,
        "lines_removed": 3,
    }  # fmt: skip
    moment = "2025-05-05T10:00:00+02:00"
    lines = tmp_path / "events.ndjson"
    plain = fields | {"event_type": "commits", "id": "1", "source": name, "author": "Ada", "committed_at": moment}
    lines.write_text(json.dumps(plain) + "\n")
    array = tmp_path / "events.json"
    event = {
        "specversion": "1.0", "type": "org.example.commits", "id": "1", "source": name, "time": moment,
        "subject": "Ada", "data": fields,
    }  # fmt: skip
    array.write_text(json.dumps([event, event | {"id": "2"}]))

    command.run("ndjson", lines)
    command.run("cloudevents", array)

    rows = stack.sql(f"select author, lines_added from events.commits where repository = '{name}' order by external_id")
    assert [tuple(row) for row in rows] == [("Ada", 2), ("Ada", 2)]
