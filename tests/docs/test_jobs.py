"""The pages about running jobs: what they show is run as it stands, and the table of jobs is the program's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support import RunningStack, wait_until
from totalizer.jobs.table import jobs
from totalizer.settings import load_settings

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


def blocks(name: str, language: str = "") -> list[str]:
    """The code blocks of a how-to, in order."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page(f"howto/{name}"))


def lines(name: str, start: str) -> list[str]:
    """The command lines of a how-to that begin so."""
    return [line for block in blocks(name) for line in block.splitlines() if line.startswith(start)]


class Shell:
    """A user's shell in the folder where `totalizer up` was started."""

    def __init__(self, stack: RunningStack, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / ".totalizer").symlink_to(stack.home)
        programs = folder / "bin"
        programs.mkdir()
        for name in ("totalizer", "celery"):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
            (programs / name).chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
        path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**clean, "PATH": path, "FLOWER_UNAUTHENTICATED_API": "1"}

    def run(self, line: str, **more: str) -> str:
        """Run a line to its end; what it showed."""
        ended = subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env={**self.environment, **more}, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    @contextmanager
    def running(self, line: str, ready: str, *, stops: bool = True) -> Iterator[None]:
        """A line that runs on, until the end of the with-block; then it is asked to stop, or killed."""
        log = self.folder / "running.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {line}"], cwd=self.folder, env=self.environment, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(lambda: ready in log.read_text() or process.poll() is not None, f"{line}: {ready}")
            assert process.poll() is None, log.read_text()
            yield
            if stops:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0, log.read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def shell(running_stack: RunningStack, tmp_path: Path) -> Shell:
    return Shell(running_stack, tmp_path / "project")


def test_the_page_of_jobs_has_the_programs_table() -> None:
    text = page("reference/jobs")
    table = jobs(load_settings())
    section = text.split("## The table")[1].split("## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "| `" in line]
    for (name, when, limit, queue, _), job in zip(rows, table.values(), strict=True):
        assert (name, limit, queue) == (f"`{job.name}`", str(job.limit), job.queue)
        if job.schedule is not None and not job.continuous:
            shown = job.schedule.text.replace("monthly, ", "").removesuffix(" UTC").replace("every 1 h", "every hour")
            assert when == shown
    for job in table.values():
        assert all(f"`{name}`" in text for name in job.arguments), job.name


def test_in_process(shell: Shell) -> None:
    first, by_hand = blocks("jobs-in-process")[:2]
    shown = [shell.run(line) for line in first.splitlines()]
    assert all(name in shown[0] for name in jobs(load_settings()))
    assert "make_partitions" in shown[1] + shown[2]
    assert "done, run" in shell.run(by_hand)
    [scheduler] = lines("jobs-in-process", "totalizer job scheduler")
    exports = "; ".join(lines("jobs-in-process", "export"))
    assert "switched off" in shell.run(f"{exports}; totalizer job list")
    assert "Europe/Vienna" in shell.run(f"{exports}; totalizer job list")
    with shell.running(scheduler, "jobs are run by schedule"):
        pass


def test_with_celery(shell: Shell) -> None:
    worker, *others = lines("jobs-celery", "celery -A")
    beat, flower, *more_workers = others
    # The variables of the page are of somebody's servers; without them the stack of this folder is used, as it says.
    with shell.running(worker, " ready."):
        [program] = blocks("jobs-celery", "python")
        shown = shell.run(f"python - <<'END'\n{program}END")
        assert "'status': 'healthy'" in shown or "'status': 'degraded'" in shown
        sent = {"hourly_rollup", "daily_rollup", "backfill_aggregations"}
        wait_until(lambda: _celerys_runs(shell) >= sent, "the tasks")
    with shell.running(beat, "Sending due task"):
        pass
    with shell.running(f"{flower} --address=127.0.0.1".replace("5555", "0"), "Connected to", stops=False):
        pass  # Flower waits for its own requests when it is asked to stop, a minute and more
    for line in more_workers:
        with shell.running(f"{line} --loglevel=info", " ready."):
            pass


def _celerys_runs(shell: Shell) -> set[str]:
    runs = json.loads(shell.run("totalizer job history --limit 500 --format json"))["runs"]
    return {run["job"] for run in runs if run["runner"] == "celery" and run["state"] == "done"}


def test_from_cron(shell: Shell) -> None:
    cron = [line for block in blocks("jobs-cron") for line in block.splitlines() if "* * *" in line]
    assert len(cron) == 3
    for line in cron:
        shell.run(line.split(maxsplit=5)[5])
    by_hand = lines("jobs-cron", "totalizer job")
    assert json.loads(shell.run(by_hand[-1]))["state"] == "done"
    assert "refresh_rollups: done" in shell.run(by_hand[0])


def test_on_lambda(shell: Shell, running_stack: RunningStack) -> None:
    [line] = lines("jobs-lambda", "python -c")
    state = json.loads((running_stack.home / "run" / "state.json").read_text())
    secret = (running_stack.home / "secret").read_text().strip()
    assert "'state': 'done'" in shell.run(line, DATABASE_URL=state["dsn"], TOTALIZER_SECRET=secret)


def test_up_runs_no_scheduler_where_celery_does(tmp_path: Path) -> None:
    stack = RunningStack(tmp_path / "home", ENABLE_JOB_SCHEDULER="false")
    try:
        pids: dict[str, Any] = json.loads((stack.home / "run" / "state.json").read_text())["pids"]
        assert "loader" in pids
        assert "scheduler" not in pids
    finally:
        assert stack.stop() == 0
