"""What a live window keeps of a rollup: its groups, its sums, and how both are read from a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from totalizer.catalog import EventType, Field, FieldType, Measure, Rollup
from totalizer.event import TIME
from totalizer.store.ddl import measure_states

#: The kinds of measure that live windows have.
KINDS = ("count", "sum", "min", "max", "avg")
#: More digits than a sum can have; Python's own context keeps 28.
EXACT = Context(prec=2000)
#: Values of a dimension whose texts are remembered.
VALUES_REMEMBERED_MAX = 20_000

#: Values of the dimensions, in their order.
Group = tuple[Any, ...]
#: One value for each of `Shape.parts`.
State = list[Any]
#: Group → second or slot → state.
Cells = dict[Group, dict[int, State]]
#: Stands for all groups beyond those kept apart.
OTHER: Group = ("\0other",)


class Part(NamedTuple):
    """One number of a state.

    Attributes:
        column: of the rollup's tables.
        kind: `add`, `min` or `max`: how two of them become one.
        field: the field it is made of; None: of the event itself.
        counts: True if it counts the field's values.
        from_events: SQL that makes it from events.
    """

    column: str
    kind: str
    field: str | None
    counts: bool
    from_events: str


class Contribution(NamedTuple):
    """What one line adds: to which second, which group, and what."""

    second: int
    group: Group
    state: State


Reader = Callable[[bytes], Contribution]


class Shape:
    """What live windows over a rollup keep.

    Args:
        rollup: the rollup.
        event_type: that it counts.

    Attributes:
        measures: those that live windows have.
        parts: what a state holds, in order.
    """

    def __init__(self, rollup: Rollup, event_type: EventType) -> None:
        self.rollup, self.event_type = rollup, event_type
        self.measures = tuple(measure for measure in rollup.measures if measure.kind in KINDS)
        self.parts = tuple(part for measure in self.measures for part in _parts(measure, event_type))
        self._starts: dict[str, int] = {}
        for measure in self.measures:
            self._starts[measure.name] = sum(len(_parts(m, event_type)) for m in self.measures[: len(self._starts)])
        self._adding = all(part.kind == "add" for part in self.parts)
        self._readers: dict[tuple[str, ...], Reader] = {}

    def reader(self, columns: tuple[str, ...]) -> Reader:
        """Reads lines with these columns. It raises ValueError, IndexError or ArithmeticError for what is no such line.

        Raises:
            ValueError: the columns are not those of this event type.
        """
        if columns not in self._readers:
            self._readers[columns] = self._make_reader(columns)
        return self._readers[columns]

    def merge(self, into: State, state: State) -> None:
        """Add a state to another, which is changed."""
        for at, part in enumerate(self.parts):
            value = state[at]
            if value is None:
                continue
            old = into[at]
            if old is None:
                into[at] = value
            elif part.kind == "add":
                into[at] = old + value if type(old) is type(value) is int else EXACT.add(Decimal(old), Decimal(value))
            else:
                into[at] = min(old, value) if part.kind == "min" else max(old, value)

    def shown(self, measure: Measure, state: State) -> Any:
        """What a reader gets of a measure: as the query service shows it."""
        at = self._starts[measure.name]
        if measure.kind != "avg":
            return plain(state[at])
        total, count = state[at], state[at + 1]
        if not count:
            return None
        return plain(EXACT.divide(Decimal(total), Decimal(count)).quantize(Decimal("0.000001"), context=EXACT))

    def group_of(self, values: Sequence[Any]) -> Group:
        """The group with these values, as the database has them."""
        return tuple(str(value) if isinstance(value, UUID) else value for value in values)

    def state_of(self, values: Sequence[Any]) -> State:
        """The state with these values, as the database has them."""
        return [
            _whole(value) if part.kind == "add" and isinstance(value, Decimal) else value
            for part, value in zip(self.parts, values, strict=True)
        ]

    def field(self, name: str) -> Field:
        """The field of that name, which the event type has."""
        field = self.event_type.field(name)
        assert field is not None
        return field

    def _make_reader(self, columns: tuple[str, ...]) -> Reader:
        dimensions = [(columns.index(name), _Values(self.field(name).type)) for name in self.rollup.dimensions]
        numbers = [
            None if part.field is None else (columns.index(part.field), _number(part, self.field(part.field).type))
            for part in self.parts
        ]
        time, width = columns.index(self.event_type.time_field), len(columns)

        def read(line: bytes) -> Contribution:
            fields = line[:-1].split(b"\t")
            if len(fields) != width or len(fields[time]) != TIME.stop - TIME.start:
                raise ValueError("no line of these columns")
            group = tuple([values[fields[at]] for at, values in dimensions])
            state = [1 if number is None else number[1](fields[number[0]]) for number in numbers]
            return Contribution(second_of(fields[time][:19]), group, state)

        return read


def plain(value: Any) -> Any:
    """A decimal as a whole number where it is one, else without trailing zeros; anything else as it is."""
    if not isinstance(value, Decimal):
        return value
    whole = value.to_integral_value(context=EXACT)
    return int(whole) if whole == value else value.normalize(EXACT)


@lru_cache(maxsize=8192)
def second_of(text: bytes) -> int:
    """Seconds since 1970 of `2025-09-05T10:00:00`, UTC."""
    return int(datetime.fromisoformat(text.decode() + "+00:00").timestamp())


class _Values(dict[bytes, Any]):
    """The values of a dimension by their text in a line, worked out once."""

    def __init__(self, kind: FieldType) -> None:
        self._kind = kind

    def __missing__(self, text: bytes) -> Any:
        if len(self) >= VALUES_REMEMBERED_MAX:
            self.clear()
        value = self[text] = _value(self._kind, text)
        return value


def _value(kind: FieldType, text: bytes) -> Any:
    if text == b"\\N":
        return None
    if kind is FieldType.INTEGER:
        return int(text)
    if kind is FieldType.BOOLEAN:
        return text == b"t"
    if kind is FieldType.UUID:
        return str(UUID(text.decode()))
    return unescaped(text).decode()


def unescaped(text: bytes) -> bytes:
    """A text of a line without COPY's escapes, as the collector writes them."""
    if b"\\" not in text:
        return text
    pieces = [
        piece.replace(b"\\n", b"\n").replace(b"\\t", b"\t").replace(b"\\r", b"\r") for piece in text.split(b"\\\\")
    ]
    return b"\\".join(pieces)


def _parts(measure: Measure, event_type: EventType) -> list[Part]:
    columns = measure_states(measure, event_type)
    kind = measure.kind if measure.kind in ("min", "max") else "add"
    return [
        Part(state.column, kind, measure.field, measure.kind == "avg" and number == 1, state.from_events)
        for number, state in enumerate(columns)
    ]


def _number(part: Part, kind: FieldType) -> Callable[[bytes], Any]:
    """Reads what a field adds to a part."""
    if part.counts:
        return lambda text: 0 if text == b"\\N" else 1
    if kind is FieldType.INTEGER:
        return lambda text: None if text == b"\\N" else int(text)
    if kind is FieldType.DECIMAL:
        return lambda text: None if text == b"\\N" else Decimal(text.decode())
    if part.kind == "add":
        # PostgreSQL turns a floating-point number into a decimal one of 15 digits before it sums.
        return lambda text: None if text == b"\\N" else Decimal(f"{float(text):.15g}")
    return lambda text: None if text == b"\\N" else float(text)


def _whole(value: Decimal) -> Any:
    return int(value) if value == value.to_integral_value(context=EXACT) else value
