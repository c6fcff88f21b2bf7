"""One flush: the oldest waiting entries become a batch, the batch is delivered or kept safe, and that is noted.

The order is what makes a crash harmless: the batch has its id in the journal before the first attempt, and is noted as
done only when it is durable elsewhere. Whoever opens the journal after a crash repeats the last step, under the same
batch id and entry ids, by which targets know what they have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from totalizer.edge.audit import Audit
from totalizer.edge.batch import Batch, new_batch_id
from totalizer.edge.courier import Courier, Outcome
from totalizer.edge.log import EntryLog, Taken
from totalizer.edge.metrics import Metrics
from totalizer.edge.options import Options
from totalizer.edge.records import Done
from totalizer.errors import FlushError

LOGGER = logging.getLogger("totalizer.edge")


@dataclass(frozen=True)
class Flushed:
    """The result of one flush.

    Attributes:
        entries: how many were dealt with; 0 if they are in the journal still.
        error: what to tell those who asked for the flush; None if all of the batch was delivered.
    """

    entries: int
    error: FlushError | None


class BatchFlush:
    """Flushes batches of one journal or another.

    Args:
        courier: brings them to the target.
        options, metrics, audit: of the aggregator.
    """

    def __init__(self, courier: Courier, options: Options, metrics: Metrics, audit: Audit) -> None:
        self._courier, self._options, self._metrics, self._audit = courier, options, metrics, audit
        self._clock = options.clock

    def run(self, log: EntryLog, trigger: str, pause: Callable[[float], bool]) -> Flushed | None:
        """Flush one batch; None if nothing waits. Blocks.

        Args:
            log: where the entries wait.
            trigger: what began the flush, for the metrics.
            pause: sleeps for so many seconds; False means that there is no time for another attempt.

        That it is done becomes durable with the next flush, or by `log.settle`.

        Raises:
            JournalFailed: the journal's disk refuses. The batch may be delivered; it will be tried again.
        """
        taken = self._take(log)
        if taken is None:
            return None
        started = self._clock.monotonic()
        batch = self._sealed(log, taken)
        outcome = self._courier.deliver(batch, pause)
        if outcome.cut_short:
            return Flushed(0, self._left(outcome, "there was no time for another attempt"))
        try:
            files = self._courier.keep(outcome)
        except OSError as error:
            self._metrics.count(flushes=1, failed_flushes=1)
            return Flushed(0, self._left(outcome, f"and it cannot be put into the recovery folder: {error}"))
        log.done(_done(outcome, taken))
        self._count(outcome, trigger, (self._clock.monotonic() - started) * 1000)
        return Flushed(len(batch.entries), self._error(outcome, [str(path) for path in files]))

    def _take(self, log: EntryLog) -> Taken | None:
        damaged = log.damaged
        taken = log.take(self._options.batch_size)
        if log.damaged > damaged:
            self._metrics.count(lost=log.damaged - damaged)
        return taken

    def _sealed(self, log: EntryLog, taken: Taken) -> Batch:
        if taken.sealed is not None:
            return Batch(taken.sealed.batch_id, taken.sealed.timestamp, taken.entries, recovered=True)
        now_ns = self._clock.now_ns()
        batch = Batch(new_batch_id(now_ns), now_ns // 1_000_000, taken.entries)
        log.seal(batch.batch_id, batch.timestamp, taken)
        return batch

    def _count(self, outcome: Outcome, trigger: str, took_ms: float) -> None:
        failed, refused = len(outcome.undelivered), len(outcome.refused)
        self._metrics.flushed(
            trigger, took_ms, delivered=outcome.delivered, failed=failed, refused=refused, retries=outcome.attempts - 1
        )
        self._audit.record(
            "flush", level="error" if failed or refused else "info", batchId=outcome.batch.batch_id, trigger=trigger,
            entries=len(outcome.batch.entries), delivered=outcome.delivered, failed=failed, refused=refused,
            attempts=outcome.attempts, tookMs=round(took_ms, 3), **({"error": outcome.error} if outcome.error else {}),
        )  # fmt: skip
        if took_ms > self._options.max_time_ms:
            LOGGER.warning(
                "batch %s took %.0f ms, max_time_ms is %d", outcome.batch.batch_id, took_ms, self._options.max_time_ms
            )

    def _error(self, outcome: Outcome, files: list[str]) -> FlushError | None:
        missing = len(outcome.undelivered) + len(outcome.refused)
        if not missing:
            return None
        what = "was not delivered" if outcome.undelivered else "was refused"
        if missing < len(outcome.batch.entries):
            what = f"{what} in part ({missing} of {len(outcome.batch.entries)} entries)"
        message = f"batch {outcome.batch.batch_id} {what}: {outcome.error}; it is kept in {', '.join(files)}"
        LOGGER.error("%s", message)
        return self._flush_error(message, missing, retryable=bool(outcome.undelivered))

    def _left(self, outcome: Outcome, reason: str) -> FlushError:
        """The batch stays where it is, in the journal."""
        batch = outcome.batch
        message = f"batch {batch.batch_id} was not delivered: {outcome.error}; {reason}; it stays in the journal"
        LOGGER.error("%s", message)
        self._audit.record("flush-left", level="error", batchId=batch.batch_id, error=message)
        return self._flush_error(message, len(batch.entries), retryable=True)

    def _flush_error(self, message: str, size: int, *, retryable: bool) -> FlushError:
        now_ms = self._clock.now_ns() // 1_000_000
        return FlushError(message, batch_size=size, retryable=retryable, timestamp=now_ms)


def _done(outcome: Outcome, taken: Taken) -> Done:
    return Done(
        outcome.batch.batch_id, taken.through, taken.after.segment, taken.after.offset, outcome.delivered,
        len(outcome.undelivered), len(outcome.refused),
    )  # fmt: skip
