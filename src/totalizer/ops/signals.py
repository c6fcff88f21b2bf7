"""How firmly to end what, and how a person's second Ctrl-C makes it quicker."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType

#: Steps for a process that has nothing to lose.
KILL = ((signal.SIGKILL, 5.0),)

#: Signals that ask the supervisor to stop. SIGHUP: its terminal was closed.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Set by the first signal; hurried by the second.

    A handler may run between any two instructions of the main thread, so it takes no lock: it counts, and wakes the
    waiting select through a pipe.
    """

    def __init__(self) -> None:
        self._times = 0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def install(self) -> None:
        """Take over SIGINT, SIGTERM and SIGHUP. Main thread only."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()

    def ask(self) -> None:
        """Ask to stop; asked a second time, to stop at once."""
        self._times += 1
        if self._times == 1:
            os.write(self._wake_write, b"!")

    def asked(self) -> bool:
        """True once stopping was asked for."""
        return self._times > 0

    def hurried(self) -> bool:
        """True once it was asked for twice."""
        return self._times > 1

    def wait(self, seconds: float) -> bool:
        """Wait until stopping is asked for, at most `seconds`; True if it was."""
        select.select([self._wake_read], [], [], seconds)
        return self.asked()

    def close(self) -> None:
        """Free the pipe; nothing may ask any more."""
        os.close(self._wake_read)
        os.close(self._wake_write)


def never() -> bool:
    """Nobody asks to hurry."""
    return False
