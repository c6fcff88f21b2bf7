"""Entries on the command line, in a file, or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import msgspec

from totalizer.errors import OperationError

#: The path that means standard input.
STDIN = "-"
#: Characters of a wrong line shown in a message.
_SHOWN_MAX = 80


def read_entries(path: str) -> Iterator[dict[str, Any]]:
    """The entries in a file: one JSON object a line, or one JSON array, or one object with a list `entries`.

    Lines are read one at a time; an array is read whole.

    Args:
        path: of the file; `-` for standard input.

    Raises:
        OperationError: it cannot be read, or something in it is no object; names the line or the place.
    """
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb") as file:
            yield from _entries(path, file)
    except OSError as error:
        raise OperationError(f"{path} cannot be read: {error.strerror or error}") from error


def _entries(path: str, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    first = next((line for line in file if line.strip()), b"")
    if first.lstrip().startswith(b"["):
        return _objects(path, _decoded(path, first + file.read()))
    try:
        head = msgspec.json.decode(first) if first else {"entries": []}
    except msgspec.DecodeError:  # an object over several lines, or no JSON at all
        head = _decoded(path, first + file.read())
    if isinstance(head, dict) and isinstance(head.get("entries"), list):
        return _objects(path, head["entries"])
    return _objects(path, _lines(path, head, file))


def _lines(path: str, first: Any, file: IO[bytes]) -> Iterator[Any]:
    yield first
    for line in file:
        if line.strip():
            yield _decoded(path, line)


def _objects(path: str, found: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for index, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise OperationError(f"{path}: entry {index} is no JSON object: {repr(entry)[:_SHOWN_MAX]}")
        yield entry


def _decoded(path: str, data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = data[:_SHOWN_MAX].decode(errors="replace")
        raise OperationError(f"{path}: {shown!r} is no JSON: {error}") from error
