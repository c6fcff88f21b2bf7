"""JSON schemas, written shortly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema

JSON = "application/json"
#: Any JSON value.
ANY = Schema()


class Form(NamedTuple):
    """What a body or an answer holds.

    Attributes:
        schema: of it; None if it is empty.
        example: one.
        description: what it is, if that is not plain.
        media_type: of it.
    """

    schema: Schema | None
    example: Any = None
    description: str = ""
    media_type: str = JSON


def text(description: str = "", *values: str) -> Schema:
    """A text; one of some values, if there are any."""
    return _of(OpenAPIType.STRING, description, enum=list(values) or None)


def moment(description: str = "") -> Schema:
    """A time as RFC 3339 has it."""
    return _of(OpenAPIType.STRING, description, format=OpenAPIFormat.DATE_TIME)


def identifier(description: str = "") -> Schema:
    """A UUID."""
    return _of(OpenAPIType.STRING, description, format=OpenAPIFormat.UUID)


def integer(description: str = "") -> Schema:
    """A whole number."""
    return _of(OpenAPIType.INTEGER, description)


def number(description: str = "") -> Schema:
    """A number."""
    return _of(OpenAPIType.NUMBER, description)


def flag(description: str = "") -> Schema:
    """True or false."""
    return _of(OpenAPIType.BOOLEAN, description)


def several(items: Schema, description: str = "") -> Schema:
    """A list."""
    return _of(OpenAPIType.ARRAY, description, items=items)


def by_name(values: Schema, description: str = "") -> Schema:
    """An object whose members' names are data."""
    return _of(OpenAPIType.OBJECT, description, additional_properties=values)


def record(
    members: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, more: Schema | None = None,
    description: str = "",
) -> Schema:  # fmt: skip
    """An object.

    Args:
        members: that it always has.
        optional: that it may have.
        more: what members with other names hold; None: there are none.
        description: of it.
    """
    return _of(
        OpenAPIType.OBJECT, description, properties={**members, **(optional or {})}, required=list(members) or None,
        additional_properties=more,
    )  # fmt: skip


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    assert isinstance(schema.type, OpenAPIType)
    enum = None if schema.enum is None else [*schema.enum, None]
    return _changed(schema, type=[schema.type, OpenAPIType.NULL], enum=enum)


def one_of_these(*schemas: Schema) -> Schema:
    """Any of some forms."""
    return schemas[0] if len(schemas) == 1 else Schema(any_of=list(schemas))


def _of(kind: OpenAPIType, description: str, **more: Any) -> Schema:
    return Schema(type=kind, description=description or None, **more)


def _changed(schema: Schema, **more: Any) -> Schema:
    return Schema(**{name: value for name, value in vars(schema).items() if value is not None} | more)
