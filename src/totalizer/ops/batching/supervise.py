"""Running the recovery daemon as a process: in the foreground until a signal, or detached; and stopping it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.daemon import DAEMON_LOCK, CronRecoveryDaemon, holder
from totalizer.errors import DaemonError, OperationError
from totalizer.ops.batching.place import Place
from totalizer.ops.console import INTERRUPTED, OUT
from totalizer.ops.signals import StopRequest

#: Seconds between two looks.
POLL_S = 0.05
#: Seconds that a detached daemon has to start.
START_S_MAX = 30.0
#: In the logs' folder: what a detached daemon says when it cannot start.
LOG_NAME = "daemon.log"
#: Bytes of that which are shown.
_SHOWN_BYTES = 4000


def run_daemon(place: Place, *, quiet: bool) -> None:
    """Run the recovery daemon until SIGTERM, SIGINT or SIGHUP; a second one ends the process at once.

    Args:
        place: where.
        quiet: tell the log files alone, not standard error.

    Raises:
        DaemonError: another daemon has the folder, or the disk refuses.
        ConfigurationError: a package of `totalizer[daemon]` is missing.
    """
    _configure_logging(place.daemon.log_level, quiet)
    request, sink = StopRequest(), place.sink()
    daemon = CronRecoveryDaemon(place.daemon, sink=sink)
    request.install()
    daemon.start()
    OUT.print(
        f"the recovery daemon runs on {place.folders.data} as process {os.getpid()}, delivering to {sink.name}",
        markup=False,
    )
    while not request.wait(3600.0):
        pass
    _stop(daemon, request)
    sink.close()
    OUT.print("stopped", markup=False)


def detach(arguments: Sequence[str], place: Place, clock: Clock = SYSTEM_CLOCK) -> int:
    """Start `totalizer ARGUMENTS` in a session of its own, and wait until it has the folder.

    Returns:
        Its process id.

    Raises:
        OperationError: it has not started; the message has the end of its log.
    """
    place.folders.make()
    log = place.folders.logs / LOG_NAME
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        begun = os.fstat(descriptor).st_size
        process = subprocess.Popen(
            [sys.executable, "-m", "totalizer", *arguments], stdin=subprocess.DEVNULL, stdout=descriptor,
            stderr=descriptor, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    deadline = clock.monotonic() + START_S_MAX
    while daemon_pid(place) != process.pid:
        if process.poll() is not None:
            raise OperationError(f"the recovery daemon has not started:\n{_end_of(log, begun)}")
        if clock.monotonic() > deadline:
            process.terminate()
            raise OperationError(f"the recovery daemon has not started within {START_S_MAX:.0f} s; see {log}")
        clock.sleep(POLL_S)
    return process.pid


def stop_daemon(place: Place, timeout_s: float, clock: Clock = SYSTEM_CLOCK) -> int | None:
    """Stop the daemon that has the folder, and wait for its end.

    Returns:
        Its process id; None if none runs.

    Raises:
        DaemonError: it may not be stopped by this user, has not ended in time, or cannot be told.
    """
    pid = daemon_pid(place)
    if pid is None:
        return None
    if pid == 0:
        raise DaemonError(f"a recovery daemon has {place.folders.recovery}, but its lock does not say which process")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return pid
    except PermissionError as error:
        raise DaemonError(f"the recovery daemon, process {pid}, belongs to another user: {error.strerror}") from error
    deadline = clock.monotonic() + timeout_s
    while daemon_pid(place) == pid:
        if clock.monotonic() > deadline:
            raise DaemonError(f"the recovery daemon, process {pid}, has not ended within {timeout_s:g} s")
        clock.sleep(POLL_S)
    return pid


def daemon_pid(place: Place) -> int | None:
    """Process of the daemon that has the folder; 0 if it cannot be told which, None if there is none."""
    return holder(place.folders.recovery / DAEMON_LOCK)


def _stop(daemon: CronRecoveryDaemon, request: StopRequest) -> None:
    """Stop; a second signal does not wait for the batch that is on its way, which is repeated at the next start."""
    stopping = Thread(target=daemon.stop, name="totalizer daemon stop", daemon=True)
    stopping.start()
    while stopping.is_alive():
        if request.hurried():
            os._exit(INTERRUPTED)
        stopping.join(POLL_S)


def _configure_logging(level: str, quiet: bool) -> None:
    """What the daemon logs, on standard error; its audit trail has the same."""
    logger = logging.getLogger("totalizer")
    logger.propagate = False
    if quiet:
        logger.addHandler(logging.NullHandler())
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level.upper())


def _end_of(log: Path, begun: int) -> str:
    with log.open("rb") as file:
        file.seek(begun)
        return file.read()[-_SHOWN_BYTES:].decode(errors="replace").strip()
