"""Running a function in a forked process that may die of it: as good as a new program, and thirty times quicker."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from support import PATIENCE_S
from totalizer import failpoint

#: Exit code of a child that ended with an exception.
RAISED = 97


class Forked:
    """A child process.

    Args:
        work: what it does; an int it returns is its exit code.
        failpoints: armed in the child alone.
        log: where its output goes.
    """

    def __init__(self, work: Callable[[], object], *, failpoints: str = "", log: Path) -> None:
        self._code: int | None = None
        self.log = log
        self.pid = os.fork()
        if self.pid == 0:
            _child(work, failpoints, log)

    @property
    def code(self) -> int:
        """How it ended, negative for a signal; waits for that, PATIENCE_S at most."""
        deadline = time.monotonic() + PATIENCE_S
        while self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                self.end()
                raise AssertionError(f"the child did not end: {self.log.read_text()}")
            else:
                time.sleep(0.002)
        return self._code

    @property
    def killed(self) -> bool:
        """True if SIGKILL ended it."""
        return self.code == -signal.SIGKILL

    def wait_until_stopped(self) -> bool:
        """Wait until a signal has stopped it; False if it ended instead."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._code = os.waitstatus_to_exitcode(status)
        return False

    def send(self, *signals: signal.Signals) -> None:
        """Send signals, one after the other."""
        for each in signals:
            os.kill(self.pid, each)

    def end(self) -> None:
        """Kill it if it is still there."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _child(work: Callable[[], object], failpoints: str, log: Path) -> None:
    """Never returns; nothing of the test's own end is run in here."""
    code = RAISED
    try:
        gc.disable()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - for the process' life
        failpoint.arm(failpoints)
        result = work()
        code = result if isinstance(result, int) else 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is in the log and the code
        traceback.print_exc()
    finally:
        os._exit(code)
