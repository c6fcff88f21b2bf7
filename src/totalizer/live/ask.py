"""From request parameters to a checked question about a live window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from totalizer.catalog import Catalog, EventType, FieldType, Rollup
from totalizer.errors import Refusal, Refused
from totalizer.live.length import LENGTHS
from totalizer.live.shape import KINDS

EVENT_TYPE_DEFAULT = "command_executions"
#: Values of one filter.
FILTER_VALUES_MAX = 100
_OWN = ("event_type", "group_by", "measures")


class Ask(NamedTuple):
    """A question about a live window.

    Attributes:
        window: name of its length.
        rollup: that it is of.
        group_by: dimensions of the answer's rows.
        filters: (dimension, the values it may have).
        measures: the numbers wanted.
    """

    window: str
    rollup: str
    group_by: tuple[str, ...]
    filters: tuple[tuple[str, frozenset[Any]], ...]
    measures: tuple[str, ...]


class Asks:
    """Reads questions.

    Args:
        catalog: what can be asked about.
        windows: the names of the lengths there are.
    """

    def __init__(self, catalog: Catalog, windows: Sequence[str]) -> None:
        self._catalog, self.windows = catalog, tuple(windows)

    def parse(self, window: str, parameters: Mapping[str, Sequence[str]]) -> Ask:
        """The question that parameters ask.

        Args:
            window: the length.
            parameters: name → values; those that are not the question's own filter by a dimension.

        Raises:
            Refused: one cannot be used; the message names it, its value and what can.
        """
        if window not in self.windows or window not in LENGTHS:
            raise _wrong("window", window, f"use one of {', '.join(self.windows)}")
        event_type = self._event_type(parameters.get("event_type", ()))
        group_by = _names(parameters.get("group_by", ()))
        filters = {name: values for name, values in parameters.items() if name not in _OWN}
        wanted = _names(parameters.get("measures", ()))
        rollup = self._rollup(event_type, {*group_by, *filters}, wanted)
        measures = wanted or tuple(measure.name for measure in rollup.measures if measure.kind in KINDS)
        checked = tuple((name, _values(event_type, name, filters[name])) for name in sorted(filters))
        return Ask(window, rollup.name, group_by, checked, measures)

    def _event_type(self, values: Sequence[str]) -> EventType:
        name = values[0] if values else EVENT_TYPE_DEFAULT
        if len(values) > 1 or name not in self._catalog.event_types:
            raise _wrong("event_type", ",".join(values), f"use one of {', '.join(self._catalog.event_types)}")
        return self._catalog.event_types[name]

    def _rollup(self, event_type: EventType, dimensions: set[str], measures: Sequence[str]) -> Rollup:
        """The smallest that has them."""
        rollups = self._catalog.rollups_of(event_type.name)
        fitting = [
            rollup
            for rollup in rollups
            if dimensions <= set(rollup.dimensions)
            and set(measures) <= {measure.name for measure in rollup.measures if measure.kind in KINDS}
            and any(measure.kind in KINDS for measure in rollup.measures)
        ]
        if fitting:
            return min(fitting, key=lambda rollup: len(rollup.dimensions))
        there = "; ".join(
            f"{rollup.name} has {', '.join(rollup.dimensions)} with "
            f"{', '.join(measure.name for measure in rollup.measures if measure.kind in KINDS)}"
            for rollup in rollups
        )
        asked = ", ".join([*sorted(dimensions), *measures])
        raise Refused(
            Refusal.INVALID_QUERY, f"no live window of {event_type.name} has {asked:.200}: {there or 'there is none'}"
        )


def _wrong(name: str, value: object, reason: str) -> Refused:
    return Refused(Refusal.INVALID_QUERY, f"{name:.100}={value!s:.200}: {reason}")


def _names(values: Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    return tuple(dict.fromkeys(names))


def _values(event_type: EventType, name: str, values: Sequence[str]) -> frozenset[Any]:
    field = event_type.field(name)
    assert field is not None, "a dimension of a rollup is a field"
    if len(values) > FILTER_VALUES_MAX:
        raise _wrong(name, f"{len(values)} values", f"give at most {FILTER_VALUES_MAX}")
    return frozenset(_value(name, value, field.type) for value in values)


def _value(name: str, value: str, kind: FieldType) -> Any:
    try:
        if kind is FieldType.UUID:
            return str(UUID(value))
        if kind is FieldType.INTEGER:
            return int(value)
        if kind is FieldType.BOOLEAN:
            return {"true": True, "false": False}[value]
    except (ValueError, KeyError):
        raise _wrong(name, value, f"is no {kind.value}") from None
    return value
