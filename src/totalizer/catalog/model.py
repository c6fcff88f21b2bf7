"""What a catalog says once it has been checked: event types, their fields, and rollups over them."""

from __future__ import annotations

from enum import Enum

import msgspec

from totalizer.catalog.levels import BASE, DAY, LEVELS, Level
from totalizer.catalog.retention import Retention
from totalizer.prepared import prepared


class FieldType(Enum):
    """What a field holds; the value is what a catalog file writes."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    UUID = "uuid"
    JSON = "json"

    @property
    def column_type(self) -> str:
        """The PostgreSQL type of the column."""
        return _COLUMN_TYPES[self]

    @property
    def numeric(self) -> bool:
        """True if sums, minima and maxima of it make sense."""
        return self in (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL)

    @property
    def groupable(self) -> bool:
        """True if it may be a dimension of a rollup."""
        return self in (FieldType.TEXT, FieldType.INTEGER, FieldType.BOOLEAN, FieldType.UUID)


_COLUMN_TYPES = {
    FieldType.TEXT: "text",
    FieldType.INTEGER: "bigint",
    FieldType.NUMBER: "double precision",
    FieldType.DECIMAL: "numeric",
    FieldType.BOOLEAN: "boolean",
    FieldType.UUID: "uuid",
    FieldType.JSON: "jsonb",
}

#: Columns every event table has; no field may take their names.
FIXED_COLUMNS = ("organization_id", "id", "source", "external_id", "received_at", "stored_at")
#: Columns PostgreSQL keeps in every table for itself.
SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of an event type.

    Attributes:
        name: column name, and the key in a sent event unless `wire` gives another.
        type: what it holds.
        required: True if an event without it is refused.
        wire: key in sent events where it differs from the column's name (`userId`).
        minimum, maximum: bounds of a number, both included.
        length_min, length_max: bounds of a text, in characters.
        values: the only texts allowed, if any are listed.
        scale: digits after the point of a decimal, at most.
        description: for the documentation.
    """

    name: str
    type: FieldType
    required: bool = False
    wire: str | None = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    length_min: int = 0
    length_max: int = 1000
    values: tuple[str, ...] = ()
    scale: int = 6
    description: str = ""

    @property
    def key(self) -> str:
        """The key of this field in a sent event."""
        return self.wire or self.name


@prepared
class EventType(msgspec.Struct, frozen=True):
    """A kind of event.

    Attributes:
        name: table name, and the key of its events in a batch request.
        title: for people.
        route: single events are posted to `/api/metrics/<route>`.
        time_field: column that says when the event happened; when a sender leaves it out, it is when it was received.
        time_wire: its key in sent events.
        subject_field: the field that says who or what did it.
        partition: `day` or `month`: the length of one partition of the table.
        fields: in column order, without the time.
        keep_unknown: the JSON field that takes fields the declaration does not name; None to refuse them.
        past_max_s: how long ago an event may have happened, in seconds; None for any time since 1970.
        retention: how long its events and rollups are kept; None: as the settings say.
        file: the catalog file it comes from.
    """

    name: str
    title: str
    route: str
    time_field: str
    time_wire: str
    subject_field: str
    partition: str
    fields: tuple[Field, ...]
    file: str = ""
    keep_unknown: str | None = None
    past_max_s: int | None = None
    retention: Retention | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a rendered line, in order; `stored_at` is left to the database."""
        fixed = ("organization_id", self.time_field, "id", "source", "external_id", "received_at")
        return fixed + tuple(field.name for field in self.fields)

    def field(self, name: str) -> Field | None:
        """The field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)

    def by_key(self, key: str) -> Field | None:
        """The field with that key in sent events, or None."""
        return next((field for field in self.fields if field.key == key), None)


class Measure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One number of a rollup.

    Attributes:
        name: what it is called.
        kind: see `catalog.measures`.
        field: the field it is computed from; None for a count of events.
        quantiles: of kind `quantiles`: which, each from 0 to 1.
    """

    name: str
    kind: str
    field: str | None = None
    quantiles: tuple[float, ...] = ()


@prepared
class Rollup(msgspec.Struct, frozen=True):
    """Tables of totals over an event type, one for each grain.

    Attributes:
        name: prefix of its tables.
        title: for people.
        event_type: name of the event type it counts.
        dimensions: fields it is divided by.
        measures: the numbers it keeps.
        file: the catalog file it comes from.
        levels: suffixes of the grains it keeps. The default is what was kept before there were others: it is what a
            definition says that a database was given then.
        minutes_s: for how long minutes are kept, in seconds; None if they are not.
    """

    name: str
    title: str
    event_type: str
    dimensions: tuple[str, ...]
    measures: tuple[Measure, ...]
    file: str = ""
    levels: tuple[str, ...] = (BASE.suffix, DAY.suffix)
    minutes_s: int | None = None

    def table(self, level: Level) -> str:
        """Name of the table of one grain, in schema analytics."""
        return f"{self.name}_{level.suffix}"

    def keeps(self, level: Level) -> bool:
        """True if it has that grain's table."""
        return level.suffix in self.levels

    @property
    def kept(self) -> list[Level]:
        """The grains it keeps, each after the one it is made from."""
        return [level for level in LEVELS if self.keeps(level)]

    @property
    def base_table(self) -> str:
        """Name of the table of 15-minute buckets."""
        return self.table(BASE)

    @property
    def day_table(self) -> str:
        """Name of the table of local days."""
        return self.table(DAY)

    def measure(self, name: str) -> Measure | None:
        """The measure of that name, or None."""
        return next((measure for measure in self.measures if measure.name == name), None)


class Catalog(msgspec.Struct, frozen=True):
    """All event types and rollups, by name."""

    event_types: dict[str, EventType]
    rollups: dict[str, Rollup]

    def rollups_of(self, event_type: str) -> list[Rollup]:
        """The rollups over one event type, in order of declaration."""
        return [rollup for rollup in self.rollups.values() if rollup.event_type == event_type]
