"""The end of the process: what waits is delivered, for a bounded time. What is left stays in the journals."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from totalizer.edge.options import Options

if TYPE_CHECKING:
    from totalizer.edge.engine import Engine

LOGGER = logging.getLogger("totalizer.edge")


class Exit:
    """The engines of one process that have to be closed at its end."""

    def __init__(self) -> None:
        self._engines: dict[Engine, Options] = {}
        self._pid = os.getpid()
        # `put` may be called in a signal handler, whatever the interrupted thread is at.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._listening = False
        self._pools: set[str] = set()

    def add(self, engine: Engine, options: Options) -> None:
        """Close this one at the end of the process."""
        self._engines[engine] = options
        self._tell_process_pools()
        if options.flush_on_sigterm and not self._listening:
            self._listening = True
            threading.Thread(target=self._wait, name="totalizer exit", daemon=True).start()

    def remove(self, engine: Engine) -> None:
        """It is closed."""
        self._engines.pop(engine, None)

    def __contains__(self, engine: Engine) -> bool:
        return engine in self._engines

    def close(self, engine: Engine) -> None:
        """Close this one now, within its time. Never raises: what is left stays in the journal."""
        options = self._engines.pop(engine, None)
        if options is None:
            return
        try:
            engine.close(options.exit_timeout_ms / 1000)
        except Exception:
            LOGGER.exception("an aggregator could not be closed; what waits stays in the journal")

    def close_all(self) -> None:
        """Close them, one after the other."""
        for engine in list(self._engines):
            self.close(engine)

    def _tell_process_pools(self) -> None:
        """Workers of multiprocessing and of Celery end without atexit; both run finalizers of their own."""
        for name in ("multiprocessing.util", "billiard.util"):
            module: Any = sys.modules.get(name)
            if module is not None and name not in self._pools:
                self._pools.add(name)
                module.Finalize(None, self.close_all, exitpriority=10)

    def _wait(self) -> None:
        """Deliver when the signal comes, and then let it do what it would have done."""
        number = self._signals.get()
        for engine, options in list(self._engines.items()):
            try:
                if options.flush_on_sigterm:
                    engine.flush("shutdown", options.exit_timeout_ms / 1000, hurry=True)
            except Exception:
                LOGGER.exception("what waits could not be delivered; it stays in the journal")
        os.kill(self._pid, number)

    def on_signal(self, number: int) -> None:
        """In the handler: from now on the signal ends the process; first the thread delivers."""
        signal.signal(number, signal.SIG_DFL)
        # A child that was forked from one who listens has nobody to listen before its own first entry.
        if self._pid == os.getpid() and self._listening:
            self._signals.put(number)
        else:
            os.kill(os.getpid(), number)


_exit = Exit()


def handle_sigterm() -> None:
    """Deliver on SIGTERM, if it would just end the process and this is the thread that may say so."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def at_exit(engine: Engine, options: Options) -> None:
    """Close an engine at the end of this process, within `exit_timeout_ms`."""
    _exit.add(engine, options)


def close_unowned(engine: Engine) -> None:
    """Close the engine of an aggregator that nobody holds any more, in a thread: this may be called in any one."""
    if engine not in _exit:
        return
    try:
        threading.Thread(target=_exit.close, args=(engine,), name="totalizer closer").start()
    except RuntimeError:  # the interpreter is ending, and closes it itself
        LOGGER.debug("an aggregator is closed by the end of the process")


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
