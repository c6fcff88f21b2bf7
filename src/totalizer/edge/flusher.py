"""The thread that decides when to flush, and does it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from totalizer.edge.batch_flush import BatchFlush, Flushed
from totalizer.edge.log import EntryLog
from totalizer.edge.metrics import Metrics
from totalizer.edge.options import Options
from totalizer.errors import FlushError, JournalError
from totalizer.journal import Position

LOGGER = logging.getLogger("totalizer.edge")
#: Seconds between two tries while the disk lets a batch neither out nor aside.
STUCK_PAUSE_S = 1.0
#: Seconds between two looks at what others ask for, while entries wait; and while none do.
LOOK_INTERVAL_S, IDLE_INTERVAL_S = 1.0, 15.0


class Ticket:
    """Somebody waits until everything that waited when they asked is dealt with.

    Attributes:
        trigger: what to call the flushes.
        target: end of the journal when it was asked.
        errors: of the batches that were not delivered.
        settled: set when it is over.
    """

    def __init__(self, trigger: str, target: Position) -> None:
        self.trigger, self.target = trigger, target
        self.errors: list[FlushError] = []
        self.settled = threading.Event()


class Flusher:
    """Owns the journal's reading side from `start` to `stop`.

    Args:
        log: the process' own.
        flush: does one flush.
        look_around: called about once a second while entries wait, in the thread.
        options, metrics: of the aggregator.

    Attributes:
        since: when the oldest waiting entry was added, monotonic seconds; None if none waits, as far as known.
    """

    def __init__(
        self, log: EntryLog, flush: BatchFlush, look_around: Callable[[], None], options: Options, metrics: Metrics
    ) -> None:
        self._log, self._flush, self._look_around = log, flush, look_around
        self._options, self._metrics, self._clock = options, metrics, options.clock
        self._threshold, self._max_age_s = options.threshold, options.max_age_ms / 1000
        self._bell, self._rung = threading.Event(), False
        self._stopping = threading.Event()
        self._tickets: list[Ticket] = []
        self._tickets_lock = threading.Lock()
        self._stopped = False
        self._not_before = self._looked_at = float("-inf")
        self._room_wanted = False
        # Flushed since the last look around, which tells others of it.
        self._untold = False
        self.since: float | None = None
        self._thread = threading.Thread(target=self._run, name="totalizer flusher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._note_age()
        self._thread.start()

    def notice(self) -> None:
        """An entry was added: wake the thread if that changes what it has to do. For any thread, cheap."""
        if self.since is None:
            self.since = self._clock.monotonic()
            self.ring()
        elif not self._rung and self._log.waiting >= self._threshold:
            self.ring()

    def ring(self) -> None:
        """Wake the thread."""
        self._rung = True
        self._bell.set()

    def want_room(self) -> None:
        """The quota is reached: flush now, and drop the oldest entries if that is how it was wanted."""
        self._room_wanted = True
        self.ring()

    def request(self, trigger: str, *, hurry: bool = False) -> Ticket:
        """Ask for everything that waits now to be flushed.

        Args:
            trigger: what to call it.
            hurry: also if the last flush has just shown that the disk refuses.
        """
        ticket = Ticket(trigger, self._log.end)
        if hurry:
            self._not_before = float("-inf")
        with self._tickets_lock:
            if self._stopped:
                self._end_ticket(ticket)
                return ticket
            self._tickets.append(ticket)
        self.ring()
        return ticket

    def kept(self, reason: str) -> FlushError:
        """What to tell those who wait for a flush that does not come about now."""
        now_ms, waiting = self._clock.now_ns() // 1_000_000, self._log.waiting
        return FlushError(
            f"{waiting} entries stay in the journal: {reason}", batch_size=waiting, retryable=True, timestamp=now_ms
        )

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the attempt it is at; False if that has not come about in time."""
        self._stopping.set()
        self.ring()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.wait(self._nap_s())
            self._bell.clear()
            self._rung = False
            try:
                self._work()
            except JournalError as error:
                self._give_up_for_now(f"the journal's disk refuses: {error}")
            except BaseException as error:
                # Also what a target raises to end a program: this thread is not the one to be ended.
                LOGGER.exception("the flusher met an error nobody expected; it goes on")
                self._give_up_for_now(f"{type(error).__name__}: {error}")
        self._end()

    def _work(self) -> None:
        self._make_room()
        while not self._stopping.is_set() and (trigger := self._due()) is not None:
            asked = list(self._tickets)
            flushed = self._flush_one(trigger)
            self._note_age()
            self._settle(asked if flushed is None else [])
            if flushed is None:
                break
        self._log.settle()
        self._settle()
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_INTERVAL_S:
            self._looked_at, self._untold = now, False
            self._log.retry_unsynced()
            self._look_around()

    def _due(self) -> str | None:
        """What asks for a flush now; None if nothing does."""
        waiting = self._log.waiting
        if not waiting or self._clock.monotonic() < self._not_before:
            return None
        tickets = self._tickets
        if tickets:
            return tickets[0].trigger
        if self._log.is_sealed:
            return "resumed"
        if waiting >= self._options.batch_size:
            return "size"
        if waiting >= self._threshold:
            return "threshold"
        if self.since is not None and self._clock.monotonic() - self.since >= self._max_age_s:
            return "age"
        return "quota" if self._room_wanted and self._log.is_full else None

    def _flush_one(self, trigger: str) -> Flushed | None:
        flushed = self._flush.run(self._log, trigger, self._pause)
        self._untold = True
        if flushed is None or flushed.error is None:
            return flushed
        with self._tickets_lock:
            for ticket in self._tickets:
                ticket.errors.append(flushed.error)
        if not flushed.entries:
            self._not_before = self._clock.monotonic() + STUCK_PAUSE_S
            self._release_all()
        return flushed

    def _make_room(self) -> None:
        if not self._room_wanted:
            return
        if not self._log.is_full:
            self._room_wanted = False
        elif self._options.on_full == "drop_oldest":
            dropped = self._log.drop_oldest()
            self._metrics.count(dropped=dropped)
            LOGGER.error("%d waiting entries were dropped: quota_bytes=%d", dropped, self._options.quota_bytes)

    def _note_age(self) -> None:
        """After a change: since when the oldest entry waits. The wall clock may have jumped, so it has bounds."""
        self.since = None
        if not self._log.waiting:
            return
        oldest_ms = self._log.oldest_ms()
        age_s = 0.0 if oldest_ms is None else self._clock.now_ns() / 1e9 - oldest_ms / 1000
        self.since = self._clock.monotonic() - min(max(age_s, 0.0), self._max_age_s)

    def _settle(self, also: Sequence[Ticket] = ()) -> None:
        """Tell those whose entries are dealt with, durably so, and some others."""
        start, waiting = self._log.start, self._log.waiting
        # The last flush of all goes on until reading finds nothing, so that what damage has taken is told as lost.
        unsure = bool(waiting) and self._log.is_damaged
        over = [
            each
            for each in list(self._tickets)
            if not waiting or each in also or (start >= each.target and not (unsure and each.trigger == "shutdown"))
        ]
        if not over:
            return
        self._log.settle()
        with self._tickets_lock:
            self._tickets = [each for each in self._tickets if each not in over]
        for ticket in over:
            ticket.settled.set()

    def _release_all(self) -> None:
        """Nothing can be done at present: tell everyone who waits."""
        with self._tickets_lock:
            tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            ticket.settled.set()

    def _give_up_for_now(self, reason: str) -> None:
        self._not_before = self._clock.monotonic() + STUCK_PAUSE_S
        error = self.kept(reason)
        LOGGER.error("%s", error)
        self._metrics.count(flushes=1, failed_flushes=1)
        with self._tickets_lock:
            for ticket in self._tickets:
                ticket.errors.append(error)
        self._release_all()

    def _pause(self, seconds: float) -> bool:
        return not self._stopping.wait(seconds)

    def _nap_s(self) -> float:
        """Seconds until there may be something to do without being woken."""
        now = self._clock.monotonic()
        if self.since is None and not self._tickets:
            return LOOK_INTERVAL_S if self._untold else IDLE_INTERVAL_S
        due = self._not_before if self._tickets or self._log.is_sealed else (self.since or now) + self._max_age_s
        return min(max(due - now, self._not_before - now, 0.0), LOOK_INTERVAL_S)

    def _end(self) -> None:
        with self._tickets_lock:
            self._stopped = True
            tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            self._end_ticket(ticket)

    def _end_ticket(self, ticket: Ticket) -> None:
        """Somebody waits for a thread that has ended."""
        if self._log.waiting:
            ticket.errors.append(self.kept("the aggregator is shut down"))
        ticket.settled.set()
