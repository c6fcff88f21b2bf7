"""What one process may still let one organisation do in this window, of one kind: a number that is counted down.

limit of the window, all processes          lent to this process                      spent by the hot path
┌───────────────────────────────┐  lease   ┌─────────┬─────────┐  when `left` is out  ┌────────┐
│ Redis: used or lent so far     │ ───────▶ │ reserve │  left   │ ───────────────────▶ │ left-1 │
└───────────────────────────────┘          └─────────┴─────────┘  reserve moves up,   └────────┘
                                                                   the next is asked for
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from totalizer.errors import Refusal, Refused
from totalizer.store.leases import Ask, Lease

if TYPE_CHECKING:
    from totalizer.web.limits import Limiter

#: A limit that is never reached: what is left where there is none.
ENDLESS: Final = 1 << 62
#: A process is lent this part of a limit at once at most, divided by the number of processes.
LEASES_A_WINDOW: Final = 20

_JSON: Final = [("content-type", "application/json")]


class Meter:
    """Counts down one limit of one organisation. Event loop only.

    Who spends takes its amount off `left`, and calls `more` when that makes it negative:

        meter.left -= 1
        if meter.left < 0:
            await meter.more(1)

    Args:
        limiter: of this process.
        organization_id: whose.
        kind: `requests`, `batches`, `reads` or `bytes`.

    Attributes:
        left: what may be spent at once.
        headers: the header fields of answers that tell of the limit.
        json_headers: the same after a content type of JSON.
    """

    __slots__ = (
        "_kind",
        "_left_of_all",
        "_limiter",
        "_needed",
        "_organization_id",
        "_over",
        "_reserve",
        "_turn",
        "debt",
        "had",
        "headers",
        "json_headers",
        "left",
        "limit",
        "number",
        "seen",
    )  # fmt: skip

    def __init__(self, limiter: Limiter, organization_id: str, kind: str) -> None:
        self._limiter, self._organization_id, self._kind = limiter, organization_id, kind
        self.headers: list[tuple[str, str]] = []
        self.json_headers = _JSON
        self.limit, self.left = 0, ENDLESS
        #: What waiting requests need, and what wakes them.
        self._needed, self._turn = 0, asyncio.Event()
        self.begin(0)

    def begin(self, number: int) -> None:
        """Begin a window: nothing is lent yet."""
        self.number = number
        #: Lent or taken in this window; of that, taken without asking; and `left` at the last look.
        self.had = self.debt = 0
        self.seen = -1
        self._reserve, self._over, self._left_of_all = 0, False, self.limit
        if self.limit:
            self.left = 0

    def set_limit(self, limit: int) -> None:
        """Count to this from now on; 0: without limit."""
        if limit == self.limit:
            return
        self.limit, self._over, self._reserve = limit, False, 0
        self.left = 0 if limit else ENDLESS
        self._left_of_all = max(limit - self.had, 0)
        self.headers, self.json_headers = [], _JSON

    async def spend(self, amount: int) -> None:
        """Spend that much, as the example above does.

        Raises:
            Refused: as `more`.
        """
        self.left -= amount
        if self.left < 0:
            await self.more(amount)

    async def more(self, amount: int) -> None:
        """Spend what was taken off `left` and was not there: from the reserve, or when it is lent.

        Raises:
            Refused: 429, the limit is reached; 413, it never can be.
        """
        self.left += amount
        if not self.limit:
            self.left = ENDLESS
            return
        if amount > self.limit:
            raise self._impossible(amount)
        self._limiter.look(self)
        while not self._spend(amount):
            if self._over:
                raise self._reached()
            if self._limiter.away:
                if not self._take_own_share(amount):
                    raise self._reached()
            else:
                await self._wait(amount)
                self._limiter.look(self)

    def _spend(self, amount: int) -> bool:
        if self.left < amount:
            self.left, self._reserve = self.left + self._reserve, 0
            if self.left < amount:
                return False
            if self._wanted and not self._over and not self._limiter.away:
                self._limiter.ask(self)
        self.left -= amount
        self.describe()
        return True

    async def _wait(self, amount: int) -> None:
        turn = self._turn
        self._needed += amount
        self._limiter.ask(self)
        try:
            await turn.wait()
        finally:
            self._needed -= amount

    def _take_own_share(self, amount: int) -> bool:
        """While nobody can be asked: up to this process' share of the limit."""
        free = max(1, self.limit // self._limiter.processes) - self.had
        if free < amount - self.left:
            return False
        taken = min(free, max(amount - self.left, self._wanted))
        self.left += taken
        self.had += taken
        self.debt += taken
        self._left_of_all = max(self._left_of_all - taken, 0)
        return True

    @property
    def _wanted(self) -> int:
        """In hand after a lease; 0 for small limits, of which each unit is asked for."""
        return self.limit // (LEASES_A_WINDOW * self._limiter.processes)

    def ask(self) -> Ask:
        """What to ask for now."""
        # What others do not know of yet is told first: there may be nothing left to be lent.
        wanted = 0 if self.debt else self._wanted
        return Ask(
            self._organization_id, self._kind, self._limiter.window_ms, self.number, self.limit,
            max(self._needed - self.left - self._reserve, 0), wanted, self.debt, self.had,
        )  # fmt: skip

    def lent(self, ask: Ask, lease: Lease) -> None:
        """Take a lease, if its window is still on and its limit still holds, and wake who waits."""
        if ask.number == self.number and ask.limit == self.limit:
            self.had += lease.lent
            self.debt -= ask.debt
            self._left_of_all = lease.left
            # A half at hand and a half in reserve: the next lease is asked for in time, and nobody waits for it.
            half = max(lease.lent - ask.needed, 0) // 2
            self._reserve += half
            self.left += lease.lent - half
            self._over = lease.lent == 0 and lease.left == 0
            self.describe()
        self.wake()

    def wake(self) -> None:
        """Let who waits look again."""
        self._turn.set()
        self._turn = asyncio.Event()

    def rest(self) -> bool:
        """True if nothing was spent since the last look: the next request takes the longer way, and tells the time."""
        idle = self.left == self.seen or not self.limit
        if idle and self.limit:
            self.left, self._reserve = 0, self._reserve + self.left
        self.seen = self.left
        return idle

    @property
    def spent_any(self) -> bool:
        """True if some of what was lent in this window is spent."""
        return self.had > self.left + self._reserve

    def describe(self) -> None:
        """Bring the header fields up to date. draft-ietf-httpapi-ratelimit-headers, and what came before it."""
        remaining = self._left_of_all + self.left + self._reserve
        limiter, limit = self._limiter, self.limit
        self.headers = [
            ("ratelimit-policy", f'"{self._kind}";q={limit};w={limiter.window_s}'),
            ("ratelimit", f'"{self._kind}";r={remaining};t={limiter.reset_s()}'),
            ("x-ratelimit-limit", str(limit)),
            ("x-ratelimit-remaining", str(remaining)),
            ("x-ratelimit-reset", str(limiter.reset_at_s)),
        ]
        self.json_headers = [*_JSON, *self.headers]

    def _reached(self) -> Refused:
        self._left_of_all = 0 if self._over else self._left_of_all
        self.describe()
        per = f"{self._limiter.window_s} s"
        detail = f"this organisation may send {self.limit} {_WORDS[self._kind]} in {per}; wait as Retry-After says"
        return Refused(Refusal.RATE_LIMITED, detail, retry_after_s=self._limiter.reset_s(), headers=tuple(self.headers))

    def _impossible(self, amount: int) -> Refused:
        detail = f"the request has {amount} bytes, and this organisation may send {self.limit} in a whole window"
        return Refused(Refusal.BODY_TOO_LARGE, f"{detail}; send smaller batches, or have the limit raised")


_WORDS = {
    "requests": "requests of single events", "batches": "requests of batches", "reads": "queries", "bytes": "bytes",
}  # fmt: skip
