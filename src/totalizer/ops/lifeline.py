"""A child's way to notice that its supervisor is gone, even by kill -9.

The supervisor holds the writing end of a pipe and never writes; its children inherit the reading end. When the
supervisor ends, however it ends, the kernel closes the pipe and the child asks itself to shut down, as on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading

from totalizer.errors import ConfigurationError

#: The variable in which a child finds the number of the inherited descriptor.
LIFELINE_VARIABLE = "TOTALIZER_LIFELINE_FD"


class Lifeline:
    """The supervisor's side: keep it open as long as the children shall live."""

    def __init__(self) -> None:
        self.reading_end, self._writing_end = os.pipe()

    def environment(self) -> dict[str, str]:
        """What a child's environment needs; pass `reading_end` in `pass_fds` as well."""
        return {LIFELINE_VARIABLE: str(self.reading_end)}

    def close(self) -> None:
        """Let go: every child that still listens shuts down."""
        os.close(self._writing_end)
        os.close(self.reading_end)


def watch_lifeline() -> threading.Thread | None:
    """Send this process SIGTERM when its supervisor ends. Does nothing when it was not started by one.

    The variable is taken out of the environment and the descriptor is not inherited further, so that a child's own
    children are the child's business.

    Returns:
        The watching daemon thread, or None without a lifeline.

    Raises:
        ConfigurationError: the variable does not name an open descriptor.
    """
    number = os.environ.pop(LIFELINE_VARIABLE, None)
    if number is None:
        return None
    try:
        descriptor = int(number)
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"{LIFELINE_VARIABLE}={number!r} is no open descriptor; it is set by `totalizer up` only"
        ) from error
    thread = threading.Thread(target=_await_end, args=(descriptor,), name="lifeline", daemon=True)
    thread.start()
    return thread


def _await_end(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
