"""Which rollup answers which numbers of a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from totalizer.catalog import Catalog, EventType, Measure, Rollup
from totalizer.errors import Refusal, Refused
from totalizer.query.question import Filter, Metric, Query


class Part(NamedTuple):
    """Numbers that come from one rollup under the same conditions.

    Attributes:
        event_type, rollup: what is read.
        filters: all conditions on it.
        measures: the numbers.
    """

    event_type: EventType
    rollup: Rollup
    filters: tuple[Filter, ...]
    measures: tuple[Measure, ...]


class Answered(NamedTuple):
    """A number of the answer.

    Attributes:
        name: in the answer.
        measure: what it is.
        part: index of the part that has it.
        over: measure and part of its divisor; None for none.
    """

    name: str
    measure: Measure
    part: int
    over: tuple[Measure, int] | None = None

    @property
    def additive(self) -> bool:
        """True if it is 0 where there are no events."""
        return self.over is None and self.measure.kind in ("count", "sum")


class Choice(NamedTuple):
    """The rollups of a query, and which number comes from which."""

    parts: list[Part]
    answers: list[Answered]


def choose_rollup(
    catalog: Catalog, event_type: str, dimensions: set[str], measures: Sequence[str]
) -> tuple[Rollup, tuple[Measure, ...]]:
    """The smallest rollup that has these dimensions and measures, and those measures; all of its if none are named.

    Raises:
        Refused: none has; the message says what there is.
    """
    there = catalog.rollups_of(event_type)
    fitting = [
        rollup
        for rollup in there
        if dimensions <= set(rollup.dimensions) and all(rollup.measure(name) for name in measures)
    ]
    if not fitting:
        known = "; ".join(
            f"{rollup.name} has {', '.join(rollup.dimensions)} with {', '.join(m.name for m in rollup.measures)}"
            for rollup in there
        )
        wanted = f" has {', '.join([*sorted(dimensions), *measures])}" if dimensions or measures else ""
        raise Refused(Refusal.INVALID_QUERY, f"no rollup of {event_type}{wanted}: {known or 'none is declared'}")
    rollup = min(fitting, key=lambda candidate: len(candidate.dimensions))
    return rollup, tuple(measure for measure in rollup.measures if not measures or measure.name in measures)


def choose(catalog: Catalog, query: Query) -> Choice:
    """The rollups that answer a query, as few as can be.

    Raises:
        Refused: a number cannot be had with these dimensions.
    """
    if not query.metrics:
        needed = {*query.group_by, *(each.field for each in query.filters)}
        rollup, measures = choose_rollup(catalog, query.event_type, needed, ())
        part = Part(catalog.event_types[query.event_type], rollup, query.filters, measures)
        return _checked(query, Choice([part], [Answered(measure.name, measure, 0) for measure in measures]))
    wanted = _wanted(query)
    parts = [_part(catalog, query, key, names) for key, names in wanted.items()]
    places = {key: number for number, key in enumerate(wanted)}

    def found(metric: Metric) -> tuple[Measure, int]:
        place = places[(metric.event_type, metric.filters)]
        measure = parts[place].rollup.measure(metric.measure)
        assert measure is not None
        return measure, place

    answers = [
        Answered(metric.name, *found(metric), None if metric.over is None else found(metric.over))
        for metric in query.metrics
    ]
    return _checked(query, Choice(parts, answers))


def _wanted(query: Query) -> dict[tuple[str, tuple[Filter, ...]], list[str]]:
    """Names of measures by event type and conditions."""
    wanted: dict[tuple[str, tuple[Filter, ...]], list[str]] = {}
    for metric in query.metrics:
        for each in (metric, metric.over):
            if each is not None:
                wanted.setdefault((each.event_type, each.filters), []).append(each.measure)
    return wanted


def _part(catalog: Catalog, query: Query, key: tuple[str, tuple[Filter, ...]], names: list[str]) -> Part:
    event_type, own = key
    filters = (*query.filters, *own)
    needed = {*query.group_by, *(each.field for each in filters)}
    rollup, measures = choose_rollup(catalog, event_type, needed, list(dict.fromkeys(names)))
    return Part(catalog.event_types[event_type], rollup, filters, measures)


def _checked(query: Query, choice: Choice) -> Choice:
    """Raises if a name of the order is no number of the answer, or a divisor or dividend no number at all."""
    names = {"window", *(answer.name for answer in choice.answers)}
    for order in query.order:
        if order.by not in names:
            raise Refused(Refusal.INVALID_QUERY, f"order={order.by:.100}: use {', '.join(sorted(names))}")
    for answer in choice.answers:
        if answer.over is not None and not {answer.measure.kind, answer.over[0].kind} <= NUMERIC:
            raise Refused(Refusal.INVALID_QUERY, f"metrics={answer.name:.100}: only numbers can be divided")
    return choice


#: Kinds of measure that are numbers whatever their field.
NUMERIC = {"count", "sum", "avg", "unique"}
