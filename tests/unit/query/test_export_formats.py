"""Values of every kind in each format, as readers of it have them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.query.exports.columns import Column, Kind
from totalizer.query.exports.formats import CsvFormat, Format, JsonFormat, NdjsonFormat, safe_cell
from totalizer.query.exports.service import Begun, Page

COLUMNS = [Column(kind.value, kind) for kind in Kind]
TIME = datetime(2025, 4, 1, 5, tzinfo=UTC)
VALUES = {
    Kind.TEXT: 'it\'s, "so"\n', Kind.TIME: TIME, Kind.INTEGER: -7, Kind.NUMBER: 1e-7, Kind.DECIMAL: Decimal("1E+3"),
    Kind.BOOLEAN: True, Kind.UUID: "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", Kind.JSON: '{"a":1.10,"b":"x, y"}',
}  # fmt: skip
ROWS = [tuple(VALUES[column.kind] for column in COLUMNS), tuple(None for _ in COLUMNS)]


def written(writer: Format, columns: list[Column], rows: list[tuple[Any, ...]]) -> bytes:
    pieces = [
        writer.begin(Begun("x", columns, {"as_of": "now"})),
        writer.page(Page(rows)),
        writer.page(Page([])),
        writer.end(),
    ]
    return b"".join(pieces)


def test_csv_has_every_kind() -> None:
    data = written(CsvFormat(), COLUMNS, ROWS).decode()
    head, first, second = csv.reader(io.StringIO(data, newline=""))
    assert head == [kind.value for kind in Kind]
    assert dict(zip(head, first, strict=True)) == {
        "text": 'it\'s, "so"\n', "time": "2025-04-01T05:00:00Z", "integer": "-7", "number": "1e-07", "decimal": "1000",
        "boolean": "true", "uuid": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "json": '{"a":1.10,"b":"x, y"}',
    }  # fmt: skip
    assert second == [""] * len(COLUMNS)


@pytest.mark.parametrize("writer", [JsonFormat(), NdjsonFormat()])
def test_json_has_every_kind(writer: Any) -> None:
    data = written(writer, COLUMNS, ROWS)
    first, second = json.loads(data)["data"] if isinstance(writer, JsonFormat) else map(json.loads, data.splitlines())
    assert first == {
        "text": 'it\'s, "so"\n', "time": "2025-04-01T05:00:00Z", "integer": -7, "number": 1e-7, "decimal": 1000,
        "boolean": True, "uuid": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "json": {"a": 1.10, "b": "x, y"},
    }  # fmt: skip
    assert b'{"a":1.10,' in data, "every digit of a JSON value stays"
    assert second == dict.fromkeys(kind.value for kind in Kind)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_csv_is_what_pythons_own_writer_makes_of_it(rows: list[tuple[str, str]]) -> None:
    columns = [Column("a, b", Kind.TEXT), Column("=c", Kind.TEXT)]
    wanted = io.StringIO(newline="")
    csv.writer(wanted).writerows([("a, b", "'=c"), *([safe_cell(text) for text in row] for row in rows)])
    assert written(CsvFormat(), columns, list(rows)) == wanted.getvalue().encode()
