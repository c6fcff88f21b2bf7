"""One measured figure beside its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import msgspec


@dataclass(frozen=True)
class Result:
    """One case of one benchmark.

    Attributes:
        bench: name of the benchmark.
        case: what was measured.
        value: what the system reached, in `unit`; the median of the rounds.
        unit: such as `events/s`, `ms`, `MB`, `s`.
        baseline: what it is compared with.
        baseline_value: what that reached, in `unit`.
        ratio: the system over the baseline, turned so that larger is better.
    """

    bench: str
    case: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    ratio: float

    def line(self) -> str:
        """The result as one line of JSON."""
        return msgspec.json.encode(asdict(self)).decode() + "\n"


def more_is_better(
    bench: str, case: str, unit: str, values: Sequence[float], baseline: str, baseline_values: Sequence[float]
) -> Result:
    """The medians of some rounds of a rate, compared. There is at least one value on either side, none is 0."""
    value, other = median(values), median(baseline_values)
    return Result(bench, case, _short(value), unit, baseline, _short(other), _short(value / other))


def less_is_better(
    bench: str, case: str, unit: str, values: Sequence[float], baseline: str, baseline_values: Sequence[float]
) -> Result:
    """The medians of some rounds of a duration or a size, compared. At least one value on either side, none is 0."""
    value, other = median(values), median(baseline_values)
    return Result(bench, case, _short(value), unit, baseline, _short(other), _short(other / value))


def _short(value: float) -> float:
    """Four significant digits: what differs beyond them is the machine's mood."""
    return float(f"{value:.4g}")
