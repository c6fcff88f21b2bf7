"""What API processes did lately, as they tell it among what they measure."""

from __future__ import annotations

from pathlib import Path

from totalizer.health.facts import ApiFigures
from totalizer.metrics.slot import Key, slots
from totalizer.metrics.table import ANSWERS, MEMORY, MINUTE_REQUESTS, MINUTE_SECONDS

#: Labels of the gauges of the last minute.
INGEST, QUERY = "ingest", "query"
_MISSED = "missed"


def api_figures(folder: Path) -> ApiFigures:
    """The figures of the API processes that run on a data folder, in sum.

    Args:
        folder: of the processes' numbers.

    Raises:
        OSError: the disk refuses.
    """
    processes = 0
    sums: dict[Key, float] = {}
    for component, alive, numbers in slots(folder):
        if component == "api" and alive:
            processes += 1
            for key, values in numbers.items():
                sums[key] = sums.get(key, 0.0) + values[0]

    def told(name: str, *labels: str) -> float:
        return sums.get((name, labels), 0.0)

    answers = sum(value for (name, _), value in sums.items() if name == ANSWERS.name)
    missed = told(ANSWERS.name, _MISSED)
    return ApiFigures(
        processes,
        int(told(MINUTE_REQUESTS.name, INGEST)), told(MINUTE_SECONDS.name, INGEST) * 1000,
        int(told(MINUTE_REQUESTS.name, QUERY)), told(MINUTE_SECONDS.name, QUERY) * 1000,
        int(answers - missed), int(missed), int(told(MEMORY.name)),
    )  # fmt: skip
