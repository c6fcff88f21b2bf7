"""Collectors for the registry of `prometheus_client`, which must be installed (`pip install prometheus-client`).

from prometheus_client import REGISTRY
REGISTRY.register(AggregatorCollector(aggregator))      # this process
REGISTRY.register(FolderCollector(".totalizer/aggregated"))  # or all processes on a folder: one exporter a machine
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.daemon.health import Waiting
from totalizer.edge.folder import Folders
from totalizer.edge.metric_families import Family, Histogram, aggregator_families, daemon_families, folder_families
from totalizer.edge.status import read_metrics, waiting

if TYPE_CHECKING:
    from totalizer.edge.aggregator import SmartBatchAggregator
    from totalizer.edge.daemon import CronRecoveryDaemon


class AggregatorCollector(Collector):
    """The figures of one aggregator of this process, and of a recovery daemon if it runs here too.

    Args:
        aggregator: whose figures.
        daemon: whose figures beside them.
    """

    def __init__(self, aggregator: SmartBatchAggregator, daemon: CronRecoveryDaemon | None = None) -> None:
        self._aggregator, self._daemon = aggregator, daemon

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        figures = self._aggregator.get_performance_metrics(), self._aggregator.get_stats()
        yield from _metrics(aggregator_families(*figures))
        if self._daemon is not None:
            yield from _metrics(daemon_families(self._daemon.get_metrics()))


class FolderCollector(Collector):
    """The figures of all processes that batch into a folder, as of their last second.

    Args:
        data_path: of the aggregators.
        clock: for ages.
    """

    def __init__(self, data_path: str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._folders, self._clock = Folders(data_path), clock

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment. Reads all that waits. JournalFailed or OSError if a folder cannot be read."""
        folders, now_ms = self._folders, self._clock.now_ns() // 1_000_000
        backlog = Waiting.in_folders(folders)
        yield from _metrics(folder_families(read_metrics(folders), waiting(folders), backlog, now_ms))


def _metrics(families: Iterable[Family]) -> Iterator[Metric]:
    for family in families:
        if family.histogram is not None:
            yield _histogram(family, family.histogram)
            continue
        labels = list(family.samples[0][0])
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(family.name.removesuffix("_total"), family.help, labels=labels)
        for values, value in family.samples:
            metric.add_metric(list(values.values()), value)
        yield metric


def _histogram(family: Family, histogram: Histogram) -> Metric:
    buckets = [("+Inf" if bound == float("inf") else str(bound), count) for bound, count in histogram.buckets]
    return HistogramMetricFamily(family.name, family.help, buckets=buckets, sum_value=histogram.sum_s)
