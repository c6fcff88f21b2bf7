"""The JSON schemas of what is sent, made from the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema

from totalizer.catalog import EventType, Field, FieldType
from totalizer.collect.validator import ID_LENGTH_MAX
from totalizer.web.described.forms import Form

#: An id, and a time, as examples have them.
UUID_EXAMPLE: Final = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
TIME_EXAMPLE: Final = "2025-09-05T10:00:00Z"

_TYPES = {
    FieldType.TEXT: OpenAPIType.STRING,
    FieldType.UUID: OpenAPIType.STRING,
    FieldType.INTEGER: OpenAPIType.INTEGER,
    FieldType.NUMBER: OpenAPIType.NUMBER,
    FieldType.DECIMAL: OpenAPIType.NUMBER,
    FieldType.BOOLEAN: OpenAPIType.BOOLEAN,
    FieldType.JSON: OpenAPIType.OBJECT,
}


def batch_form(event_types: Sequence[EventType]) -> Form:
    """A batch: a list of events under each type's name, and a time for those without."""
    lists = {
        event_type.name: Schema(type=OpenAPIType.ARRAY, items=event_schema(event_type)) for event_type in event_types
    }
    schema = Schema(
        type=OpenAPIType.OBJECT,
        properties={"timestamp": _time("When the events that name no time of their own happened."), **lists},
        additional_properties=False,
    )
    return Form(schema, {kind.name: [event_example(kind)] for kind in event_types[:2]})


def event_schema(event_type: EventType) -> Schema:
    """The JSON schema of a sent event."""
    chosen = "The sender's name for it; a resend with the same id and source is not counted again."
    return Schema(
        type=OpenAPIType.OBJECT,
        title=event_type.title,
        properties={
            "id": Schema(type=OpenAPIType.STRING, min_length=1, max_length=ID_LENGTH_MAX, description=chosen),
            "source": Schema(
                type=OpenAPIType.STRING, max_length=ID_LENGTH_MAX, description="What the id is unique within."
            ),
            event_type.time_wire: _time("When it happened; when it was received, if left out."),
            **{field.key: field_schema(field) for field in event_type.fields},
        },
        required=[field.key for field in event_type.fields if field.required],
        additional_properties=None if event_type.keep_unknown else False,
    )


def event_example(event_type: EventType) -> dict[str, Any]:
    """A sent event with what it must have."""
    fields = {field.key: field_example(field) for field in event_type.fields if field.required}
    return {"id": f"{event_type.route}-17", event_type.time_wire: TIME_EXAMPLE, **fields}


def field_example(field: Field) -> Any:
    """A value that a field may have."""
    match field.type:
        case FieldType.UUID:
            return UUID_EXAMPLE
        case FieldType.TEXT:
            return field.values[0] if field.values else f"{field.name.replace('_', '-')}-1"[: field.length_max]
        case FieldType.BOOLEAN:
            return True
        case FieldType.JSON:
            return {"key": "value"}
        case _:
            return max(field.minimum or 0, min(100, 100 if field.maximum is None else field.maximum))


def _time(description: str) -> Schema:
    return Schema(
        description=f"{description} RFC 3339 with a zone, or milliseconds since 1970.",
        one_of=[
            Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
            Schema(type=OpenAPIType.INTEGER),
        ],
    )


def field_schema(field: Field) -> Schema:
    """What a field of a sent event may hold."""
    schema = Schema(type=_TYPES[field.type], description=field.description or None)
    schema.minimum, schema.maximum = field.minimum, field.maximum
    if field.type is FieldType.UUID:
        schema.format = OpenAPIFormat.UUID
    if field.values:
        schema.enum = list(field.values)
    elif field.type is FieldType.TEXT:
        schema.min_length, schema.max_length = field.length_min, field.length_max
    return schema
