"""Adding entries, flushing what waits in whatever process, and recovering failed batches, by command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.adopt import Adopted, adopt
from totalizer.edge.aggregator import SmartBatchAggregator
from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.daemon.document import document
from totalizer.edge.daemon.recovery import RecoveryResult
from totalizer.edge.status import JournalStatus, request_flush, waiting
from totalizer.errors import OperationError, ValidationError
from totalizer.ops.batching.place import Place

#: Seconds between two looks at what waits. A living process looks once a second whether it was asked.
POLL_S = 0.25


@dataclass(frozen=True)
class Flushed:
    """What a flush by command came to.

    Attributes:
        added: entries that were taken first.
        journals: journals of dead processes that were flushed.
        delivered: entries of these that the target has taken.
        failed: entries of these that went to recovery, or were refused.
        failed_batches: batches that any process has given to recovery meanwhile.
        waiting: entries that wait still, in whatever process.
        errors: what went wrong, in sentences.
    """

    added: int
    journals: int
    delivered: int
    failed: int
    failed_batches: int
    waiting: int
    errors: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """As JSON, with `failedBatches` for `failed_batches`."""
        return document(self)


def add_entries(place: Place, entries: Iterable[Mapping[str, Any]]) -> int:
    """Take entries; they are durable when this returns, and wait until a flush is due.

    Returns:
        How many.

    Raises:
        ValidationError: one cannot be taken; says how many before it were.
        JournalError: the disk refuses, or is full.
    """
    options = {name: getattr(place.aggregator, name) for name in _OWN_OPTIONS}
    aggregator = SmartBatchAggregator(**options, data_path=place.folders.data, sink=place.sink())
    count = 0
    try:
        for count, entry in enumerate(entries):
            try:
                aggregator.add(entry)
            except ValidationError as error:
                reason = f"entry {count}: {error}; the {count} before it were taken"
                raise ValidationError("", reason) from None
            count += 1
    finally:
        aggregator.shutdown(timeout_ms=0)
    return count


def flush_due(place: Place, *, force: bool, added: int = 0, clock: Clock = SYSTEM_CLOCK) -> Flushed:
    """Deliver what waits in journals of dead processes and is due; living processes see to theirs.

    Args:
        place: where.
        force: also what is not due; and ask living processes, without waiting for them.
        added: entries that were taken before, for the result.
        clock: for ages.

    Raises:
        JournalFailed: the journals cannot be listed.
        OSError: living processes cannot be asked.
    """
    if force:
        request_flush(place.folders)
    failed_before = len(place.folders.failed_files())
    adopted = _adopt(place, force, clock)
    return _result(place, adopted, added, failed_before)


def flush_all(place: Place, timeout_s: float, clock: Clock = SYSTEM_CLOCK) -> Flushed:
    """Have everything delivered that waits now, in living processes too, and wait for it.

    Args:
        place: where.
        timeout_s: longest wait for living processes, seconds.
        clock: for the wait. What is added after the beginning is not waited for.

    Raises:
        JournalFailed, OSError: as `flush_due`.
    """
    begun_ms, deadline = clock.now_ns() // 1_000_000, clock.monotonic() + timeout_s
    failed_before = len(place.folders.failed_files())
    request_flush(place.folders)
    total = _adopt(place, True, clock)
    while (left := _left(place, begun_ms)) and clock.monotonic() < deadline:
        clock.sleep(POLL_S)
        if any(status.owner_pid is None for status in left):  # it has died meanwhile
            more = _adopt(place, True, clock)
            total = Adopted(
                total.journals + more.journals, total.delivered + more.delivered, total.failed + more.failed,
                more.waiting, more.errors,
            )  # fmt: skip
            if more.errors:
                break
    errors = [*total.errors, *(_reason(status) for status in _left(place, begun_ms))]
    return _result(place, total, 0, failed_before, tuple(dict.fromkeys(errors)))


def recover(place: Place, batch_id: str | None, max_age_ms: int | None, clock: Clock = SYSTEM_CLOCK) -> RecoveryResult:
    """Try failed batches now, whether their time has come or not.

    Args:
        place: where.
        batch_id: only this one.
        max_age_ms: only those that were sealed at most so long ago, milliseconds.
        clock: for that.

    Raises:
        OperationError: there is no such batch.
        OSError: the recovery folder cannot be listed.
    """
    sink = place.sink()
    try:
        daemon = CronRecoveryDaemon(place.daemon, sink=sink, clock=clock)
        batches = daemon.scan_for_failed_batches()
        if batch_id is not None:
            batches = [batch for batch in batches if batch.batch_id == batch_id]
            if not batches:
                raise OperationError(f"no failed batch {batch_id!r} waits in {place.folders.recovery}")
        if max_age_ms is not None:
            oldest = clock.now_ns() // 1_000_000 - max_age_ms
            batches = [batch for batch in batches if batch.timestamp >= oldest]
        return daemon.reprocess_failed_batches(batches, force=True)
    finally:
        sink.close()


#: Options of an aggregator that matter to entries on their way in.
_OWN_OPTIONS = (
    "batch_size", "max_age_ms", "flush_threshold", "atomic_operations", "target_time_ms", "max_time_ms", "on_full",
    "full_timeout_ms", "quota_bytes", "entry_bytes_max", "redact_keys",
)  # fmt: skip


def _adopt(place: Place, force: bool, clock: Clock) -> Adopted:
    sink = place.sink()

    def due(status: JournalStatus) -> bool:
        return force or _is_due(place, status, clock)

    try:
        return adopt(place.folders, sink, due=due, clock=clock)
    finally:
        sink.close()


def _is_due(place: Place, status: JournalStatus, clock: Clock) -> bool:
    """As a living aggregator sees it: begun, enough, or old enough."""
    if status.sealed_batch is not None or status.waiting >= place.aggregator.threshold:
        return True
    age_ms = 0 if status.oldest_ms is None else clock.now_ns() // 1_000_000 - status.oldest_ms
    return age_ms >= place.aggregator.max_age_ms


def _left(place: Place, begun_ms: int) -> list[JournalStatus]:
    """Journals with something from before the beginning, or that cannot be read."""
    return [
        status for status in waiting(place.folders)
        if status.error or (status.waiting and (status.oldest_ms is None or status.oldest_ms <= begun_ms))
    ]  # fmt: skip


def _reason(status: JournalStatus) -> str:
    if status.error is not None:
        return status.error
    owner = f"process {status.owner_pid}" if status.owner_pid is not None else "no process"
    return f"{status.folder.name} ({owner}): {status.waiting} entries wait still"


def _result(
    place: Place, adopted: Adopted, added: int, failed_before: int, errors: tuple[str, ...] | None = None
) -> Flushed:  # fmt: skip
    left = sum(status.waiting for status in waiting(place.folders))
    failed = max(len(place.folders.failed_files()) - failed_before, 0)
    return Flushed(
        added, adopted.journals, adopted.delivered, adopted.failed, failed, left,
        adopted.errors if errors is None else errors,
    )  # fmt: skip
