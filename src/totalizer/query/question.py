"""A question, checked: what the API's parameters and bodies come to."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import msgspec

from totalizer.query.windows import Windows


class Filter(msgspec.Struct, frozen=True):
    """A condition on a dimension.

    Attributes:
        field: the dimension.
        op: `in`, `not`, or of a number `gte`, `gt`, `lte`, `lt`.
        values: as text; None stands for events without a value.
    """

    field: str
    op: str
    values: tuple[str | None, ...]


class Metric(msgspec.Struct, frozen=True):
    """A number of the answer.

    Attributes:
        name: in the answer.
        event_type: of the events it is about.
        measure: of a rollup of theirs.
        filters: further conditions.
        over: what it is divided by; None for nothing.
    """

    name: str
    event_type: str
    measure: str
    filters: tuple[Filter, ...] = ()
    over: Metric | None = None


class Order(msgspec.Struct, frozen=True):
    """What rows are sorted by: `window`, or the name of a metric."""

    by: str
    descending: bool = False


class Fill(Enum):
    """What stands in windows without events."""

    NONE = "none"
    ZERO = "zero"
    NULL = "null"


class Query(msgspec.Struct, frozen=True):
    """A question.

    Attributes:
        event_type: what it is about when there are no metrics.
        start, end: the range, end excluded, UTC.
        windows: how it is divided.
        metrics: the numbers wanted; none for all of one rollup of the event type.
        group_by: dimensions of the answer's rows.
        filters: conditions on all metrics.
        time_zone: whose days and hours; None for the organisation's own.
        order: of the rows; by window if empty.
        fill: of windows without events.
        compare: the range whose numbers stand beside these; None for no comparison.
        limit: rows at most.
        cursor: where an earlier answer ended, as it said.
        exact: True to be refused rather than told stale numbers.
        explain: True to be told how it was answered.
    """

    event_type: str
    start: datetime
    end: datetime
    windows: Windows
    metrics: tuple[Metric, ...] = ()
    group_by: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    time_zone: str | None = None
    order: tuple[Order, ...] = ()
    fill: Fill = Fill.NONE
    compare: tuple[datetime, datetime] | None = None
    limit: int = 1000
    cursor: str | None = None
    exact: bool = False
    explain: bool = False

    @property
    def by_window(self) -> bool:
        """True if rows come in order of their windows, so that each has a place that never changes."""
        return all(order.by == WINDOW for order in self.order)

    @property
    def latest_first(self) -> bool:
        """True if the last window comes first."""
        return bool(self.order) and self.order[0].by == WINDOW and self.order[0].descending

    def event_types(self) -> list[str]:
        """Every event type it is about."""
        if not self.metrics:
            return [self.event_type]
        asked = [each for metric in self.metrics for each in (metric, metric.over) if each is not None]
        return sorted({metric.event_type for metric in asked})


#: What `Order.by` says for the time of a row.
WINDOW = "window"
