"""A child of the supervisor that is this package itself: API, loader, scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.ops.lifeline import Lifeline
from totalizer.ops.log import LOG, open_log, tail
from totalizer.ops.process import ProcessId, end_processes, processes_marked, wait_patiently
from totalizer.ops.record import RunRecord, forget
from totalizer.ops.signals import KILL, never

#: In the environment of every child and its descendants: which part of which installation they are.
PART_VARIABLE = "TOTALIZER_PART"


def part_mark(home: Path, name: str) -> str:
    """The value of that variable for one child."""
    return f"{name}@{home}"


@dataclass(frozen=True)
class Command:
    """One child's command.

    Attributes:
        name: for messages, records and the log's name.
        arguments: program and arguments; they are visible to every user, so no secret belongs here.
        stop_seconds: how long it may take to end on SIGTERM.
        environment: variables added to the supervisor's own.
    """

    name: str
    arguments: tuple[str, ...]
    stop_seconds: float = 15.0
    environment: Mapping[str, str] = field(default_factory=dict)


class Program:
    """Runs one command in a process group of its own, so that a terminal's Ctrl-C reaches the supervisor only.

    `start` and `alive` never block; `stop` blocks until it has ended, at most its time and 5 s more.
    """

    def __init__(self, command: Command, home: Path, lifeline: Lifeline, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.command = command
        self.name = command.name
        self.log_path = home / "log" / f"{command.name}.log"
        self._run_folder = home / "run"
        self._mark = part_mark(home, command.name)
        self._lifeline = lifeline
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the last start; None before it and after `stop`."""
        return None if self._child is None else self._child.pid

    def start(self, _cancelled: Callable[[], bool] = never) -> None:
        """Start the command; output goes to its log.

        Raises:
            OperationError: the program cannot be run.
        """
        self._end_group()
        environment = {
            **os.environ,
            **self.command.environment,
            **self._lifeline.environment(),
            PART_VARIABLE: self._mark,
        }
        with open_log(self.log_path) as log:
            try:
                self._child = subprocess.Popen(
                    self.command.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                    start_new_session=True, pass_fds=(self._lifeline.reading_end,),
                )  # fmt: skip
            except OSError as error:
                raise OperationError(f"cannot run {self.command.arguments[0]}: {error}") from error
        process = ProcessId.of(self._child.pid)
        if process is not None:
            RunRecord(process).write(self._run_folder, self.name)

    def alive(self) -> bool:
        """True while it runs."""
        return self._child is not None and self._child.poll() is None

    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs or was never started."""
        return None if self._child is None else self._child.poll()

    def exit_text(self) -> str:
        """How it ended, with the end of its log."""
        code = self.exit_code()
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return f"{self.name} {how}; {self.log_path} ends with:\n{tail(self.log_path)}"

    def stop(self, hurried: Callable[[], bool] = never) -> None:
        """Ask it to end, and end it when it does not; a second signal to the supervisor cuts the wait."""
        if self._child is not None and self.alive():
            self._child.send_signal(signal.SIGTERM)
            if not wait_patiently(lambda: not self.alive(), self.command.stop_seconds, hurried, self._clock):
                LOG.warning("%s did not end on SIGTERM", self.name)
        self._end_group()
        forget(self._run_folder, self.name)

    def _end_group(self) -> None:
        """End what is left of the last start, its own children included."""
        if self._child is not None:
            end_processes(processes_marked(PART_VARIABLE, self._mark), KILL, self._clock)
            self._child.wait()
        self._child = None


def end_leftover(home: Path, name: str, seconds: float, clock: Clock = SYSTEM_CLOCK) -> bool:
    """End a child that a killed supervisor left, with its own children; they are shutting down already.

    Args:
        home: data folder.
        name: its name.
        seconds: how long it may take to end on SIGTERM.
        clock: time source.

    Returns:
        True if there was one.
    """
    record = RunRecord.read(home / "run", name)
    if record is None:
        return False
    there = record.process.running()
    if there:
        LOG.info("%s (pid %d) is left from an earlier start: ending it", name, record.process.pid)
        end_processes([record.process], ((signal.SIGTERM, seconds),), clock)
    left = processes_marked(PART_VARIABLE, part_mark(home, name))
    end_processes(left, KILL, clock)
    forget(home / "run", name)
    return there or bool(left)
