"""Pages as a Parquet file: https://parquet.apache.org/docs/file-format/"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow
import pyarrow.parquet

from totalizer.query.exports.columns import Column, Kind
from totalizer.query.exports.formats import json_text
from totalizer.query.exports.service import Begun, Page

#: Rows written together: a row group of the file, and all that is held of it.
GROUP_ROWS = 20_000
#: The most digits that readers of Parquet agree on.
DECIMAL_DIGITS = 38


class _Sink:
    """A file that is taken away as it is written."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class ParquetFormat:
    """A file of row groups. Its footer, which a reader needs first, comes last: a file that breaks off is none."""

    media_type = "application/vnd.apache.parquet"

    def __init__(self) -> None:
        self._sink = _Sink()
        self._rows = 0
        self._next: str | None = None
        self._waiting: list[pyarrow.RecordBatch] = []
        self._waiting_rows = 0

    def begin(self, begun: Begun) -> bytes:
        self._columns, self._told = begun.columns, begun.about
        self._schema = pyarrow.schema([(column.name, _type(column)) for column in begun.columns])
        self._writer = pyarrow.parquet.ParquetWriter(
            pyarrow.PythonFile(self._sink, mode="w"), self._schema, compression="zstd", store_decimal_as_integer=False
        )
        return self._sink.taken()

    def page(self, page: Page) -> bytes:
        self._rows += len(page.rows)
        self._next = page.next_cursor
        if page.rows:
            values = zip(*page.rows, strict=True)
            arrays = [_array(column, list(each)) for column, each in zip(self._columns, values, strict=True)]
            self._waiting.append(pyarrow.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._waiting_rows += len(page.rows)
        if self._waiting_rows >= GROUP_ROWS:
            self._write()
        return self._sink.taken()

    def end(self) -> bytes:
        self._write()
        told = {"rows": self._rows, "next_cursor": self._next, **self._told}
        self._writer.add_key_value_metadata(
            {f"totalizer.{name}": _told(value) for name, value in told.items() if value is not None}
        )
        self._writer.close()
        return self._sink.taken()

    def broken(self) -> bytes:
        return b""

    def _write(self) -> None:
        if self._waiting:
            self._writer.write_table(pyarrow.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._waiting_rows = [], 0


def _type(column: Column) -> Any:
    match column.kind:
        case Kind.TIME:
            return pyarrow.timestamp("us", tz="UTC")
        case Kind.INTEGER:
            return pyarrow.int64()
        case Kind.NUMBER:
            return pyarrow.float64()
        case Kind.BOOLEAN:
            return pyarrow.bool_()
        case Kind.DECIMAL:
            return pyarrow.decimal128(DECIMAL_DIGITS, column.scale)
        case _:
            return pyarrow.string()


def _array(column: Column, values: list[Any]) -> Any:
    match column.kind:
        case Kind.TIME:
            values = [datetime.fromisoformat(value) if isinstance(value, str) else value for value in values]
        case Kind.DECIMAL:
            values = [None if value is None else _decimal(value, column.scale) for value in values]
        case Kind.NUMBER:
            values = [None if value is None else float(value) for value in values]
        case Kind.JSON:
            values = [None if value is None else json_text(value) for value in values]
    return pyarrow.array(values, type=_type(column))


def _decimal(value: Decimal | int, scale: int) -> Decimal | None:
    """Without trailing zeros, which would count as digits after the point."""
    number = Decimal(value)
    if not number.is_finite():
        return None
    return number.normalize() if -int(number.as_tuple().exponent) > scale else number


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)
