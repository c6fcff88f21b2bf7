"""Reading a line of PostgreSQL's COPY text format back into values.

Format: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: A backslash and what it stands with: up to three octal digits, x and up to two hexadecimal ones, any one byte.
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|.)", re.DOTALL)
_CONTROLS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
NULL = b"\\N"


def values_of(columns: Sequence[str], line: bytes) -> dict[str, str | None] | None:
    """What each column would have got, as text; None where the line has another number of values than of columns.

    Bytes that are not UTF-8 are shown as `\\xhh`.

    Args:
        columns: names, in the order of the line.
        line: with or without its newline.
    """
    fields = line.removesuffix(b"\n").split(b"\t")
    if len(fields) != len(columns):
        return None
    return {column: _value(field) for column, field in zip(columns, fields, strict=True)}


def id_of(line: bytes) -> str:
    """What an event's sender called it, else its stored id; empty if the line is too short to tell."""
    fields = line.split(b"\t", 5)
    if len(fields) < 5:
        return ""
    text = _value(fields[4]) or _value(fields[2]) or ""
    # Of a line that the collector has not made.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _value(field: bytes) -> str | None:
    if field == NULL:
        return None
    return _ESCAPED.sub(lambda match: _byte(match[1]), field).decode("utf-8", "backslashreplace")


def _byte(code: bytes) -> bytes:
    if code[:1].isdigit() and code[:1] < b"8":
        return bytes([int(code, 8) & 0xFF])
    if len(code) > 1:
        return bytes([int(code[1:], 16)])
    return _CONTROLS.get(code, code)
