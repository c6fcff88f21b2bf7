"""Pages as bytes: JSON, lines of JSON, CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import starmap
from typing import Any, Protocol

import msgspec

from totalizer.query.exports.columns import Column, Kind
from totalizer.query.exports.service import Begun, Page

_encoder = msgspec.json.Encoder(decimal_format="number")
#: Of one column.
Values = Sequence[Any]
#: What makes a spreadsheet take a cell for a formula when it begins with it.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_QUOTE = '"'
_needs_quotes = re.compile('[,"\r\n]').search

#: What stands at the end of an export that broke off, in quotes that do not end.
BROKEN = b"the export broke off here"


class Format(Protocol):
    """Writes one export. Its methods may take long, and touch nothing but the writer."""

    media_type: str

    def begin(self, begun: Begun) -> bytes:
        """What stands before the first row."""
        ...

    def page(self, page: Page) -> bytes:
        """Some rows; may be empty, and come with a later page."""
        ...

    def end(self) -> bytes:
        """What stands after the last row."""
        ...

    def broken(self) -> bytes:
        """What stands where an export broke off: no reader may take it for whole."""
        ...


class NdjsonFormat:
    """One object a line.

    Args:
        trailer: True to end with a line that says where to go on.
    """

    media_type = "application/x-ndjson"

    def __init__(self, *, trailer: bool = False) -> None:
        self._trailer, self._rows = trailer, 0
        self._next: str | None = None
        self._told: dict[str, Any] = {}

    def begin(self, begun: Begun) -> bytes:
        self._objects, self._told = objects_of(begun.columns), begun.about
        return b""

    def page(self, page: Page) -> bytes:
        self._rows += len(page.rows)
        self._next = page.next_cursor
        return _encoder.encode_lines(self._objects(page))

    def end(self) -> bytes:
        if not self._trailer:
            return b""
        return _encoder.encode({"rows": self._rows, "next_cursor": self._next, **self._told}) + b"\n"

    def broken(self) -> bytes:
        return b'{"' + BROKEN


class JsonFormat:
    """One object: what the export is of, `data`, and at the end `rows` and `next_cursor`."""

    media_type = "application/json"

    def __init__(self) -> None:
        self._rows = 0
        self._next: str | None = None

    def begin(self, begun: Begun) -> bytes:
        self._objects = objects_of(begun.columns)
        return _encoder.encode(begun.about)[:-1] + b',"data":['

    def page(self, page: Page) -> bytes:
        first = not self._rows
        self._rows += len(page.rows)
        self._next = page.next_cursor
        if not page.rows:
            return b""
        return (b"\n" if first else b",\n") + b",\n".join(map(_encoder.encode, self._objects(page)))

    def end(self) -> bytes:
        return b"\n]," + _encoder.encode({"rows": self._rows, "next_cursor": self._next})[1:]

    def broken(self) -> bytes:
        return b""


class CsvFormat:
    """A header and a line for each row, as RFC 4180 has it.

    Args:
        raw: True to write texts as they are, also those that a spreadsheet would run as formulas.
    """

    media_type = "text/csv; charset=utf-8; header=present"

    def __init__(self, *, raw: bool = False) -> None:
        self._text = _as_it_is if raw else safe_cell

    def begin(self, begun: Begun) -> bytes:
        self._cells = [_cells_of(column, self._text) for column in begun.columns]
        return _lines([[_quoted(self._text(column.name))] for column in begun.columns])

    def page(self, page: Page) -> bytes:
        columns = zip(*page.rows, strict=True)
        return _lines([cells(values) for cells, values in zip(self._cells, columns, strict=False)])

    def end(self) -> bytes:
        return b""

    def broken(self) -> bytes:
        return b'"' + BROKEN


def safe_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: with an apostrophe before it, if it would be."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def objects_of(columns: Sequence[Column]) -> Callable[[Page], Sequence[Any]]:
    """What makes objects of a page's rows."""
    # Half the time of dicts: to make, and to write.
    fields = [(f"c{place}", Any) for place in range(len(columns))]
    names = {field: column.name for (field, _), column in zip(fields, columns, strict=True)}
    record = msgspec.defstruct("Row", fields, rename=names, gc=False)
    special = {
        place: _raw if column.kind is Kind.JSON else _finite
        for place, column in enumerate(columns)
        if column.kind in (Kind.JSON, Kind.DECIMAL)
    }

    def objects(page: Page) -> Sequence[Any]:
        if page.objects is not None:
            return page.objects
        values: list[Iterable[Any]] = list(zip(*page.rows, strict=True))
        for place, change in special.items() if values else ():
            values[place] = map(change, values[place])
        return list(starmap(record, zip(*values, strict=True)))

    return objects


def _raw(value: Any) -> Any:
    return None if value is None else msgspec.Raw(value.encode())


def _finite(value: Any) -> Any:
    """JSON has no other numbers."""
    return value if value is None or value.is_finite() else None


def _lines(columns: Iterable[Iterable[str]]) -> bytes:
    """Lines of columns. Python's own writer takes three times as long for them."""
    return "".join([",".join(row) + "\r\n" for row in zip(*columns, strict=True)]).encode()


def _cells_of(column: Column, text: Callable[[str], str]) -> Callable[[Values], list[str]]:
    """What makes cells of a column's values: of all at once, since a call for each takes most of an export's time."""
    match column.kind:
        case Kind.TEXT:
            return lambda values: [_quoted(text(value)) if value else "" for value in values]
        case Kind.JSON:
            return lambda values: ["" if value is None else _quoted(json_text(value)) for value in values]
        case Kind.TIME:
            return lambda values: ["" if value is None else value for value in msgspec.to_builtins(values)]
        case Kind.BOOLEAN:
            return lambda values: ["" if value is None else str(value).lower() for value in values]
        case _:
            return lambda values: ["" if value is None else _number(value) for value in values]


def _quoted(text: str) -> str:
    return f'"{text.replace(_QUOTE, _QUOTE * 2)}"' if _needs_quotes(text) else text


def _number(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def json_text(value: Any) -> str:
    """A value of a JSON column as text."""
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def _as_it_is(text: str) -> str:
    return text
