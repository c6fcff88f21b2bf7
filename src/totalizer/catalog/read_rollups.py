"""Reading the declaration of a rollup and its measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from totalizer.catalog.levels import LEVELS, MINUTE
from totalizer.catalog.measures import states
from totalizer.catalog.model import SYSTEM_COLUMNS, EventType, Field, FieldType, Measure, Rollup
from totalizer.catalog.place import At
from totalizer.catalog.read_measures import read_measure

_ROLLUP_KEYS = {"title", "event_type", "dimensions", "measures", "minutes"}
#: Columns of rollup tables, and of every answer.
_ROLLUP_COLUMNS = ("organization_id", "window_start", *sorted({level.key for level in LEVELS}))
#: Bytes of a rollup's text dimensions; a PostgreSQL index row holds 2704.
KEY_BYTES_MAX = 2400
#: Seconds for which minutes can be kept: from an hour to a month, since they are many.
MINUTES_S_MIN, MINUTES_S_MAX = 3600, 31 * 86_400


def read_rollup(
    at: At, name: str, value: Any, event_types: Mapping[str, EventType], known: Mapping[str, Rollup]
) -> Rollup:
    """The rollup that `value` declares.

    Args:
        at: its place in the file.
        name: its name.
        value: its table, as it is in the file.
        event_types: event types declared so far.
        known: rollups declared before it.

    Raises:
        CatalogError: it cannot be used.
    """
    table = at.table(value, _ROLLUP_KEYS)
    at.name(name)
    if name in known:
        raise at.again(known[name].file)
    type_name = at.get(table, "event_type", str)
    event_type = event_types.get(type_name)
    if event_type is None:
        raise at.below("event_type").wrong(f"no event type {type_name!r}; known: {', '.join(sorted(event_types))}")
    dimensions = at.strings(table, "dimensions")
    for dimension in dimensions:
        field = event_type.field(dimension)
        if field is None or not field.type.groupable:
            raise at.below("dimensions").wrong(f"{dimension!r} is no field of {type_name} that can be grouped by")
    _fit_an_index(at.below("dimensions"), [field for field in event_type.fields if field.name in dimensions])
    declared = at.below("measures").table(at.get(table, "measures", dict))
    measures = tuple(read_measure(at.below("measures", key), key, value, event_type) for key, value in declared.items())
    if not measures:
        raise at.below("measures").wrong("names no measure")
    _no_column_twice(at, dimensions, measures)
    minutes_s = _minutes_s(at, table)
    levels = tuple(level.suffix for level in LEVELS if level is not MINUTE or minutes_s)
    return Rollup(
        name, at.get(table, "title", str, name), type_name, dimensions, measures, at.file, levels, minutes_s
    )  # fmt: skip


def _minutes_s(at: At, table: dict[str, Any]) -> int | None:
    """For how long minutes are kept, in seconds; None if they are not."""
    if "minutes" not in table:
        return None
    seconds = at.span_s(table, "minutes")
    if not MINUTES_S_MIN <= seconds <= MINUTES_S_MAX:
        raise at.below("minutes").wrong(f"{table['minutes']!r} must lie between '1h' and '31d'")
    return seconds


def _no_column_twice(at: At, dimensions: tuple[str, ...], measures: tuple[Measure, ...]) -> None:
    taken = {*_ROLLUP_COLUMNS, *SYSTEM_COLUMNS}
    for dimension in dimensions:
        if dimension in taken:
            raise at.below("dimensions").wrong(
                f"{dimension!r} is a column every rollup has; give the field another name"
            )
    taken.update(dimensions)
    for measure in measures:
        # The names that `states` derives, too; their types do not matter here.
        names = {measure.name, *(state.column for state in states(measure, FieldType.NUMBER, "time"))}
        if names & taken:
            raise at.below("measures", measure.name).wrong("this name is taken by a column of the rollup")
        taken |= names


def _fit_an_index(at: At, fields: list[Field]) -> None:
    """A rollup's key is one index row: texts too long for it would stop the rollup, so they are refused here."""
    worst = sum(4 * (max(map(len, field.values)) if field.values else field.length_max)
                for field in fields if field.type is FieldType.TEXT)  # fmt: skip
    if worst > KEY_BYTES_MAX:
        raise at.wrong(f"its texts can take {worst} bytes, more than {KEY_BYTES_MAX}; lower the length_max of some")
