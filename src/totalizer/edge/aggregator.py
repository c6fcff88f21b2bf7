"""The aggregator: entries in, batches out, nothing lost in between."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from totalizer.errors import (
    AggregatorClosed,
    ConfigurationError,
    FlushError,
    JournalError,
    RateLimited,
    ValidationError,
)

if TYPE_CHECKING:
    from totalizer.edge.adopt import Adopted
    from totalizer.edge.batch import Batch, Entry
    from totalizer.edge.engine import Engine
    from totalizer.edge.metrics import PerformanceMetrics, Stats
    from totalizer.edge.process import ProcessResult
    from totalizer.edge.sinks.sink import Sink
    from totalizer.edge.status import JournalStatus

# What an aggregator needs is imported when one is made, and what a running one needs when it begins to run: a program
# that imports the library and adds nothing, as a command line does at every start, hardly waits for it.


class SmartBatchAggregator:
    """Takes entries, makes them durable, and delivers them in batches. For any number of threads; survives fork().

    Nothing runs before the first entry: a process may make one and then fork workers, each of which gets a journal
    and a thread of its own.

    Args:
        options: see `Options`.

    Attributes:
        folders: where everything is.
        sink: where batches go.
        options: as they were given, checked.

    Raises:
        ConfigurationError: an option is unknown or wrong, or the folders cannot be made.
    """

    def __init__(self, **options: Any) -> None:
        from totalizer.edge.exit import handle_sigterm
        from totalizer.edge.folder import Folders
        from totalizer.edge.options import Options
        from totalizer.edge.sinks.file import FileSink

        self.options = Options.of(options)
        self.folders = Folders(self.options.data_path)
        self.sink: Sink = self.options.sink or FileSink(
            self.options.data_path, atomic=self.options.atomic_operations, disk=self.options.disk
        )
        try:
            self.folders.make(self.options.disk)
        except OSError as error:
            raise ConfigurationError(f"data_path={str(self.options.data_path)!r} cannot be used: {error}") from error
        if self.options.flush_on_sigterm:
            handle_sigterm()
        self._closed = False
        self._now_ns = self.options.clock.now_ns
        self._begin()
        _ALL.add(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> SmartBatchAggregator:
        """An aggregator from a configuration file's mapping (see `options.from_config`); `options` override it."""
        from totalizer.edge.options import from_config

        return cls(**{**from_config(config), **options})

    def _begin(self) -> None:
        """What each process has for itself."""
        from totalizer.edge.audit import audit
        from totalizer.edge.courier import Courier
        from totalizer.edge.entry import EntryEncoder
        from totalizer.edge.metrics import Metrics
        from totalizer.edge.rate import RateLimit

        options = self.options
        self._lock = threading.Lock()
        # New ids count up from random bits, so a forked child must draw its own.
        self._encoder = EntryEncoder(
            entry_bytes_max=options.entry_bytes_max, redact_keys=options.redact_keys, clock=options.clock
        )
        self._engine: Engine | None = None
        # What a closed engine has left: entries that wait, and that were lost.
        self._last_waiting = self._last_lost = 0
        self._audit = audit(self.folders, "aggregation", options.clock)
        self._metrics = Metrics(options.target_time_ms, options.max_time_ms)
        self._courier = Courier(self.sink, self.folders, options.clock, options.disk)
        self._limit = RateLimit(options.rate_limit_per_s, options.clock) if options.rate_limit_per_s else None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take an entry; return when it is durable (with `durability="interval"`: at once).

        Args:
            entry: see `validate_entry`. Without an `id` it gets one, which stays with it.

        Raises:
            ValidationError: the entry cannot be taken.
            RateLimited: more than `rate_limit_per_s`.
            JournalFull: `quota_bytes` wait, and `on_full` says so.
            JournalFailed: the disk refuses; the entry is not taken.
            AggregatorClosed: after `shutdown`.
        """
        if self._closed:
            raise AggregatorClosed
        try:
            now_ns = self._now_ns()
            record = self._encoder.record(entry, now_ns)
            if self._limit is not None:
                self._limit.take()
            (self._engine or self._start()).append(record)
        except (ValidationError, RateLimited):
            self._metrics.count(rejected=1)
            raise
        except JournalError:
            self._metrics.count(rejected=1)
            if self._closed:
                raise AggregatorClosed from None
            raise

    def flush(self, timeout_ms: int | None = None) -> None:
        """Deliver everything that waits now, and return when it is delivered or kept safe elsewhere.

        Args:
            timeout_ms: longest wait, milliseconds; None for as long as the attempts take.

        Raises:
            FlushError: not all was delivered, or not in time. Nothing is lost; the message says where it is.
        """
        self._flush("manual", timeout_ms, hurry=False)

    def force_flush(self, timeout_ms: int | None = None) -> None:
        """As `flush`, and does not wait out the pause after a disk that refused."""
        self._flush("manual", timeout_ms, hurry=True)

    def get_current_batch_size(self) -> int:
        """Entries that are taken and not delivered yet."""
        engine = self._engine if self._closed else self._running()
        return engine.log.waiting if engine is not None else self._last_waiting

    def is_empty(self) -> bool:
        """True if no entry waits."""
        return self.get_current_batch_size() == 0

    def get_current_batch(self, limit: int | None = None) -> list[Entry]:
        """Copies of the entries that wait, oldest first, read from the journal; [] after `shutdown`.

        Args:
            limit: at most so many; None for all.

        Raises:
            JournalFailed: the disk refuses.
        """
        from totalizer.edge.backlog import read_waiting

        if self._closed:
            return []
        engine = self._running()
        engine.log.sync()
        return read_waiting(engine.log.folder, limit)

    def get_batch_age_ms(self) -> int:
        """How long the oldest waiting entry has waited, milliseconds; 0 if none waits."""
        engine = self._engine
        since = engine.flusher.since if engine is not None else None
        return 0 if since is None else max(int((self.options.clock.monotonic() - since) * 1000), 0)

    def get_performance_metrics(self) -> PerformanceMetrics:
        """How flushing goes, in this process."""
        return self._metrics.performance()

    def get_stats(self) -> Stats:
        """The aggregator in short, in this process."""
        from totalizer.edge.metrics import Stats

        counts, engine = self._metrics.counts(), self._engine
        waiting = engine.log.waiting if engine is not None else self._last_waiting
        lost = counts.lost + (engine.log.lost if engine is not None else self._last_lost)
        return Stats(
            counts.delivered, counts.failed + counts.refused, counts.time_mean_ms, waiting, self.get_batch_age_ms(),
            engine.log.added if engine is not None else counts.added, counts.dropped, counts.rejected, lost,
        )  # fmt: skip

    def process_batch(self, batch: Batch | Mapping[str, Any]) -> ProcessResult:
        """Deliver a batch once, without the journal; for recovery.

        Args:
            batch: a Batch, or a mapping with `entries`, and `batchId`, `timestamp` and `version` if there are any.
                Entries without an id get one that follows from the batch, the place and the contents.
        """
        from totalizer.edge.process import process

        return process(batch, self._courier, self._metrics, self._audit, self.options.clock)

    def adopt(self, due: Callable[[JournalStatus], bool] = lambda status: True) -> Adopted:
        """Deliver what waits in the journals of processes that are gone; blocks until all of it is tried.

        Args:
            due: which journals to take; all by default.

        Raises:
            JournalFailed: the folder of the journals cannot be listed.
        """
        from totalizer.edge.adopt import adopt_all
        from totalizer.edge.batch_flush import BatchFlush

        flush = BatchFlush(self._courier, self.options, self._metrics, self._audit)
        return adopt_all(self.folders, self.options, flush, due)

    def shutdown(self, timeout_ms: int | None = None) -> None:
        """Deliver what waits, end the thread, give the journal back. The second time nothing happens.

        Args:
            timeout_ms: longest wait for deliveries, milliseconds; None for as long as the attempts take. What is not
                delivered by then stays in the journal, for the next process.

        Raises:
            FlushError: not all was delivered. Everything is closed all the same, and nothing is lost.
        """
        failed = self._shut(timeout_ms)
        if failed is not None:
            raise failed

    stop = shutdown

    def __enter__(self) -> SmartBatchAggregator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = self._shut(None)
        if failed is not None and kind is None:
            raise failed

    def _shut(self, timeout_ms: int | None) -> FlushError | None:
        with self._lock:
            if self._closed:
                return None
            self._closed = True
            engine = self._engine
        failed = None
        if engine is not None:
            failed = engine.close(None if timeout_ms is None else timeout_ms / 1000)
            self._metrics.count(added=engine.log.added)
            self._last_waiting, self._last_lost = engine.log.waiting, engine.log.lost
            self._engine = None
        self.sink.close()
        return failed

    def _flush(self, trigger: str, timeout_ms: int | None, *, hurry: bool) -> None:
        if self._closed:
            return
        failed = self._running().flush(trigger, None if timeout_ms is None else timeout_ms / 1000, hurry=hurry)
        if failed is not None:
            raise failed

    def _running(self) -> Engine:
        return self._engine or self._start()

    def _start(self) -> Engine:
        from totalizer.edge.engine import Engine

        with self._lock:
            if self._closed:
                raise AggregatorClosed
            if self._engine is None:
                self._engine = Engine(self.folders, self.options, self._courier, self._metrics, self._audit)
                weakref.finalize(self, self._engine.close_unowned).atexit = False
            return self._engine

    def _after_fork(self) -> None:
        engine = self._engine
        if engine is not None:
            engine.forget()
        self._begin()


#: The aggregators of this process.
_ALL: weakref.WeakSet[SmartBatchAggregator] = weakref.WeakSet()


def _after_fork() -> None:
    for aggregator in list(_ALL):
        aggregator._after_fork()


os.register_at_fork(after_in_child=_after_fork)
