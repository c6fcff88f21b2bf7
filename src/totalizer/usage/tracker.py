"""Tracking usage from a Python process: on disk first, then in the counter."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Final

import msgspec
import redis
from redis.exceptions import RedisError

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import Refused, ValidationError
from totalizer.journal import Journal, claim
from totalizer.store import usage_counters
from totalizer.store.usage_additions import Addition, Answer, Gathered, Generations
from totalizer.telemetry import logger
from totalizer.usage.additions import Tracked, tracked_in

#: (organisation, JSON of one event) → the payload for the journal; raises Refused.
Admit = Callable[[str, bytes], bytes]
#: Redis is left alone this long after it gave no answer, seconds.
AWAY_PAUSE_S: Final = 2.0
#: Size of a segment of a tracker's journal, at most: it is reserved at once.
SEGMENT_BYTES: Final = 4 << 20
#: Name of the journals' folders in the spool.
JOURNAL_PREFIX: Final = "usage"


class UsageTracker:
    """Counts what merchants use. For any number of threads; also after a fork, where it opens a journal anew.

    Made by `totalizer.app.usage_tracker`. It is its own context manager.

    Args:
        organization_id: whose merchants they are.
        counters_of: the organisation as counters' names have it: None for the organisation `default`.
        admit: checks an event and renders it.
        spool: the folder of journals, which the loader drains.
        client: from `usage_counters.connect`; None to go without counters.
        segment_bytes, quota_bytes: of the journal.
        clock: time source.
    """

    def __init__(
        self, organization_id: str, counters_of: str | None, admit: Admit, spool: Path, client: redis.Redis | None,
        *, segment_bytes: int, quota_bytes: int, clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._organization_id, self._counters_of, self._admit = organization_id, counters_of, admit
        self._spool, self._sizes = spool, {"segment_bytes": segment_bytes, "quota_bytes": quota_bytes}
        self._redis: Any = client
        self._clock = clock
        self._generations, self._gathered, self._sending = Generations(), Gathered(), Lock()
        self._journal: Journal | None = None
        self._pid, self._lock, self._closed = 0, Lock(), False
        self._away_until, self._away = float("-inf"), client is None
        _OPEN.add(self)

    def track(
        self, merchant_id: str, metric_type: str, amount: int = 1, at: datetime | str | int | None = None
    ) -> int | None:
        """Count some use. When this returns it would survive a power loss, and will be billed exactly once.

        Args:
            merchant_id: who is billed; 1 to 255 characters.
            metric_type: what was used, such as `queries`; 1 to 100 characters.
            amount: how much, 1 to 2^53.
            at: when: an aware datetime, RFC 3339 text or milliseconds since 1970; None for now.

        Returns:
            The counter of the merchant, metric and UTC day after it; None if Redis cannot tell.

        Raises:
            ValidationError: it cannot be counted; names the argument. Nothing was counted.
            JournalFull, JournalFailed: it could not be made durable. Nothing was counted.
        """
        payload = self._payload(merchant_id, metric_type, amount, at)
        journal = self._own_journal()
        tracked, generation = self._prepared(payload)
        journal.append_and_wait(payload)
        return None if generation is None else self._added(tracked, generation)

    def close(self) -> None:
        """Give journal and connections back; again, do nothing."""
        with self._lock:
            self._closed = True
            journal, self._journal = self._journal, None
        if journal is not None and self._pid == os.getpid():
            journal.close()
        if self._redis is not None:
            self._redis.close()

    def __enter__(self) -> UsageTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _payload(self, merchant_id: Any, metric_type: Any, amount: Any, at: Any) -> bytes:
        event: dict[str, Any] = {"merchant_id": merchant_id, "metric_type": metric_type, "amount": amount}
        for field in ("merchant_id", "metric_type"):
            if not isinstance(event[field], str):
                raise ValidationError(field, f"must be a text, not {event[field]!r:.80}")
        if not isinstance(amount, int) or isinstance(amount, bool):
            raise ValidationError("amount", f"must be a whole number, not {amount!r:.80}")
        if at is not None:
            event["at"] = _time(at)
        try:
            return self._admit(self._organization_id, msgspec.json.encode(event))
        except Refused as refused:
            field, _, reason = refused.detail.partition(": ")
            raise ValidationError(*((field, reason) if reason else ("", field))) from None
        except (UnicodeEncodeError, OverflowError) as error:
            raise ValidationError("", f"cannot be written as JSON: {error}") from None

    def _own_journal(self) -> Journal:
        """The journal of this process, opened when it is first needed."""
        if self._journal is None or self._pid != os.getpid():
            with self._lock:
                if self._closed:
                    raise ValidationError("", "the tracker was closed; make another one to go on")
                if self._journal is None or self._pid != os.getpid():
                    self._journal, self._pid = claim(self._spool, JOURNAL_PREFIX, **self._sizes), os.getpid()
        return self._journal

    def _renew_locks(self) -> None:
        """In a forked child: a lock that another thread held would be held for ever, what it was sending is its own."""
        self._lock, self._sending, self._gathered = Lock(), Lock(), Gathered()

    def _prepared(self, payload: bytes) -> tuple[Tracked, str | None]:
        """What is to be added, and the counter's generation now, before the event is on disk."""
        [tracked] = tracked_in(payload, self._counters_of)
        if self._redis is None or self._clock.monotonic() < self._away_until:
            return tracked, None
        known = self._generations.get(tracked.counter.key)
        return tracked, known if known is not None else self._asked(tracked.counter.key)

    def _asked(self, key: str) -> str | None:
        pipeline = self._redis.pipeline(transaction=False)
        usage_counters.ask_generations(pipeline, [key])
        try:
            [generation] = usage_counters.generations_of(pipeline.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            self._went_away(error)
            return None
        if generation is not None:
            self._generations.learn(key, generation)
        return generation

    def _added(self, tracked: Tracked, generation: str) -> int | None:
        """The counter after it; None if it was not added, or if nobody knows."""
        addition = self._gathered.join(tracked.counter.key, generation, tracked.amount)
        with self._sending:
            if addition.answer is None:
                self._send(self._gathered.take())
        # Without any answer if whoever was sending it was interrupted.
        return None if addition.answer is None else addition.answer.value

    def _send(self, additions: list[Addition]) -> None:
        again = self._send_once(additions, again=False)
        if again:
            self._send_once(again, again=True)
        for addition in additions:
            answer = addition.answer or Answer()
            if answer.generation is not None:
                self._generations.learn(addition.key, answer.generation)
            if answer.reason is not None:
                logger().warning("a usage counter cannot be added to", key=addition.key, reason=answer.reason)

    def _send_once(self, additions: list[Addition], *, again: bool) -> list[Addition]:
        pipeline = self._redis.pipeline(transaction=False)
        usage_counters.add(pipeline, additions, again=again)
        try:
            found = pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            self._went_away(error)
            found = None
        else:
            self._came_back()
        return usage_counters.note_answers(additions, found)

    def _went_away(self, error: Exception) -> None:
        self._away_until = self._clock.monotonic() + AWAY_PAUSE_S
        if not self._away:
            self._away = True
            logger().warning("usage is counted without Redis; nothing is lost", reason=str(error))

    def _came_back(self) -> None:
        if self._away:
            self._away = False
            logger().info("usage is counted in Redis again")


def _time(at: Any) -> str | int:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValidationError("at", f"{at!r} names no time zone; use an aware datetime")
        return at.isoformat()
    if isinstance(at, str) or (isinstance(at, int) and not isinstance(at, bool)):
        return at
    raise ValidationError("at", f"must be an aware datetime, a text or milliseconds since 1970, not {at!r:.80}")


#: The trackers of this process, for `_renew_locks`.
_OPEN: weakref.WeakSet[UsageTracker] = weakref.WeakSet()


def _renew_locks() -> None:
    for tracker in list(_OPEN):
        tracker._renew_locks()


os.register_at_fork(after_in_child=_renew_locks)
