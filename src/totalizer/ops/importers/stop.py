"""Stopping in order: the first signal asks, the second insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """A request to stop, seen by every thread of an import.

    Attributes:
        signalled: True if a person or the system asked for it.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signalled = False

    @property
    def asked(self) -> bool:
        """True once there is nothing more to wait for."""
        return self._event.is_set()

    def ask(self) -> None:
        """Let every `wait` end now, for good."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Block up to `seconds`; True as soon as a stop is asked for."""
        return self._event.wait(seconds)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the request while the block runs. For the main thread only."""
        caught = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._on_signal) for number in caught]
        try:
            yield
        finally:
            for number, handler in zip(caught, before, strict=True):
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
        self.ask()
