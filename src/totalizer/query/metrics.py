"""The numbers a request names: measures of rollups, shares of a status, figures by their type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from totalizer.catalog import Catalog, EventType
from totalizer.query.filters import event_type_of, read_filters, wrong
from totalizer.query.question import Filter, Metric

#: Numbers of one answer.
METRICS_MAX = 20
#: Where figures are that senders name themselves, and the measure that sums them up.
FIGURES, FIGURE_NAME, FIGURE_MEASURE = "productivity_metrics", "metric_type", "metric_value_avg"
_RATE = "_rate"


class MetricBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A number of the answer, as a body writes it."""

    measure: str
    name: str | None = None
    event_type: str | None = None
    filters: dict[str, Any] = msgspec.field(default_factory=dict)
    over: MetricBody | None = None


def read_metrics(
    catalog: Catalog,
    event_type: EventType,
    measures: Sequence[str],
    metrics: Sequence[str | MetricBody],
    metric_types: Sequence[str],
) -> tuple[Metric, ...]:
    """The numbers of an answer.

    Args:
        catalog: what there is.
        event_type: whose measures are meant where none is named.
        measures: names of its measures.
        metrics: `measure`, `event_type.measure`, `<status>_rate`, or with conditions and a divisor.
        metric_types: as `metrics`, and names of figures that senders have chosen.

    Raises:
        Refused: there is no such number, or two have one name.
    """
    found = [Metric(name, event_type.name, name) for name in dict.fromkeys(measures)]
    for each in metrics:
        found.append(_named(catalog, event_type, each) if isinstance(each, str) else _full(catalog, event_type, each))
    for name in metric_types:
        if _is_known(catalog, event_type, name) or FIGURES not in catalog.event_types:
            found.append(_named(catalog, event_type, name))
        else:
            of_name = read_filters(catalog.event_types[FIGURES], {FIGURE_NAME: name})
            found.append(Metric(name, FIGURES, FIGURE_MEASURE, of_name))
    if len(found) > METRICS_MAX:
        raise wrong("metrics", f"{len(found)} numbers", f"give at most {METRICS_MAX}")
    names = [metric.name for metric in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise wrong("metrics", twice, "two numbers have this name; give one of them another")
    return tuple(found)


def _is_known(catalog: Catalog, event_type: EventType, name: str) -> bool:
    return "." in name or bool(_rate_of(catalog, event_type, name)) or _has(catalog, event_type, name)


def _has(catalog: Catalog, event_type: EventType, name: str) -> bool:
    return any(rollup.measure(name) for rollup in catalog.rollups_of(event_type.name))


def _named(catalog: Catalog, event_type: EventType, name: str) -> Metric:
    kind, dot, measure = name.rpartition(".")
    if dot:
        event_type = event_type_of(catalog, kind)
    rate = None if _has(catalog, event_type, measure) else _rate_of(catalog, event_type, measure)
    if rate is not None:
        count, of_status = rate
        return Metric(name, event_type.name, count, of_status, Metric(name, event_type.name, count))
    return Metric(name, event_type.name, measure)


def _rate_of(catalog: Catalog, event_type: EventType, name: str) -> tuple[str, tuple[Filter, ...]] | None:
    """The measure that counts, and the condition, of the share of events with a status: `error_rate`."""
    field = event_type.field("status")
    status = name.removesuffix(_RATE)
    if field is None or status == name or status not in field.values:
        return None
    for rollup in catalog.rollups_of(event_type.name):
        count = next((measure.name for measure in rollup.measures if measure.kind == "count"), None)
        if count and "status" in rollup.dimensions:
            return count, read_filters(event_type, {"status": status})
    return None


def _full(catalog: Catalog, event_type: EventType, body: MetricBody) -> Metric:
    kind = event_type if body.event_type is None else event_type_of(catalog, body.event_type)
    over = None if body.over is None else _full(catalog, kind, body.over)
    if over is not None and over.over is not None:
        raise wrong("over", body.measure, "a divisor has no divisor itself")
    return Metric(body.name or body.measure, kind.name, body.measure, read_filters(kind, body.filters), over)
