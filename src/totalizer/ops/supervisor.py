"""Keeps services running: starts again what has ended, and gives up when it keeps ending."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.ops.log import LOG
from totalizer.ops.signals import StopRequest

#: Seconds between two looks at the services.
WATCH_SECONDS = 0.25
#: Pause before the first restart of a service; doubled with every further one, up to the maximum.
PAUSE_SECONDS_MIN = 0.2
PAUSE_SECONDS_MAX = 5.0
#: A service that ends this often within the window is given up, and everything with it.
ENDS_MAX = 5
ENDS_WINDOW_SECONDS = 60.0


class Service(Protocol):
    """What can be supervised. `start` may block until it is of use, `stop` until it has ended; `alive` never blocks."""

    name: str

    @property
    def pid(self) -> int | None:
        """Process id while it is started."""
        ...

    def start(self, cancelled: Callable[[], bool], /) -> None:
        """Start it.

        Raises:
            OperationError: it does not start.
        """
        ...

    def alive(self) -> bool:
        """True while it runs."""
        ...

    def exit_text(self) -> str:
        """How it ended, with the end of its log."""
        ...

    def stop(self, hurried: Callable[[], bool], /) -> None:
        """End it and what belongs to it; nothing happens if it has ended."""
        ...


class Keeper:
    """One service and its recent ends."""

    def __init__(self, service: Service, clock: Clock = SYSTEM_CLOCK) -> None:
        self.service = service
        self._clock = clock
        self._ends: deque[float] = deque(maxlen=ENDS_MAX)
        self._again_at: float | None = None

    def look(self, cancelled: Callable[[], bool]) -> bool:
        """Start the service again if it has ended and its pause is over; True if it was started.

        Raises:
            OperationError: it ended too often.
        """
        if self._again_at is None:
            if self.service.alive():
                return False
            self._note_end(self.service.exit_text())
        if self._again_at is None or self._clock.monotonic() < self._again_at:
            return False
        self._again_at = None
        return self._start(cancelled)

    def _start(self, cancelled: Callable[[], bool]) -> bool:
        try:
            self.service.start(cancelled)
        except OperationError as error:
            if not cancelled():
                self._note_end(str(error))
            return False
        LOG.info("%s runs again as pid %s", self.service.name, self.service.pid)
        return True

    def _note_end(self, how: str) -> None:
        now = self._clock.monotonic()
        self._ends.append(now)
        recent = sum(now - end <= ENDS_WINDOW_SECONDS for end in self._ends)
        if recent >= ENDS_MAX:
            raise OperationError(
                f"{self.service.name} ended {recent} times within {ENDS_WINDOW_SECONDS:.0f} s; the last time: {how}"
            )
        pause = min(PAUSE_SECONDS_MIN * 2 ** (recent - 1), PAUSE_SECONDS_MAX)
        LOG.error("%s; starting it again in %.1f s", how, pause)
        self._again_at = now + pause


def watch(
    services: Iterable[Service], stop: StopRequest, restarted: Callable[[], None], tidy: Callable[[], None],
    clock: Clock = SYSTEM_CLOCK,
) -> None:  # fmt: skip
    """Look after the services until stopping is asked for.

    Args:
        services: all started; looked at in this order, so what others need comes first.
        stop: the request.
        restarted: called after a service was started again (its pid is another one).
        tidy: called at each look.
        clock: time source.

    Raises:
        OperationError: a service ended too often; the others still run.
    """
    keepers = [Keeper(service, clock) for service in services]
    while not stop.wait(WATCH_SECONDS):
        changes = [keeper.look(stop.asked) for keeper in keepers]
        if any(changes):
            restarted()
        tidy()
