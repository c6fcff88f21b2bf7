"""`totalizer status`, once and all the time, for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support import PATIENCE_S, RunningStack, free_port

#: What a terminal is told when another screen is shown, when that is left, and when its cursor is shown again.
ENTERED, LEFT, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "totalizer", "status", *arguments, "--home", str(home)]


def test_where_no_stack_runs_the_settings_say_what_is_looked_over(tmp_path: Path) -> None:
    environment = {
        **os.environ, "DATABASE_URL": f"postgresql://127.0.0.1:{free_port()}/none", "PORT": str(free_port()),
        "TOTALIZER_SECRET": "a secret of this test",
    }  # fmt: skip
    done = subprocess.run(command(tmp_path), env=environment, capture_output=True, text=True, check=False)
    text = " ".join(done.stdout.split())
    assert done.returncode == 3, "nothing runs on this data folder"
    for words in ("Running nothing on this data folder", "Ready not ready (no answer)", "unhealthy, ",
                  "critical database: ", "→ Start PostgreSQL", "Alerts none stands"):  # fmt: skip
        assert words in text, text
    assert (done.stderr, "a secret" in text) == ("", False)


def test_programs_get_a_line_for_each_look(running_stack: RunningStack) -> None:
    with subprocess.Popen(
        command(running_stack.home, "--watch", "1", "--format", "json"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    for told in (first, second):
        assert (told["running"], told["url"], told["ready"]) == (True, running_stack.url, True)
        assert {"api", "loader", "scheduler", "monitor"} <= told["pids"].keys()
        assert {"api", "loader", "scheduler"} <= set(told["components"])
        assert {check["name"] for check in told["health"]["checks"]} >= {"database", "loader_lag", "rollup_lag"}
        assert isinstance(told["alerts"], list)
    assert second["health"]["timestamp"] > first["health"]["timestamp"]


def test_the_terminal_is_left_as_it_was(running_stack: RunningStack) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(running_stack.home, "--watch", "1"), stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "60"},
    )  # fmt: skip
    os.close(theirs)
    try:
        shown = read_until(ours, lambda text: text.count(b"Ctrl-C ends it") >= 2)
        assert ENTERED in shown
        assert LEFT not in shown
        for words in (b"Processes", b"oldest event not loaded", b"checks found nothing"):
            assert words in shown
        process.send_signal(signal.SIGINT)
        end = read_until(ours, lambda text: CURSOR in text)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert LEFT in end
    assert b"Traceback" not in end


def read_until(terminal: int, enough: Any) -> bytes:
    """What a terminal is sent, until it is enough."""
    text, deadline = b"", time.monotonic() + PATIENCE_S
    while not enough(text):
        assert time.monotonic() < deadline, text[-2000:]
        if select.select([terminal], [], [], 0.1)[0]:
            text += os.read(terminal, 65536)
    return text
