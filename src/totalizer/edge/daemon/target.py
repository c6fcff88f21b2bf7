"""Where the daemon delivers to: a sink, or an aggregator; and what came of one attempt."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from totalizer.edge.batch import Batch, RefusedEntry
from totalizer.edge.daemon.log import Log
from totalizer.edge.sinks.sink import Delivery, Sink
from totalizer.errors import SinkRefused, SinkUnavailable

LOGGER = logging.getLogger("totalizer.edge.daemon")
#: The code of entries whose whole batch was refused.
BATCH_REFUSED = "batch_refused"


@dataclass(frozen=True)
class Attempt:
    """What came of one attempt to deliver a batch.

    Attributes:
        undelivered: indexes of the entries that still wait, in order.
        refused: entries that were refused for good.
        error: why something was not delivered; None if all was.
        retry_after_s: seconds the target asked to be left alone for; None if it did not.
        away: True if the target took nothing because it is not there at all.
    """

    undelivered: tuple[int, ...] = ()
    refused: tuple[RefusedEntry, ...] = ()
    error: str | None = None
    retry_after_s: float | None = None
    away: bool = False


class Target(Protocol):
    """One attempt at a time, at most; every error is in the answer."""

    def attempt(self, batch: Batch) -> Attempt:
        """Try once to deliver a batch. Blocks, for a bounded time."""
        ...


def target_for(aggregator: Any, sink: Sink, log: Log) -> Target:
    """The aggregator, if there is one, else the sink."""
    return SinkTarget(sink, log) if aggregator is None else AggregatorTarget(aggregator, log)


class SinkTarget:
    """Delivers to a sink of the daemon's own.

    Args:
        sink: not used by anybody else.
        log: is told of errors that the sink's contract does not allow.
    """

    def __init__(self, sink: Sink, log: Log) -> None:
        self._sink, self._log = sink, log
        self._one_at_a_time = threading.Lock()

    def attempt(self, batch: Batch) -> Attempt:
        """Deliver through the sink."""
        with self._one_at_a_time:
            try:
                return _taken(batch, self._sink.deliver(batch).refused)
            except SinkUnavailable as error:
                return _unavailable(batch, error)
            except SinkRefused as error:
                return _all_refused(batch, str(error))
            except Exception as error:  # a sink may be anybody's
                LOGGER.exception("the sink failed on batch %s", batch.batch_id)
                self._log.failed("deliver", error)
                return Attempt(_all(batch), error=f"{type(error).__name__}: {error}")


class AggregatorTarget:
    """Delivers through an aggregator, whose sink only the aggregator may use.

    Args:
        aggregator: its `process_batch` answers with `success` and `error`, and, if it can say more, with
            `undelivered`, `refused` and `retry_after_s`.
        log: is told of errors that it raises.
    """

    def __init__(self, aggregator: Any, log: Log) -> None:
        self._aggregator, self._log = aggregator, log

    def attempt(self, batch: Batch) -> Attempt:
        """Deliver through `process_batch`."""
        try:
            return _told(batch, self._aggregator.process_batch(batch))
        except Exception as error:  # an aggregator may be anybody's
            LOGGER.exception("the aggregator failed on batch %s", batch.batch_id)
            self._log.failed("process_batch", error)
            return Attempt(_all(batch), error=f"{type(error).__name__}: {error}")


class TargetSink:
    """A target as a sink, for what takes a sink: it closes nothing.

    Args:
        target: where to.
        name: what people call it.
    """

    def __init__(self, target: Target, name: str) -> None:
        self._target, self._name = target, name

    @property
    def name(self) -> str:
        return self._name

    def deliver(self, batch: Batch) -> Delivery:
        attempt = self._target.attempt(batch)
        if attempt.undelivered:
            raise SinkUnavailable(
                attempt.error or "", retry_after_s=attempt.retry_after_s, undelivered=attempt.undelivered,
                refused=attempt.refused,
            )  # fmt: skip
        return Delivery(len(batch.entries) - len(attempt.refused), attempt.refused)

    def close(self) -> None:
        """Nothing is held open."""


def _told(batch: Batch, result: Any) -> Attempt:
    """What is said beyond `success` and `error` is taken if it is there; nothing said means that all waits."""
    if result.success:
        return Attempt()
    refused = tuple(getattr(result, "refused", ()))
    undelivered = getattr(result, "undelivered", None)
    left = _left(batch, undelivered if undelivered or refused else None, refused)
    attempt = _divided(batch, left, refused, result.error or "it did not say why")
    away = undelivered is not None and len(left) == len(batch.entries)
    return replace(attempt, retry_after_s=getattr(result, "retry_after_s", None), away=away)


def _taken(batch: Batch, refused: tuple[RefusedEntry, ...]) -> Attempt:
    return _divided(batch, (), refused, None)


def _unavailable(batch: Batch, error: SinkUnavailable) -> Attempt:
    left = _left(batch, error.undelivered, error.refused)
    attempt = _divided(batch, left, error.refused, str(error))
    return replace(attempt, retry_after_s=error.retry_after_s, away=len(left) == len(batch.entries))


def _divided(batch: Batch, left: tuple[int, ...], refused: tuple[RefusedEntry, ...], error: str | None) -> Attempt:
    """An index that does not exist is nobody's; an entry said to wait and to be refused waits."""
    kept = tuple(one for one in refused if 0 <= one.index < len(batch.entries) and one.index not in left)
    if kept:
        said = f"{len(kept)} of {len(batch.entries)} entries refused: {kept[0].code}: {kept[0].message}"
        error = f"{error}; {said}" if left and error else said
    elif not left:
        error = None
    return Attempt(left, kept, error)


def _left(batch: Batch, undelivered: Iterable[int] | None, refused: tuple[RefusedEntry, ...]) -> tuple[int, ...]:
    if undelivered is not None:
        return tuple(sorted({index for index in undelivered if 0 <= index < len(batch.entries)}))
    gone = {one.index for one in refused}
    return tuple(index for index in _all(batch) if index not in gone)


def _all_refused(batch: Batch, reason: str) -> Attempt:
    return Attempt((), tuple(RefusedEntry(index, BATCH_REFUSED, reason) for index in _all(batch)), reason)


def _all(batch: Batch) -> tuple[int, ...]:
    return tuple(range(len(batch.entries)))
