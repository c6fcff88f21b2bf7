"""The JSON schemas of what is sent, made from the catalog."""

from __future__ import annotations

from collections.abc import Iterable

from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema

from totalizer.catalog import EventType, Field, FieldType
from totalizer.collect.validator import ID_LENGTH_MAX

_TYPES = {
    FieldType.TEXT: OpenAPIType.STRING,
    FieldType.UUID: OpenAPIType.STRING,
    FieldType.INTEGER: OpenAPIType.INTEGER,
    FieldType.NUMBER: OpenAPIType.NUMBER,
    FieldType.DECIMAL: OpenAPIType.NUMBER,
    FieldType.BOOLEAN: OpenAPIType.BOOLEAN,
    FieldType.JSON: OpenAPIType.OBJECT,
}


def batch_schema(event_types: Iterable[EventType]) -> Schema:
    """The JSON schema of a batch: a list of events under each type's name, and a time for those without."""
    lists = {
        event_type.name: Schema(type=OpenAPIType.ARRAY, items=event_schema(event_type)) for event_type in event_types
    }
    return Schema(
        type=OpenAPIType.OBJECT,
        properties={"timestamp": _time("When the events that name no time of their own happened."), **lists},
        additional_properties=False,
    )


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
            **{field.key: _field_schema(field) for field in event_type.fields},
        },
        required=[field.key for field in event_type.fields if field.required],
        additional_properties=False,
    )


def _time(description: str) -> Schema:
    return Schema(
        description=f"{description} RFC 3339 with a zone, or milliseconds since 1970.",
        one_of=[
            Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
            Schema(type=OpenAPIType.INTEGER),
        ],
    )


def _field_schema(field: Field) -> Schema:
    schema = Schema(type=_TYPES[field.type], description=field.description or None)
    schema.minimum, schema.maximum = field.minimum, field.maximum
    if field.type is FieldType.UUID:
        schema.format = OpenAPIFormat.UUID
    if field.values:
        schema.enum = list(field.values)
    elif field.type is FieldType.TEXT:
        schema.min_length, schema.max_length = field.length_min, field.length_max
    return schema
