"""`totalizer up`: the supervisor. It holds the data folder, starts everything, restarts what ends, stops in order.

Run as a module by the command line, so that neither the settings' nor the servers' libraries stay in its memory.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.ops.console import ERR, OUT, exit_code_of
from totalizer.ops.lock import hold_folder
from totalizer.ops.log import LOG, log_to_file, stop_logging
from totalizer.ops.plan import UpPlan
from totalizer.ops.reach import require_free_port
from totalizer.ops.rotation import Rotation
from totalizer.ops.screen import screen
from totalizer.ops.signals import StopRequest
from totalizer.ops.stack import Stack, end_leftovers
from totalizer.ops.state import read_state
from totalizer.ops.supervisor import watch


def run(plan: UpPlan, *, clock: Clock = SYSTEM_CLOCK) -> int:
    """Start the stack, keep it running, stop it on SIGINT, SIGTERM or SIGHUP. Main thread only.

    Args:
        plan: what to start.
        clock: time source.

    Returns:
        Exit code 0: it was asked to stop and everything has stopped.

    Raises:
        OperationError: another `up` holds the folder, the port is busy, something does not start or keeps ending.
    """
    started = clock.monotonic()
    stop = StopRequest()
    stop.install()
    with hold_folder(plan.folder, clock), _logging(plan):
        end_leftovers(plan.folder, plan.leftover_seconds)
        require_free_port(plan.host, plan.port)
        stack = Stack(plan, stop, _tell, clock=clock)
        rotation = Rotation(plan.folder / "log", plan.log_bytes, plan.log_files, clock)
        rotation.look()
        try:
            with _stopping(stack, stop):
                stack.start()
                _show(stack, plan.folder, clock.monotonic() - started)
                watch(stack.services, stop, stack.keep_state, rotation.look, clock)
        except OperationError as error:
            LOG.error("%s", error)
            if not stop.asked():
                raise
    return 0


@contextlib.contextmanager
def _logging(plan: UpPlan) -> Iterator[None]:
    handler = log_to_file(plan.folder / "log" / "up.log", plan.log_level, plan.log_format)
    try:
        yield
    finally:
        stop_logging(handler)


@contextlib.contextmanager
def _stopping(stack: Stack, stop: StopRequest) -> Iterator[None]:
    """Stop everything in the end, whatever happens."""
    try:
        yield
    finally:
        if stop.asked():
            ERR.print("Stopping; a second signal hurries.")
        stack.stop_all()


def _show(stack: Stack, home: Path, seconds: float) -> None:
    state = read_state(home)
    if state is not None:
        LOG.info("ready after %.2f s at %s: %s", seconds, state.url, state.pids)
        OUT.print(screen(state, home, seconds))


def _tell(line: str) -> None:
    LOG.info("%s", line)
    ERR.print(line, markup=False)


def main() -> int:
    """Run the plan that the command line left in the environment; returns the exit code."""
    debug = False

    def run_plan() -> int:
        nonlocal debug
        plan = UpPlan.from_environment()
        debug = plan.debug
        return run(plan)

    return exit_code_of(run_plan, debug=lambda: debug)


if __name__ == "__main__":
    sys.exit(main())
