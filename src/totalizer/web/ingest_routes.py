"""The ingest routes as the API's schema knows them, made from the catalog.

Behind our own server they are answered before they get here; behind another they do the same work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import MediaType, Request, Response, post
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from totalizer.catalog import Catalog, EventType, Field, FieldType
from totalizer.collect.validator import ID_LENGTH_MAX
from totalizer.web.ingest import BATCH, PREFIX, Ingest

_TYPES = {
    FieldType.TEXT: OpenAPIType.STRING,
    FieldType.UUID: OpenAPIType.STRING,
    FieldType.INTEGER: OpenAPIType.INTEGER,
    FieldType.NUMBER: OpenAPIType.NUMBER,
    FieldType.DECIMAL: OpenAPIType.NUMBER,
    FieldType.BOOLEAN: OpenAPIType.BOOLEAN,
    FieldType.JSON: OpenAPIType.OBJECT,
}


def ingest_routes(ingest: Ingest, catalog: Catalog) -> list[Any]:
    """A handler for each event type's route, and one for batches."""
    schemas = {event_type.name: event_schema(event_type) for event_type in catalog.event_types.values()}
    batch = Schema(
        type=OpenAPIType.OBJECT,
        properties={
            "timestamp": _time("When the events that name no time of their own happened."),
            **{name: Schema(type=OpenAPIType.ARRAY, items=schema) for name, schema in schemas.items()},
        },
        additional_properties=False,
    )
    routes = [_route(ingest, BATCH, batch, "Send events of any types")]
    for event_type in catalog.event_types.values():
        title = f"Send one event: {event_type.title}"
        routes.append(_route(ingest, PREFIX + event_type.route, schemas[event_type.name], title))
    return routes


def _route(ingest: Ingest, path: str, schema: Schema, summary: str) -> Any:
    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(
                content={"application/json": OpenAPIMediaType(schema=schema)}, required=True
            )

    @post(path, status_code=202, summary=summary, operation_class=WithBody, name=f"ingest {path}")
    async def take(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Accepted once its events are on disk; the answer names every event that is not."""
        answer = await ingest.take(path, request.headers, await request.body())
        return Response(answer, status_code=202, media_type=MediaType.JSON)

    return take


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
