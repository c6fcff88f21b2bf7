"""The elements of one large JSON array, one at a time, found by counting brackets."""

from __future__ import annotations

import re
from collections.abc import Iterable

from totalizer.ops.importers.reading import KEPT_BYTES, LINE_BYTES_MAX
from totalizer.ops.importers.source import Line

_OUTSIDE = re.compile(rb'["\[\]{},]')
_WITHIN_STRING = re.compile(rb'"|\\.?', re.DOTALL)


class ArraySplitter:
    """Elements of an array whose text begins with `[`, white space aside. Contract: `reading.Splitter`."""

    def __init__(self) -> None:
        self._number = 0
        self._element = bytearray()
        self._cut = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._opened = False
        self._closed = False

    def feed(self, chunk: bytes) -> Iterable[Line]:
        start = position = 0
        if not self._opened:
            if (start := chunk.find(b"[") + 1) == 0:
                return
            position, self._opened = start, True
        if self._escaped and chunk:
            position, self._escaped = position + 1, False
        while not self._closed:
            match = (_WITHIN_STRING if self._in_string else _OUTSIDE).search(chunk, position)
            if match is None:
                break
            position = match.end()
            if self._ends_element(match.group(), position == len(chunk)):
                self._keep(chunk[start : position - 1])
                start = position
                yield from self._finish(last=match.group() == b"]")
        self._keep(chunk[start:])

    def end(self, damage: str | None = None) -> Iterable[Line]:
        if damage is None and not self._closed:
            damage = "the array ends within or after this element, without ]"
        if damage is None and self._element.strip():
            damage = "there is text after the end of the array"
        if damage is not None:
            yield Line(self._number + 1, bytes(self._element[:KEPT_BYTES]).strip(), damage, whole=False)

    def _ends_element(self, token: bytes, at_end: bool) -> bool:
        """Follow one token; True if it is the comma or bracket after an element of the array itself."""
        if token == b'"':
            self._in_string = not self._in_string
        elif token.startswith(b"\\"):
            self._escaped = at_end and len(token) == 1
        elif token in b"[{":
            self._depth += 1
        elif self._depth == 0:
            return token in b",]"
        elif token in b"]}":
            self._depth -= 1
        return False

    def _keep(self, part: bytes) -> None:
        self._element += part[: LINE_BYTES_MAX + 1 - len(self._element)]
        self._cut = self._cut or len(self._element) > LINE_BYTES_MAX

    def _finish(self, last: bool) -> Iterable[Line]:
        raw, cut = bytes(self._element).strip(), self._cut
        self._element.clear()
        self._cut, self._closed = False, last
        if last and not raw and self._number == 0:
            return
        self._number += 1
        if cut:
            yield Line(self._number, raw[:KEPT_BYTES], f"it is longer than {LINE_BYTES_MAX} bytes")
        else:
            yield Line(self._number, raw)
