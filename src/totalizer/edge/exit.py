"""The end of the process: what waits is delivered, for a bounded time. What is left stays in the journals."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

from totalizer.edge.options import Options

if TYPE_CHECKING:
    from totalizer.edge.engine import Engine

LOGGER = logging.getLogger("totalizer.edge")


class Exit:
    """The engines of one process that have to be closed at its end."""

    def __init__(self) -> None:
        self._engines: dict[Engine, float] = {}
        self._pid = os.getpid()
        # `put` may be called in a signal handler, whatever the interrupted thread is at.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._listening = False

    def add(self, engine: Engine, options: Options) -> None:
        """Close this one at the end of the process."""
        self._engines[engine] = options.exit_timeout_ms / 1000
        if options.flush_on_sigterm:
            self._listen()

    def remove(self, engine: Engine) -> None:
        """It is closed."""
        self._engines.pop(engine, None)

    def close_all(self) -> None:
        """Close them, one after the other."""
        for engine, timeout_s in list(self._engines.items()):
            self._engines.pop(engine, None)
            engine.close(timeout_s)

    def _listen(self) -> None:
        """Handle SIGTERM, if it would just end the process."""
        if self._listening or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _on_sigterm):
            return
        signal.signal(signal.SIGTERM, _on_sigterm)
        self._listening = True
        threading.Thread(target=self._wait, name="totalizer exit", daemon=True).start()

    def _wait(self) -> None:
        """Deliver when the signal comes, and then let it do what it would have done."""
        number = self._signals.get()
        for engine, timeout_s in list(self._engines.items()):
            try:
                engine.flush("shutdown", timeout_s, hurry=True)
            except Exception:
                LOGGER.exception("what waits could not be delivered; it stays in the journal")
        os.kill(self._pid, number)

    def on_signal(self, number: int) -> None:
        """In the handler: from now on the signal ends the process; first the thread delivers."""
        signal.signal(number, signal.SIG_DFL)
        if self._pid == os.getpid() and self._listening:
            self._signals.put(number)
        else:
            os.kill(os.getpid(), number)


_exit = Exit()


def at_exit(engine: Engine, options: Options) -> None:
    """Close an engine at the end of this process, within `exit_timeout_ms`."""
    _exit.add(engine, options)


def not_at_exit(engine: Engine) -> None:
    """It is closed already."""
    _exit.remove(engine)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    _exit.on_signal(number)


def _after_fork() -> None:
    global _exit
    _exit = Exit()


def _at_exit() -> None:
    _exit.close_all()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
