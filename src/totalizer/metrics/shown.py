"""The sum of all processes on a data folder, in the text format of Prometheus, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import isnan
from pathlib import Path

from totalizer.metrics.slot import Key, slots
from totalizer.metrics.table import COMPONENTS, METRICS, PROCESSES, Metric

#: Without the charset, UTF-8, which the web framework adds.
MEDIA_TYPE = "text/plain; version=0.0.4"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def metrics_text(folder: Path) -> str:
    """Counters and histograms of all processes there ever were, gauges of those that run.

    Args:
        folder: of the processes' numbers.

    Raises:
        OSError: the disk refuses.
    """
    sums: dict[Key, list[float]] = {}
    running = Counter(dict.fromkeys(COMPONENTS, 0))
    for component, alive, numbers in slots(folder):
        running[component] += alive
        for key, values in numbers.items():
            if alive or METRICS[key[0]].kind != "gauge":
                old = sums.get(key)
                sums[key] = values if old is None else [one + other for one, other in zip(old, values, strict=True)]
    return "".join(f"{line}\n" for line in _lines(sums, running))


def _lines(sums: dict[Key, list[float]], running: Counter[str]) -> Iterator[str]:
    yield from _head(PROCESSES)
    for component, count in sorted(running.items()):
        yield f'{PROCESSES.name}{{component="{component}"}} {count}'
    for metric in METRICS.values():
        yield from _head(metric)
        found = sorted((labels, values) for (name, labels), values in sums.items() if name == metric.name)
        if not found and not metric.labels:
            # There from the start, so that a rate over it has no gap.
            found = [((), [0.0] * metric.size)]
        for labels, values in found:
            yield from _histogram(metric, labels, values) if metric.bounds else _number(metric, labels, values[0])


def _head(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"


def _number(metric: Metric, labels: tuple[str, ...], value: float) -> Iterator[str]:
    yield f"{metric.name}{_labels(metric, labels)} {_text(value)}"


def _histogram(metric: Metric, labels: tuple[str, ...], values: list[float]) -> Iterator[str]:
    total = 0.0
    for bound, count in zip([*map(str, metric.bounds), "+Inf"], values, strict=False):
        total += count
        yield f"{metric.name}_bucket{_labels(metric, labels, bound)} {_text(total)}"
    yield f"{metric.name}_sum{_labels(metric, labels)} {_text(values[-1])}"
    yield f"{metric.name}_count{_labels(metric, labels)} {_text(total)}"


def _labels(metric: Metric, labels: tuple[str, ...], bound: str | None = None) -> str:
    pairs = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(metric.labels, labels, strict=True)]
    if bound is not None:
        pairs.append(f'le="{bound}"')
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _text(value: float) -> str:
    if isnan(value):
        return "NaN"
    return str(int(value)) if value.is_integer() else repr(value)
