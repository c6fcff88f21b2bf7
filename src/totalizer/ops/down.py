"""`totalizer down`: stops the stack of a data folder, or what a killed one left behind."""

from __future__ import annotations

import signal
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.ops.embedded import EmbeddedPostgres, EmbeddedValkey
from totalizer.ops.lock import Holder, hold_folder, holder_of
from totalizer.ops.process import ProcessId, wait_until
from totalizer.ops.stack import end_leftovers
from totalizer.ops.state import remove_state

#: Seconds that a running `up` may take to stop everything: more than its children's bounds together.
STOP_SECONDS_MAX = 150.0


def bring_down(home: Path, *, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """Stop what runs on a data folder.

    Args:
        home: absolute data folder.
        clock: time source.

    Returns:
        Names of what was stopped; empty if nothing ran.

    Raises:
        OperationError: it belongs to another user, or did not stop in time.
    """
    if not home.is_dir():
        return []
    stopped = []
    holder = holder_of(home)
    if holder is not None:
        _stop_holder(home, holder, clock)
        stopped.append("up")
    with hold_folder(home, clock):
        return stopped + _stop_leftovers(home)


def _stop_holder(home: Path, holder: Holder, clock: Clock) -> None:
    process = ProcessId.of(holder.pid) if holder.pid else None
    if process is None:
        raise OperationError(f"{home} is held by a process that does not say which; try again")
    try:
        process.send(signal.SIGTERM)
    except PermissionError as error:
        raise OperationError(f"`totalizer up` (pid {holder.pid}) belongs to another user") from error
    if not wait_until(lambda: holder_of(home) is None, STOP_SECONDS_MAX, clock):
        raise OperationError(f"`totalizer up` (pid {holder.pid}) did not stop within {STOP_SECONDS_MAX:.0f} s")


def _stop_leftovers(home: Path) -> list[str]:
    stopped = end_leftovers(home)
    # The secret is not needed to stop a server.
    for server in (EmbeddedValkey(home), EmbeddedPostgres(home, secret="")):
        if server.stop_if_running():
            stopped.append(server.name)
    remove_state(home)
    return stopped
