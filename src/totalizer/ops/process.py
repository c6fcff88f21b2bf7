"""Processes by identity: a pid alone may belong to somebody else after a restart of the machine.

The only module that knows psutil.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import psutil  # type: ignore[import-untyped]

from totalizer.clock import SYSTEM_CLOCK, Clock

#: Seconds between two looks at a condition that is waited for.
POLL_SECONDS = 0.01
#: Seconds that everything gets to end, also after a second Ctrl-C.
HURRIED_SECONDS = 1.0
#: Seconds by which the creation time of one process may seem to differ: Linux derives it from the boot time, which
#: follows corrections of the wall clock.
CREATED_SLACK_SECONDS = 2.0


@dataclass(frozen=True)
class ProcessId:
    """One process, distinguishable from a later one that got the same number.

    Attributes:
        pid: process id.
        created: when it was created, in seconds since 1970-01-01 UTC as the system reports it.
    """

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of the process that has this number now; None if there is none."""
        try:
            return cls(pid, float(psutil.Process(pid).create_time()))
        except psutil.NoSuchProcess:
            return None

    def running(self) -> bool:
        """True while this very process runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            same = abs(float(process.create_time()) - self.created) <= CREATED_SLACK_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended meanwhile is no error.

        Raises:
            PermissionError: the process belongs to another user.
        """
        if self.running():
            _kill(os.kill, self.pid, number)


def _kill(function: Callable[[int, int], None], target: int, number: int) -> None:
    try:
        function(target, number)
    except ProcessLookupError:  # it ended between the look and the signal, which is what was wanted
        return


def wait_until(condition: Callable[[], bool], seconds: float, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Look at `condition` every 10 ms until it holds or `seconds` have passed; returns what it was last."""
    deadline = clock.monotonic() + seconds
    while not condition():
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(POLL_SECONDS)
    return True


def wait_patiently(
    ended: Callable[[], bool], seconds: float, hurried: Callable[[], bool], clock: Clock = SYSTEM_CLOCK
) -> bool:
    """Wait for an end; a person in a hurry cuts the wait to a second.

    Args:
        ended: True once it has come.
        seconds: longest wait.
        hurried: True once somebody is in a hurry.
        clock: time source.

    Returns:
        True if it has ended.
    """
    short = clock.monotonic() + HURRIED_SECONDS
    wait_until(lambda: ended() or (hurried() and clock.monotonic() > short), seconds, clock)
    return ended()


def end_processes(
    processes: Iterable[ProcessId], steps: Iterable[tuple[signal.Signals, float]], clock: Clock = SYSTEM_CLOCK
) -> bool:
    """End processes, step by step more firmly.

    Args:
        processes: whom to end.
        steps: signal and the seconds to wait for its effect; the next step is taken only if some still run.
        clock: time source.

    Returns:
        True if all have ended.
    """
    left = [process for process in processes if process.running()]
    for number, seconds in steps:
        for process in left:
            process.send(number)
        wait_until(partial(_all_ended, left), seconds, clock)
        left = [process for process in left if process.running()]
        if not left:
            return True
    return not left


def _all_ended(processes: list[ProcessId]) -> bool:
    return not any(process.running() for process in processes)


def command_lines() -> Iterator[tuple[ProcessId, list[str]]]:
    """Every process whose command line may be read, as identity and arguments.

    Command lines are readable across users where working folders and open files are not (a container's root).
    """
    for process in psutil.process_iter(["cmdline", "create_time"]):
        arguments = process.info["cmdline"]
        if arguments:
            yield ProcessId(process.pid, float(process.info["create_time"])), list(arguments)


def processes_marked(variable: str, value: str) -> list[ProcessId]:
    """The processes that were started with `variable=value` in their environment, as far as it may be read.

    The environment goes to all descendants, so a mark finds those whose parent has gone, and no stranger who got an
    old pid.
    """
    marked = []
    for process in psutil.process_iter(["create_time"]):
        try:
            if process.environ().get(variable) == value:
                marked.append(ProcessId(process.pid, float(process.info["create_time"])))
        except (psutil.Error, OSError):  # ended meanwhile, or another user's: not one of ours
            continue
    return marked


def memory_bytes() -> int:
    """Physical memory of this machine."""
    return int(psutil.virtual_memory().total)
