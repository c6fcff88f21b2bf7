"""The client process and the bare server, as seen from the benchmark that starts them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.client import Report
from benchmarks.database import Database
from benchmarks.stack import free_port, stop_process
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError
from totalizer.ops.process import wait_until

#: The project's folder, where `python -m benchmarks.…` finds its modules.
ROOT = Path(__file__).parents[1]
#: Seconds between two looks at how much is stored: a look takes less than a millisecond of the database's time.
LOOK_SECONDS = 0.02
#: Seconds without another stored event after which the stack is taken for stuck.
STUCK_SECONDS_MAX = 60.0
#: Seconds that the bare server may take to answer.
BARE_START_SECONDS_MAX = 30.0


class Sender:
    """One run of the client process.

    Args:
        port: where to send.
        connections: how many.
        requests: file of requests.
        module: of the client.
        more: further arguments of its command line.
    """

    def __init__(
        self, port: int, connections: int, requests: Path, *more: str, module: str = "benchmarks.client"
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(port), str(connections), str(requests), *more],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def begin(self) -> None:
        """Wait until it is connected, and let it begin."""
        assert self._process.stdin is not None
        self._line()
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def report(self) -> Report:
        """Wait for its end.

        Raises:
            OperationError: a request was not answered 202.
        """
        return msgspec.json.decode(self._line(), type=Report)

    def failed(self) -> bool:
        """True if it has ended with an error."""
        return self._process.poll() not in (None, 0)

    def ended(self) -> bool:
        """True if it has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End it if it runs."""
        stop_process(self._process)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise OperationError(f"the client failed: {self._process.stderr.read().decode(errors='replace').strip()}")
        return line


@contextmanager
def _sender(port: int, connections: int, requests: Path) -> Iterator[Sender]:
    sender = Sender(port, connections, requests)
    try:
        sender.begin()
        yield sender
    finally:
        sender.stop()


def send(port: int, connections: int, requests: Path) -> Report:
    """Play a file of requests; returns when each is answered."""
    with _sender(port, connections, requests) as sender:
        return sender.report()


def send_and_store(
    port: int, connections: int, requests: Path, database: Database, events: int
) -> tuple[Report, float]:
    """Play a file of requests into a stack; returns when each is answered and each of `events` is stored.

    Returns:
        The client's report, and the seconds from its first byte until the last event was stored.
    """
    with _sender(port, connections, requests) as sender:
        stored_at = _await_stored(database, events, sender)
        report = sender.report()
    database.check_loaded(events)
    return report, stored_at - report.started


def _await_stored(database: Database, events: int, sender: Sender) -> float:
    """Wait until `events` are stored; returns the moment, in seconds of the monotonic clock."""
    before, moved_at = 0, SYSTEM_CLOCK.monotonic()
    while True:
        loaded, now = database.loaded(), SYSTEM_CLOCK.monotonic()
        if loaded >= events:
            return now
        if loaded > before:
            before, moved_at = loaded, now
        if sender.failed():
            sender.report()  # says why
        if now - moved_at > STUCK_SECONDS_MAX:
            raise OperationError(f"{loaded} of {events} events are stored, and no more for {STUCK_SECONDS_MAX:.0f} s")
        SYSTEM_CLOCK.sleep(LOOK_SECONDS)


@contextmanager
def bare_server(loop: str, workers: int = 1) -> Iterator[int]:
    """The port of a bare server on an event loop, `uvloop` or `asyncio`, that runs meanwhile."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare", str(port), loop, str(workers)], cwd=ROOT, stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        if not wait_until(lambda: _listens(port), BARE_START_SECONDS_MAX):
            raise OperationError(f"the bare server does not listen after {BARE_START_SECONDS_MAX:.0f} s")
        yield port
    finally:
        stop_process(process)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
