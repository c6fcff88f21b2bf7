"""The sender: a process of its own that plays prepared requests over keep-alive connections, one in flight on each.

It shares the machine's cores with what it measures, so it does next to nothing: non-blocking sockets and a selector,
no HTTP library, no event loop, requests as finished bytes. Every response is read to its end and must be a 202.

    python -m benchmarks.client PORT CONNECTIONS FILE

It says `ready` when it is connected, begins at a line on standard input, and ends with a line of JSON, a `Report`.
"""

from __future__ import annotations

import gc
import re
import socket
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

import msgspec

from benchmarks.workload import read_requests
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError, TotalizerError

#: Seconds without any response after which the server is taken for stuck.
SILENCE_SECONDS_MAX = 60.0
RECEIVE_BYTES = 65536
ACCEPTED = b"202"

_content_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
now = SYSTEM_CLOCK.monotonic


class Report(msgspec.Struct, frozen=True):
    """What became of the requests.

    Attributes:
        count: requests, each answered 202.
        started: when the first byte was sent; seconds of the machine's monotonic clock, which processes share.
        ended: when the last response was read.
        latency_ms_p50: from sending a request to the end of its response: the median.
        latency_ms_p99: the same, 99 of 100 are as fast.
    """

    count: int
    started: float
    ended: float
    latency_ms_p50: float
    latency_ms_p99: float

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return self.count / (self.ended - self.started)


class Connection:
    """One connection: at most one request on its way."""

    __slots__ = ("received", "sent_at", "socket", "unsent")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> bool:
        """Begin a request; True if the system took all of it."""
        self.sent_at = now()
        sent = self.socket.send(request)
        if sent == len(request):
            return True
        self.unsent = memoryview(request)[sent:]
        return False

    def send_rest(self) -> bool:
        """Go on with a request; True when the system has taken all of it."""
        self.unsent = self.unsent[self.socket.send(self.unsent) :]
        return not self.unsent

    def receive(self) -> bool:
        """Take what has arrived; True when that completes a response.

        Raises:
            OperationError: the response is not a 202, or the server closed the connection.
        """
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise OperationError("the server closed the connection in the middle of a run")
        data = self.received + data if self.received else data
        head = data.find(b"\r\n\r\n")
        length = _content_length(data, 0, head + 2) if head >= 0 else None
        if length is None or len(data) < head + 4 + int(length[1]):
            self.received = data
            return False
        if data[9:12] != ACCEPTED:
            raise OperationError(f"a request was answered {data.decode(errors='replace')}")
        self.received = b""
        return True


class Client:
    """Plays requests.

    Args:
        port: of the server on this machine.
        connections: how many, so also how many requests are on their way at a time.
        requests: finished requests.
    """

    def __init__(self, port: int, connections: int, requests: Sequence[bytes]) -> None:
        self._requests = deque(requests)
        self._selector = DefaultSelector()
        self._connections = [Connection(port) for _ in range(min(connections, len(requests)))]
        self._latencies: list[float] = []
        for connection in self._connections:
            self._selector.register(connection.socket, EVENT_READ, connection)

    def play(self) -> Report:
        """Send everything and wait for every response.

        Raises:
            OperationError: a response is not a 202, or none comes.
        """
        started = now()
        awaited = len(self._requests)
        for connection in self._connections:
            self._send_next(connection)
        while awaited:
            awaited -= self._turn()
        return report_of(started, now(), self._latencies)

    def _turn(self, wait_s: float = SILENCE_SECONDS_MAX) -> int:
        """Deal with what is ready, after a wait; returns how many responses are complete."""
        ready = self._selector.select(wait_s)
        if not ready and wait_s >= SILENCE_SECONDS_MAX:
            raise OperationError(f"the server has not answered for {SILENCE_SECONDS_MAX:.0f} s")
        complete = 0
        for key, events in ready:
            connection: Connection = key.data
            if events & EVENT_WRITE and connection.send_rest():
                self._selector.modify(connection.socket, EVENT_READ, connection)
            if events & EVENT_READ and connection.receive():
                self._latencies.append(now() - connection.sent_at)
                complete += 1
                self._send_next(connection)
        return complete

    def _send_next(self, connection: Connection) -> None:
        if self._requests:
            self._send(connection, self._requests.popleft())

    def _send(self, connection: Connection, request: bytes) -> None:
        if not connection.send(request):
            self._selector.modify(connection.socket, EVENT_READ | EVENT_WRITE, connection)


def report_of(started: float, ended: float, latencies: list[float]) -> Report:
    """What a client saw, with its latencies in seconds, which are sorted."""
    latencies.sort()
    half, most = (latencies[int(len(latencies) * part)] * 1000 for part in (0.5, 0.99))
    return Report(len(latencies), started, ended, half, most)


def run_client(client: Client) -> int:
    """Let a connected client play when it is told to, and say what it saw; returns the exit code."""
    gc.freeze()
    gc.disable()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        return 0  # whoever started this has gone
    try:
        report = client.play()
    except (TotalizerError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 0


def main() -> int:
    """Play the file named on the command line; returns the exit code."""
    port, connections, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    return run_client(Client(port, connections, read_requests(path)))


if __name__ == "__main__":
    sys.exit(main())
