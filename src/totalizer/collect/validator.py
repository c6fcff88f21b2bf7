"""The validator of an event type: a msgspec struct made from its declaration."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from totalizer.catalog import Catalog, EventType, Field, FieldType

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z"
#: Characters of an id or source a sender may choose.
ID_LENGTH_MAX = 255
SIGNED_64_MIN, SIGNED_64_MAX = -(2**63), 2**63 - 1


def event_struct(event_type: EventType) -> type[msgspec.Struct]:
    """The struct one sent event of this type decodes into; `id`, `source` and the time may be left out.

    An attribute is named as its column with an underscore after it, so that a column may be called `from` or `class`.
    """
    text = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX)]
    fields: list[tuple[str, Any, Any]] = [
        ("id", text | None, msgspec.field(default=None)),
        ("source", Annotated[str, Meta(max_length=ID_LENGTH_MAX)] | None, msgspec.field(default=None)),
        (f"{event_type.time_field}_", str | int | None, msgspec.field(default=None, name=event_type.time_wire)),
    ]
    for field in event_type.fields:
        kind = value_type(field)
        if field.required:
            fields.append((f"{field.name}_", kind, msgspec.field(name=field.key)))
        else:
            fields.append((f"{field.name}_", kind | None, msgspec.field(default=None, name=field.key)))
    # Events hold no reference cycles, so the garbage collector need not look at them.
    return msgspec.defstruct(
        f"{event_type.name}_event", fields, kw_only=True, forbid_unknown_fields=True, gc=False, frozen=True
    )


def batch_struct(catalog: Catalog, structs: dict[str, type[msgspec.Struct]]) -> type[msgspec.Struct]:
    """The struct a whole batch decodes into: a list of events under each type's name, and a time for those without."""
    fields: list[tuple[str, Any, Any]] = [("timestamp", str | int | None, None)]
    for name in catalog.event_types:
        fields.append((name, list[structs[name]], msgspec.field(default_factory=list)))  # type: ignore[valid-type]
    return msgspec.defstruct("batch", fields, kw_only=True, forbid_unknown_fields=True)


def value_type(field: Field) -> Any:
    """The type msgspec checks a field's value against."""
    match field.type:
        case FieldType.TEXT if field.values:
            return Literal[field.values]
        case FieldType.TEXT:
            return Annotated[str, Meta(min_length=field.length_min or None, max_length=field.length_max)]
        case FieldType.UUID:
            return Annotated[str, Meta(pattern=UUID_PATTERN)]
        case FieldType.INTEGER:
            low = SIGNED_64_MIN if field.minimum is None else int(field.minimum)
            high = SIGNED_64_MAX if field.maximum is None else int(field.maximum)
            return Annotated[int, Meta(ge=low, le=high)]
        case FieldType.NUMBER:
            return Annotated[float, Meta(ge=field.minimum, le=field.maximum)]
        case FieldType.DECIMAL:
            return Decimal
        case FieldType.BOOLEAN:
            return bool
        case FieldType.JSON:
            return dict[str, Any]
