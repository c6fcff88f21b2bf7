"""Jobs under test: settings for a test's database, jobs with bodies of the test's own, schedulers as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support import Database
from totalizer.jobs.job import Context, Job
from totalizer.jobs.schedule import Every, Schedule
from totalizer.settings import Settings, load_settings
from totalizer.store.roles import Role

#: A time long before any test, for moments and first sights.
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def settings_of(database: Database, **more: object) -> Settings:
    """The settings of a process on this database, without a data folder unless one is named."""
    home = {"TOTALIZER_HOME": "/nonexistent"}
    return load_settings(**{"DATABASE_URL": database.url, "TOTALIZER_SECRET": database.secret, **home, **more})


def environment_of(database: Database, home: Path, **more: str) -> dict[str, str]:
    """The environment of a process on this database."""
    return {
        **os.environ, "DATABASE_URL": database.url, "TOTALIZER_SECRET": database.secret, "TOTALIZER_HOME": str(home),
        "TOTALIZER_JOB_LOOK_MS": "200", "LOG_LEVEL": "info", **more,
    }  # fmt: skip


def job(
    body: Callable[[Context], dict[str, Any]], *, limit_s: float = 60.0, schedule: Schedule | None = None, **more: Any
) -> Job:
    """A job of a test's own; due every hour if nothing else is said."""
    body.__doc__ = body.__doc__ or "What a test does."
    return Job("probe", body, timedelta(seconds=limit_s), schedule or Every(timedelta(hours=1)), **more)


def runs_of(database: Database, name: str, columns: str = "state") -> list[tuple[Any, ...]]:
    """Columns of a job's runs, oldest first."""
    query = f"SELECT {columns} FROM totalizer.job_runs WHERE job = %s ORDER BY id"
    connection = database.connect(Role.REFRESHER)
    try:
        return connection.execute(query.encode(), [name]).fetchall()
    finally:
        connection.close()


class Process:
    """A program of ours, in a group of its own."""

    def __init__(self, log: Path, environment: dict[str, str], *command: object) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *map(str, command)], env=environment, stdout=output, stderr=output,
                cwd=log.parent, start_new_session=True,
            )  # fmt: skip

    def output(self) -> str:
        """What it has said."""
        return self.log.read_text("utf-8")

    def kill(self) -> None:
        """End it and its children at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End it as a process manager does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(log: Path, environment: dict[str, str], *command: object) -> Iterator[Process]:
    """A program for the length of a with-block; whatever is left of it in the end is killed."""
    process = Process(log, environment, *command)
    try:
        yield process
    finally:
        process.kill()
