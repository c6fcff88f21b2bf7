"""A batch delivered once, without the journal: what recovery does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from totalizer.clock import Clock
from totalizer.edge.audit import Audit
from totalizer.edge.batch import FORMAT_VERSION, Batch, RefusedEntry, decode_batch_file, new_batch_id
from totalizer.edge.courier import Courier
from totalizer.edge.metrics import Metrics
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown

#: Members of a batch under the names they have here.
_CAMEL = {"batch_id": "batchId", "entry_count": "entryCount"}


@dataclass(frozen=True)
class ProcessResult:
    """What became of a batch that was delivered once, without the journal.

    Attributes:
        success: True if the target took all of it.
        entries_processed: entries that it took.
        error: why the rest was not; None on success.
        undelivered: indexes of entries that it may take later.
        refused: entries that it refuses for good.
        retry_after_s: seconds the target asked to be left alone for; None if it did not.
    """

    success: bool
    entries_processed: int
    error: str | None = None
    undelivered: tuple[int, ...] = ()
    refused: tuple[RefusedEntry, ...] = ()
    retry_after_s: float | None = None


def process(
    batch: Batch | Mapping[str, Any], courier: Courier, metrics: Metrics, audit: Audit, clock: Clock
) -> ProcessResult:
    """Deliver a batch, or the document of one, in a single attempt; see `SmartBatchAggregator.process_batch`."""
    try:
        outcome = courier.deliver(batch_of(batch, clock.now_ns()), lambda _: False, attempts_max=1)
    except (BatchFileDamaged, BatchVersionUnknown) as error:
        return ProcessResult(False, 0, str(error))
    success = not outcome.undelivered and not outcome.refused
    metrics.count(delivered=outcome.delivered)
    audit.record(
        "process-batch", level="info" if success else "error", batchId=outcome.batch.batch_id,
        delivered=outcome.delivered, failed=len(outcome.undelivered), refused=len(outcome.refused),
        **({"error": outcome.error} if outcome.error else {}),
    )  # fmt: skip
    return ProcessResult(
        success, outcome.delivered, None if success else outcome.error, outcome.undelivered,
        tuple(outcome.refused), outcome.retry_after_s,
    )  # fmt: skip


def batch_of(batch: Batch | Mapping[str, Any], now_ns: int) -> Batch:
    """A batch as it is, or made of a document's members.

    Raises:
        BatchFileDamaged, BatchVersionUnknown: the document is none of a batch.
    """
    if isinstance(batch, Batch):
        return batch
    given = {_CAMEL.get(key, key): value for key, value in batch.items()}
    defaults = {"batchId": new_batch_id(now_ns), "timestamp": now_ns // 1_000_000, "version": FORMAT_VERSION}
    try:
        data = msgspec.json.encode({**defaults, **given})
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise BatchFileDamaged(f"the batch is no JSON: {error}") from None
    return decode_batch_file(data, "the batch")
