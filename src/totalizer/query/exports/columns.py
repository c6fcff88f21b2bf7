"""What a column of an export holds, whatever the format."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from totalizer.catalog import EventType, Field, FieldType
from totalizer.query.combine import AVERAGE_DIGITS, Work


class Kind(Enum):
    """What a column holds."""

    TEXT = "text"
    TIME = "time"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    UUID = "uuid"
    JSON = "json"


class Column(NamedTuple):
    """A column.

    Attributes:
        name: in the header.
        kind: what it holds. A value of kind `JSON` is its text.
        scale: of a decimal, the digits after the point.
    """

    name: str
    kind: Kind
    scale: int = 0


_KINDS = {field_type: Kind(field_type.value) for field_type in FieldType}


def event_columns(event_type: EventType) -> list[Column]:
    """The columns of events: what a continued export needs comes first."""
    return [
        Column(event_type.time_field, Kind.TIME),
        Column("id", Kind.UUID),
        *(Column(field.name, _KINDS[field.type], field.scale) for field in event_type.fields),
        Column("source", Kind.TEXT),
        Column("external_id", Kind.TEXT),
        Column("received_at", Kind.TIME),
        Column("stored_at", Kind.TIME),
    ]


def total_columns(work: Work) -> list[Column]:
    """The columns of totals, those beside another period after them."""
    event_type = work.choice.parts[0].event_type
    groups = [_field_column(event_type.field(name), name) for name in work.query.group_by]
    numbers = [_number_column(work, place) for place in range(len(work.choice.answers))]
    beside = ("previous", "change") if len(work.periods) > 1 else ()
    more = [number._replace(name=f"{part}.{number.name}") for part in beside for number in numbers]
    return [Column("window_start", Kind.TIME), *groups, *numbers, *more]


def _field_column(field: Field | None, name: str) -> Column:
    assert field is not None
    return Column(name, _KINDS[field.type], field.scale)


def _number_column(work: Work, place: int) -> Column:
    answer = work.choice.answers[place]
    measure = answer.measure
    if answer.over is not None or measure.kind == "avg":
        return Column(answer.name, Kind.DECIMAL, AVERAGE_DIGITS)
    if measure.kind in ("count", "unique"):
        return Column(answer.name, Kind.INTEGER)
    if measure.kind == "quantiles":
        return Column(answer.name, Kind.JSON)
    column = _field_column(work.choice.parts[answer.part].event_type.field(str(measure.field)), answer.name)
    # A sum of whole numbers may need more than 64 bits.
    return column._replace(kind=Kind.DECIMAL, scale=0) if _is_sum_of_integers(measure.kind, column) else column


def _is_sum_of_integers(kind: str, column: Column) -> bool:
    return kind == "sum" and column.kind is Kind.INTEGER
