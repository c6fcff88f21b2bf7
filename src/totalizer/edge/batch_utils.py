"""Small tools for batches: names, checks, summaries, sizes, merging, times."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.batch import Batch, Entry, new_batch_id
from totalizer.edge.entry import validate_entry
from totalizer.edge.metrics import percentile_of
from totalizer.errors import ConfigurationError, ValidationError

#: Bytes of entries that make a good batch.
TARGET_BYTES = 64 << 10
#: Bounds of what `calculate_batch_size` recommends.
BATCH_SIZE_MIN, BATCH_SIZE_MAX = 10, 500

__all__ = [
    "AggregationResult", "AggregationSummary", "MergedBatch", "PerformanceTimer", "TimeRange", "ValidationError",
    "calculate_batch_size", "calculate_percentile", "create_performance_timer", "format_aggregation_result",
    "generate_batch_file_name", "get_elapsed_time_ms", "merge_batches", "validate_entry",
]  # fmt: skip

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class TimeRange:
    """From when to when.

    Attributes:
        start, end: the earliest and the latest timestamp, milliseconds since 1970 UTC; None of no entries.
        duration_ms: between them.
    """

    start: int | None
    end: int | None
    duration_ms: int


@dataclass(frozen=True)
class AggregationSummary:
    """Entries in figures.

    Attributes:
        total_entries: how many.
        unique_users: different `userId`s.
        time_range: of their timestamps.
        action_counts: entries by `action`, the most frequent first, equal ones by name.
    """

    total_entries: int
    unique_users: int
    time_range: TimeRange
    action_counts: dict[str, int]


@dataclass(frozen=True)
class AggregationResult:
    """Entries with what is known of them.

    Attributes:
        entries: as they were.
        metadata: as it was given, with `formattedAt` (milliseconds since 1970 UTC) and `entryCount`.
        summary: the figures.
    """

    entries: tuple[Entry, ...]
    metadata: dict[str, Any]
    summary: AggregationSummary


@dataclass(frozen=True)
class MergedBatch:
    """Two batches in one.

    Attributes:
        entries: of both, each once, by timestamp; equal ones in the order they came.
        metadata: of both, the second's where both have a key; with `mergedFrom` (the batch ids), `mergedAt`
            (milliseconds since 1970 UTC) and `duplicatesRemoved`.
    """

    entries: tuple[Entry, ...]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class PerformanceTimer:
    """A running timer.

    Attributes:
        label: for people.
        start_time: nanoseconds from an arbitrary start, never going back.
        start_date: milliseconds since 1970 UTC.
    """

    label: str
    start_time: int
    start_date: int
    clock: Clock = SYSTEM_CLOCK


def generate_batch_file_name(prefix: str = "batch", *, clock: Clock = SYSTEM_CLOCK) -> str:
    """A fresh file name, such as `batch_1704067200000_a3f8b2.json`.

    Raises:
        ConfigurationError: the prefix is empty, or could lead out of a folder.
    """
    if not prefix or prefix.startswith(".") or not set(prefix).isdisjoint("/\\\0"):
        raise ConfigurationError(f"prefix={prefix[:80]!r} must be a text that can begin a file's name")
    return f"{prefix}_{new_batch_id(clock.now_ns())}.json"


def format_aggregation_result(
    data: Mapping[str, Any] | Batch, *, clock: Clock = SYSTEM_CLOCK
) -> AggregationResult:  # fmt: skip
    """Entries with their summary.

    Args:
        data: a Batch, or a mapping with `entries` and perhaps `metadata`.

    Raises:
        ValidationError: there are no `entries`, or one has not the form of an entry.
    """
    entries, metadata = _parts(data)
    made = {"formattedAt": clock.now_ns() // 1_000_000, "entryCount": len(entries)}
    return AggregationResult(entries, {**metadata, **made}, summarise(entries))


def summarise(entries: Sequence[Entry]) -> AggregationSummary:
    """Entries in figures. ValidationError if one has not the form of an entry."""
    for index, entry in enumerate(entries):
        for name, kind in (("userId", str), ("action", str), ("timestamp", int)):
            if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                raise ValidationError(f"entries[{index}].{name}", f"must be there, of type {kind.__name__}")
    times = [entry["timestamp"] for entry in entries]
    start, end = min(times, default=None), max(times, default=None)
    actions = Counter(entry["action"] for entry in entries)
    return AggregationSummary(
        len(entries),
        len({entry["userId"] for entry in entries}),
        TimeRange(start, end, 0 if start is None or end is None else end - start),
        dict(sorted(actions.items(), key=lambda item: (-item[1], item[0]))),
    )


def calculate_batch_size(entries: Iterable[Mapping[str, Any]]) -> int:
    """How many entries of this kind make a batch of about 64 KiB: 10 to 500; 50 of no entries."""
    sizes = [len(_encode(entry)) for entry in entries]
    if not sizes:
        return 50
    mean = sum(sizes) / len(sizes)
    return int(min(max(TARGET_BYTES / mean, BATCH_SIZE_MIN), BATCH_SIZE_MAX))


def merge_batches(
    first: Mapping[str, Any] | Batch, second: Mapping[str, Any] | Batch, *, clock: Clock = SYSTEM_CLOCK
) -> MergedBatch:
    """Two batches in one. Entries are the same if they have the same id, or none and the same contents.

    Raises:
        ValidationError: there are no `entries`, or one has not the form of an entry.
    """
    (entries, metadata), (more, further) = _parts(first), _parts(second)
    summarise((*entries, *more))
    found: dict[bytes, Entry] = {}
    for entry in (*entries, *more):
        found.setdefault(_identity(entry), entry)
    merged = tuple(sorted(found.values(), key=lambda entry: entry["timestamp"]))
    ids = [each for each in (_batch_id(first), _batch_id(second)) if each is not None]
    made = {
        "mergedFrom": ids,
        "mergedAt": clock.now_ns() // 1_000_000,
        "duplicatesRemoved": len(entries) + len(more) - len(merged),
    }
    return MergedBatch(merged, {**metadata, **further, **made})


def create_performance_timer(label: str = "timer", *, clock: Clock = SYSTEM_CLOCK) -> PerformanceTimer:
    """A timer that runs from now on."""
    return PerformanceTimer(label, int(clock.monotonic() * 1e9), clock.now_ns() // 1_000_000, clock)


def get_elapsed_time_ms(timer: PerformanceTimer) -> float:
    """Milliseconds since the timer was made; never negative, whatever happens to the wall clock."""
    return max(timer.clock.monotonic() * 1e9 - timer.start_time, 0.0) / 1e6


def calculate_percentile(values: Iterable[float], percentile: float) -> float:
    """The value at a percentile, between two neighbours linearly; 0.0 of no values.

    Args:
        values: numbers, in any order.
        percentile: 0 to 100; 50 is the median.

    Raises:
        ConfigurationError: it is not, or a value is not a number.
    """
    if isinstance(percentile, bool) or not isinstance(percentile, int | float) or not 0 <= percentile <= 100:
        raise ConfigurationError(f"percentile={percentile!r} must be a number from 0 to 100")
    numbers = list(values)
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise ConfigurationError(f"values: {value!r} must be a number")
    return float(percentile_of(numbers, percentile))


def _parts(data: Mapping[str, Any] | Batch) -> tuple[tuple[Entry, ...], dict[str, Any]]:
    if isinstance(data, Batch):
        return data.entries, {}
    entries, metadata = data.get("entries"), data.get("metadata")
    if not isinstance(entries, list | tuple):
        raise ValidationError("entries", "must be a list of entries")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ValidationError("metadata", "must be an object")
    return tuple(entries), dict(metadata or {})


def _batch_id(data: Mapping[str, Any] | Batch) -> Any:
    return data.batch_id if isinstance(data, Batch) else data.get("batchId", data.get("batch_id"))


def _identity(entry: Entry) -> bytes:
    return b"id " + str(entry["id"]).encode() if entry.get("id") else _encode(entry)
