"""The steady sender: a process that plays requests over and over, at a pace, over connections that stay open.

    python -m benchmarks.steady PORT CONNECTIONS FILE SECONDS RATE

Its protocol is that of the other sender (`benchmarks.client`); the report comes when SECONDS are over.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count, cycle
from pathlib import Path

from benchmarks.client import SILENCE_SECONDS_MAX, Client, Connection, Report, now, report_of, run_client
from benchmarks.workload import read_requests

#: Connections begin one after the other within this many seconds, so that they do not move in step.
SPREAD_SECONDS = 1.0


class SteadyClient(Client):
    """Plays requests at a pace.

    Args:
        port: of the server on this machine.
        connections: how many; each has one request on its way at most.
        requests: finished requests; after the last comes the first again.
        seconds: how long.
        rate: requests a second, all connections together, unless answers come too late for that.
    """

    def __init__(self, port: int, connections: int, requests: Sequence[bytes], *, seconds: float, rate: float) -> None:
        super().__init__(port, connections, requests)
        self._endless, self._seconds, self._pause = cycle(requests), seconds, connections / rate
        #: When each connection that waits is to send again; the number keeps them apart.
        self._due: list[tuple[float, int, Connection]] = []
        self._numbers = count()

    def play(self) -> Report:
        """Send until the time is over, and wait for every response.

        Raises:
            OperationError: a response is not a 202, or none comes.
        """
        started = now()
        spread = min(SPREAD_SECONDS, self._pause) / len(self._connections)
        for place, connection in enumerate(self._connections):
            self._wait_until(started + spread * place, connection)
        on_way = 0
        while now() < started + self._seconds:
            on_way += self._send_due()
            on_way -= self._turn(max(self._due[0][0] - now(), 0.0) if self._due else SILENCE_SECONDS_MAX)
        while on_way:
            on_way -= self._turn()
        return report_of(started, now(), self._latencies)

    def _send_due(self) -> int:
        sent = 0
        while self._due and self._due[0][0] <= now():
            self._send(heappop(self._due)[2], next(self._endless))
            sent += 1
        return sent

    def _send_next(self, connection: Connection) -> None:
        self._wait_until(connection.sent_at + self._pause, connection)

    def _wait_until(self, due: float, connection: Connection) -> None:
        heappush(self._due, (due, next(self._numbers), connection))


def main() -> int:
    """Play as the command line says; returns the exit code."""
    port, connections, seconds, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[4]), float(sys.argv[5])
    requests = read_requests(Path(sys.argv[3]))
    return run_client(SteadyClient(port, connections, requests, seconds=seconds, rate=rate))


if __name__ == "__main__":
    sys.exit(main())
