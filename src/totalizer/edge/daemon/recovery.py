"""Trying failed batches again: deliver, then settle on the disk what came of it.

The order of the steps makes a crash between any two of them harmless. A failed file goes last, when its entries are
delivered or are durable in another file; until then the whole attempt is repeated, and the target counts entries it
knows once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TypeVar

from totalizer.clock import Clock
from totalizer.edge.batch import FailedBatch, RefusedEntry
from totalizer.edge.daemon.abandoned import keep_abandoned, renumbered
from totalizer.edge.daemon.backoff import Backoff
from totalizer.edge.daemon.lock import LOCK_WAIT_S, Busy, recovery_lock
from totalizer.edge.daemon.log import Log
from totalizer.edge.daemon.metrics import Counters
from totalizer.edge.daemon.options import DaemonOptions
from totalizer.edge.daemon.scan import ScannedBatch, load_failed
from totalizer.edge.daemon.target import Attempt, Target
from totalizer.edge.folder import Folders, remove_file, write_file
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown

#: After so many batches in a row that found the target away, the others wait for the next turn: it would cost each of
#: them one of its attempts, and the length of a time-out.
AWAY_MAX = 3
#: Characters of an error that are kept in a batch's file.
_ERROR_LENGTH_MAX = 2000

AnyBatch = ScannedBatch | FailedBatch
B = TypeVar("B", ScannedBatch, FailedBatch)


@dataclass(frozen=True)
class Reprocessed:
    """What came of trying a failed batch again.

    Attributes:
        success: all of it is delivered.
        abandoned: it was given up, or a part of it that was refused for good.
        retry_count: failed attempts of the daemon so far.
        error: why it is not all delivered; or, if it is, what could not be tidied up.
        tried: False if nothing was attempted: the file is gone or cannot be read, or another process has it.
        entries_delivered: by this attempt.
    """

    success: bool
    abandoned: bool
    retry_count: int
    error: str | None = None
    tried: bool = True
    entries_delivered: int = 0


@dataclass(frozen=True)
class RecoveryResult:
    """What came of a look at all failed batches.

    Attributes:
        processed: batches that were tried, or given up: succeeded, failed and abandoned together.
        succeeded: delivered whole.
        failed: wait for another attempt.
        abandoned: given up, or a part of them.
        skipped: not tried: it is not their time yet, or the target is away, or the daemon stops.
    """

    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    abandoned: int = 0
    skipped: int = 0

    def plus(self, result: Reprocessed | None) -> RecoveryResult:
        """With one more batch; None for one that was skipped."""
        if result is None or not result.tried:
            return replace(self, skipped=self.skipped + 1)
        kind = "succeeded" if result.success else "abandoned" if result.abandoned else "failed"
        return replace(self, processed=self.processed + 1, **{kind: getattr(self, kind) + 1})


def prioritize(batches: Iterable[B]) -> list[B]:
    """The oldest first; of the same age, those with the fewest attempts."""
    return sorted(batches, key=lambda one: (_timestamp(one), one.retry_count, one.batch_id))


class Recovery:
    """Tries failed batches again.

    Args:
        folders: where they lie.
        target: where they should go.
        options: retry limit, backoff, size limit.
        counters: counts attempts.
        clock: for retry times and durations.
        log: is told what became of each batch.
        stopping: when set, no further batch is begun.

    Attributes:
        progressed_at: seconds of the monotonic clock when a batch was last dealt with.
    """

    def __init__(
        self, folders: Folders, target: Target, options: DaemonOptions, counters: Counters, clock: Clock,
        log: Log, stopping: Event,
    ) -> None:  # fmt: skip
        self._folders, self._target, self._options = folders, target, options
        self._counters, self._clock, self._log, self._stopping = counters, clock, log, stopping
        self._backoff = Backoff(options)
        self.progressed_at = float("-inf")
        self._hold_until = float("-inf")

    def many(self, batches: Iterable[AnyBatch], *, force: bool) -> RecoveryResult:
        """Try batches in their order.

        Args:
            batches: scanned, or read.
            force: try each, though its time has not come or the target seems to be away.
        """
        total, away = RecoveryResult(), 0
        for batch in batches:
            result: Reprocessed | None = None
            held_off = away >= AWAY_MAX or self._clock.monotonic() < self._hold_until
            if not self._stopping.is_set() and (force or (not held_off and self._due(batch))):
                result, attempt = self._one(self._path(batch), force=force)
                away = away + 1 if attempt is not None and attempt.away else 0
            total = total.plus(result)
            self.progressed_at = self._clock.monotonic()
        self.progressed_at = self._clock.monotonic()
        return total

    def one(self, batch: AnyBatch) -> Reprocessed:
        """Try a batch now, whether its time has come or not."""
        return self._one(self._path(batch), force=True)[0]

    def _one(self, path: Path, *, force: bool) -> tuple[Reprocessed, Attempt | None]:
        """The file counts, not what was read of it some time ago: another process may have been faster."""
        try:
            with recovery_lock(self._folders, self._clock, LOCK_WAIT_S):
                failed = load_failed(path, self._options.file_bytes_max)
                if not force and not self._due(failed):
                    return _untried(failed.retry_count, "it was just tried by another process"), None
                return self._tried(path, failed)
        except Busy:
            return _untried(0, "another process is busy with failed batches; try again"), None
        except FileNotFoundError:
            return _untried(0, f"{path} is gone: it was delivered, or moved"), None
        except (BatchFileDamaged, BatchVersionUnknown, OSError) as error:
            self._log.warning("batch_skipped", file=str(path), reason=str(error))
            return _untried(0, str(error)), None

    def _tried(self, path: Path, failed: FailedBatch) -> tuple[Reprocessed, Attempt | None]:
        if failed.retry_count >= self._options.batch_retry_limit:
            return self._given_up(path, failed), None
        started = self._clock.monotonic()
        attempt = self._target.attempt(replace(failed.batch, recovered=True))
        if attempt.retry_after_s is not None and attempt.away:
            longest_s = self._options.backoff_ms_max / 1000
            self._hold_until = self._clock.monotonic() + min(attempt.retry_after_s, longest_s)
        result = self._settled(path, failed, attempt)
        self._counters.attempted(
            success=result.success, abandoned=result.abandoned, seconds=self._clock.monotonic() - started
        )
        self._told(failed, result)
        return result, attempt

    def _settled(self, path: Path, failed: FailedBatch, attempt: Attempt) -> Reprocessed:
        count = failed.retry_count + 1
        whole = not attempt.undelivered and not attempt.refused
        delivered = len(failed.batch.entries) - len(attempt.undelivered) - len(attempt.refused)
        over = bool(attempt.undelivered) and count >= self._options.batch_retry_limit
        tried = replace(failed, retry_count=count, last_retry_at=self._now_ms(), last_error=_cut(attempt.error))
        try:
            self._settle(path, tried, attempt, over)
        except OSError as error:
            # The failed file is as it was, so that nothing is lost: all of it will be sent again.
            reason = f"{path} cannot be brought up to date: {error}"
            self._log.error("disk_refused", batch_id=failed.batch_id, reason=reason)
            text = f"{attempt.error}; {reason}" if attempt.error else reason
            return Reprocessed(whole, False, failed.retry_count, text, entries_delivered=delivered)
        if whole:
            return Reprocessed(True, False, failed.retry_count, entries_delivered=delivered)
        abandoned = over or bool(attempt.refused)
        return Reprocessed(False, abandoned, count, attempt.error, entries_delivered=delivered)

    def _settle(self, path: Path, tried: FailedBatch, attempt: Attempt, over: bool) -> None:
        """What was refused, and what was tried too often, goes to the abandoned ones; the rest stays, or all goes."""
        if attempt.refused:
            self._abandon(tried, sorted({one.index for one in attempt.refused}), attempt.refused)
        if over:
            self._abandon(tried, attempt.undelivered, ())
        elif attempt.undelivered:
            rest = replace(tried, batch=tried.batch.only(attempt.undelivered), refusals=())
            now_ms = self._now_ms()
            at = self._backoff.next_retry_at(tried.retry_count, now_ms, attempt.retry_after_s)
            write_file(path, replace(rest, next_retry_at=at).encode())
            return
        remove_file(path)

    def _given_up(self, path: Path, failed: FailedBatch) -> Reprocessed:
        """It comes with as many attempts as there may be: the limit was lowered, or a crash kept its file."""
        try:
            self._abandon(failed, range(len(failed.batch.entries)), ())
            remove_file(path)
        except OSError as error:
            self._log.error("disk_refused", batch_id=failed.batch_id, reason=str(error))
            return Reprocessed(False, False, failed.retry_count, f"{path} cannot be abandoned: {error}")
        self._counters.gave_up()
        result = Reprocessed(False, True, failed.retry_count, failed.last_error)
        self._told(failed, result)
        return result

    def _abandon(self, failed: FailedBatch, indexes: Sequence[int], refused: Sequence[RefusedEntry]) -> None:
        kept = replace(
            failed, batch=failed.batch.only(indexes), abandoned_at=self._now_ms(), next_retry_at=None,
            refusals=renumbered(refused, list(indexes)),
        )  # fmt: skip
        keep_abandoned(kept, self._folders, self._options.file_bytes_max)

    def _path(self, batch: AnyBatch) -> Path:
        """A batch that lies nowhere yet is kept first."""
        if batch.file_path is not None:
            return Path(batch.file_path)
        assert isinstance(batch, FailedBatch)
        path = self._folders.recovery / batch.file_name
        if not path.exists():
            write_file(path, batch.encode())
        return path

    def _due(self, batch: AnyBatch) -> bool:
        return self._backoff.due(batch, self._now_ms())

    def _told(self, failed: FailedBatch, result: Reprocessed) -> None:
        tell = self._log.info if result.success else self._log.error if result.abandoned else self._log.warning
        outcome = "batch_recovered" if result.success else "batch_abandoned" if result.abandoned else "batch_failed"
        tell(
            outcome, batch_id=failed.batch_id, entries=len(failed.batch.entries), delivered=result.entries_delivered,
            retry_count=result.retry_count, **({"error": result.error} if result.error else {}),
        )  # fmt: skip

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000


def _untried(retry_count: int, reason: str) -> Reprocessed:
    return Reprocessed(False, False, retry_count, reason, tried=False)


def _timestamp(batch: AnyBatch) -> int:
    return batch.timestamp if isinstance(batch, ScannedBatch) else batch.batch.timestamp


def _cut(error: str | None) -> str:
    return (error or "")[:_ERROR_LENGTH_MAX]
