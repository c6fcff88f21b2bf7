"""Reading the declaration of a measure."""

from __future__ import annotations

import math
from typing import Any

from totalizer.catalog.measures import FIELD_KINDS, KINDS, NUMERIC_KINDS
from totalizer.catalog.model import EventType, FieldType, Measure
from totalizer.catalog.place import At

#: Quantiles of one measure at most.
QUANTILES_MAX = 20
_MEASURE_KEYS = {"kind", "field", "quantiles"}


def read_measure(at: At, name: str, value: Any, event_type: EventType) -> Measure:
    """The measure that `value` declares, of a rollup over `event_type`.

    Raises:
        CatalogError: it cannot be used.
    """
    table = at.table(value, _MEASURE_KEYS)
    at.name(name)
    kind = at.get(table, "kind", str)
    if kind not in KINDS:
        raise at.below("kind").wrong(f"{kind!r} is no kind of measure; use one of {', '.join(KINDS)}")
    quantiles = _quantiles(at.below("quantiles"), table, kind)
    if kind not in FIELD_KINDS:
        if "field" in table:
            raise at.below("field").wrong(f"a {kind} takes no field")
        return Measure(name, kind)
    return Measure(name, kind, _field(at, table, kind, event_type), quantiles)


def _field(at: At, table: dict[str, Any], kind: str, event_type: EventType) -> str:
    field = event_type.field(at.get(table, "field", str))
    if kind in NUMERIC_KINDS and (field is None or not field.type.numeric):
        raise at.below("field").wrong(f"{table['field']!r} is no numeric field of {event_type.name}")
    if field is None or field.type is FieldType.JSON:
        raise at.below("field").wrong(
            f"{table['field']!r} is no field of {event_type.name} whose values can be told apart"
        )
    return field.name


def _quantiles(at: At, table: dict[str, Any], kind: str) -> tuple[float, ...]:
    if kind != "quantiles":
        if "quantiles" in table:
            raise at.wrong(f"a {kind} takes no quantiles")
        return ()
    values = table.get("quantiles")
    if not isinstance(values, list) or not 1 <= len(values) <= QUANTILES_MAX:
        raise at.wrong(f"must be a list of 1 to {QUANTILES_MAX} numbers such as [0.5, 0.95, 0.99], not {values!r}")
    for value in values:
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not (math.isfinite(value) and 0 <= value <= 1)
        ):
            raise at.wrong(f"{value!r} must be a number from 0 to 1")
    if len(set(values)) != len(values):
        raise at.wrong(f"names one twice: {values!r}")
    return tuple(float(value) for value in values)
