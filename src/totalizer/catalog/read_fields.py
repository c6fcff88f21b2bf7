"""Reading the declaration of a field."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from totalizer.catalog.model import Field, FieldType
from totalizer.catalog.place import At

_FIELD_KEYS = {
    "type", "required", "wire", "minimum", "maximum", "length_min", "length_max", "values", "scale", "description",
}  # fmt: skip
#: The most characters of one text field; PostgreSQL index rows and COPY lines stay small.
TEXT_LENGTH_MAX = 65_536
INTEGER_LIMIT = 2**63


def read_field(at: At, name: str, value: Any) -> Field:
    """The field that `value` declares.

    Raises:
        CatalogError: it cannot be used.
    """
    table = at.table(value, _FIELD_KEYS)
    at.name(name)
    text = at.get(table, "type", str)
    try:
        kind = FieldType(text)
    except ValueError:
        allowed = ", ".join(item.value for item in FieldType)
        raise at.below("type").wrong(f"{text!r} is no type; use one of {allowed}") from None
    _only_for(at, table, kind)
    field = Field(
        name=name, type=kind, required=at.get(table, "required", bool, False),
        wire=at.wire(table, "wire", name) if "wire" in table else None,
        minimum=_bound(at, table, "minimum", kind), maximum=_bound(at, table, "maximum", kind),
        length_min=at.get(table, "length_min", int, 0), length_max=at.get(table, "length_max", int, 1000),
        values=at.strings(table, "values"), scale=at.get(table, "scale", int, 6),
        description=at.get(table, "description", str, "") if "description" in table else "",
    )  # fmt: skip
    _check_bounds(at, field)
    return field


def _only_for(at: At, table: dict[str, Any], kind: FieldType) -> None:
    """Refuse keys that mean nothing for the type."""
    allowed: dict[str, Callable[[FieldType], bool]] = {
        "minimum": lambda kind: kind.numeric,
        "maximum": lambda kind: kind.numeric,
        "length_min": lambda kind: kind is FieldType.TEXT,
        "length_max": lambda kind: kind is FieldType.TEXT,
        "values": lambda kind: kind is FieldType.TEXT,
        "scale": lambda kind: kind is FieldType.DECIMAL,
    }
    for key, test in allowed.items():
        if key in table and not test(kind):
            raise at.below(key).wrong(f"means nothing for a field of type {kind.value!r}")


def _bound(at: At, table: dict[str, Any], key: str, kind: FieldType) -> float | int | None:
    if key not in table:
        return None
    value: float | int = table[key]
    wanted = (int,) if kind is FieldType.INTEGER else (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool) or not math.isfinite(value):
        raise at.below(key).wrong(f"must be a number that fits the type, not {value!r}")
    if kind is FieldType.INTEGER and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise at.below(key).wrong(f"{value} does not fit 64 bits")
    return value


def _check_bounds(at: At, field: Field) -> None:
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        raise at.below("minimum").wrong(f"{field.minimum} is above the maximum {field.maximum}")
    if not 0 <= field.length_min <= field.length_max <= TEXT_LENGTH_MAX:
        raise at.below("length_max").wrong(f"must lie between length_min and {TEXT_LENGTH_MAX}")
    if not 0 <= field.scale <= 18:
        raise at.below("scale").wrong(f"must lie between 0 and 18, not {field.scale}")
