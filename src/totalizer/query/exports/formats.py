"""Pages as bytes: JSON, lines of JSON, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from totalizer.query.exports.columns import Column, Kind
from totalizer.query.exports.service import Begun, Page

_encoder = msgspec.json.Encoder(decimal_format="number")
#: What makes a spreadsheet take a cell for a formula when it begins with it.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")

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
        self._cells = [_cell_of(column, self._text) for column in begun.columns]
        return _lines([[self._text(column.name) for column in begun.columns]])

    def page(self, page: Page) -> bytes:
        cells = self._cells
        return _lines(
            ["" if value is None else cell(value) for cell, value in zip(cells, row, strict=True)] for row in page.rows
        )

    def end(self) -> bytes:
        return b""

    def broken(self) -> bytes:
        return b'"' + BROKEN


def safe_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: with an apostrophe before it, if it would be."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def objects_of(columns: Sequence[Column]) -> Callable[[Page], list[dict[str, Any]]]:
    """What makes objects of a page's rows."""
    names = [column.name for column in columns]
    special = [
        (place, _raw if column.kind is Kind.JSON else _finite)
        for place, column in enumerate(columns)
        if column.kind in (Kind.JSON, Kind.DECIMAL)
    ]

    def objects(page: Page) -> list[dict[str, Any]]:
        if page.objects is not None:
            return page.objects
        found = []
        for row in page.rows:
            shown = dict(zip(names, row, strict=True))
            for place, change in special:
                shown[names[place]] = change(row[place])
            found.append(shown)
        return found

    return objects


def _raw(value: Any) -> Any:
    return None if value is None else msgspec.Raw(value.encode())


def _finite(value: Any) -> Any:
    """JSON has no other numbers."""
    return value if value is None or value.is_finite() else None


def _lines(rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell_of(column: Column, text: Callable[[str], str]) -> Callable[[Any], str]:
    match column.kind:
        case Kind.TEXT:
            return text
        case Kind.TIME:
            return time_text
        case Kind.BOOLEAN:
            return _lower
        case Kind.JSON:
            return json_text
        case _:
            return _number


def json_text(value: Any) -> str:
    """A value of a JSON column as text."""
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def time_text(value: datetime | str) -> str:
    """A time as RFC 3339 has it."""
    return value if isinstance(value, str) else value.isoformat().replace("+00:00", "Z")


def _number(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _lower(value: bool) -> str:
    return str(value).lower()


def _as_it_is(text: str) -> str:
    return text
