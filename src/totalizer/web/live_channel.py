"""What live connections have in common: a bounded queue each, a number of seats for each organisation, and an end."""

from __future__ import annotations

import asyncio
from collections import deque

from totalizer.errors import Refusal, Refused

#: Messages, and bytes of them, that wait for one reader; one that is further behind is let go.
WAITING_MAX, WAITING_BYTES_MAX = 256, 4 << 20


class Channel:
    """Messages on their way to one reader. Used on one event loop.

    Attributes:
        code: why it has ended, as WebSocket has it (RFC 6455 §7.4.1); 0 while it has not.
        reason: the same in words.
        lagging: True if the reader was too slow; what waited is not sent any more.
    """

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._something = asyncio.Event()
        self.code, self.reason, self.lagging = 0, "", False

    def put(self, message: bytes) -> None:
        """Send a message, at once or when its turn comes; never waits."""
        if self.code:
            return
        self._waiting.append(message)
        self._bytes += len(message)
        if len(self._waiting) > WAITING_MAX or self._bytes > WAITING_BYTES_MAX:
            self._waiting.clear()
            self.lagging = True
            self.end(1008, "too slow: more is waiting than is kept; connect again, and go on from your cursor")
        self._something.set()

    async def get(self, timeout_s: float) -> bytes | None:
        """The next message; None if none comes in that time, or none any more."""
        if not self._waiting and not self.code:
            self._something.clear()
            try:
                await asyncio.wait_for(self._something.wait(), timeout_s)
            except TimeoutError:
                return None
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._bytes -= len(message)
        return message

    def end(self, code: int, reason: str) -> None:
        """Take no more messages; those that wait are still sent. The first reason stays."""
        if not self.code:
            self.code, self.reason = code, reason
            self._something.set()


class Seats:
    """The live connections of this process.

    Args:
        connections_max: of one organisation.
    """

    def __init__(self, connections_max: int) -> None:
        self._connections_max = connections_max
        self._taken: dict[str, set[Channel]] = {}
        self._leaving = False

    def take(self, organization_id: str, channel: Channel) -> None:
        """Note a connection.

        Raises:
            Refused: the organisation has as many as it may have, or this process ends.
        """
        if self._leaving:
            raise Refused(Refusal.LIVE_UNAVAILABLE, "this process ends; connect again", retry_after_s=1)
        taken = self._taken.setdefault(organization_id, set())
        if len(taken) >= self._connections_max:
            raise Refused(
                Refusal.LIVE_LIMIT,
                f"{len(taken)} live connections of this organisation are open here, which is all it may have; close "
                "some (TOTALIZER_LIVE_CONNECTIONS_MAX)",
            )
        taken.add(channel)

    def give_back(self, organization_id: str, channel: Channel) -> None:
        """Note that a connection has ended."""
        taken = self._taken.get(organization_id, set())
        taken.discard(channel)
        if not taken:
            self._taken.pop(organization_id, None)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self._taken.values()))

    async def leave(self, patience_s: float) -> None:
        """End all connections, and let no more begin; returns when they have ended, or after that time."""
        self._leaving = True
        for taken in list(self._taken.values()):
            for channel in taken:
                channel.end(1001, "the server goes away; connect again, and go on from your cursor")
        deadline = asyncio.get_running_loop().time() + patience_s
        while self._taken and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
