"""A place in a catalog file: reads values there and raises errors that name file, key and reason."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from totalizer.catalog.quoting import NAME
from totalizer.errors import CatalogError

Kind = TypeVar("Kind", str, int, bool, dict[str, Any])

_WIRE = re.compile(r'[^"\\\x00-\x1f]{1,255}')
_SPAN = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_SPAN_S = {"m": 60, "h": 3600, "d": 86_400}
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", dict: "a table"}


class At:
    """A dotted path in a catalog file.

    Args:
        file: its name, for errors.
        path: the keys that lead there.
    """

    def __init__(self, file: str, *path: str) -> None:
        self.file, self.path = file, path

    def below(self, *names: str) -> At:
        """The place of a key of this table."""
        return At(self.file, *self.path, *names)

    def wrong(self, reason: str) -> CatalogError:
        """The error that says what is wrong here."""
        return CatalogError(self.file, ".".join(self.path) or "-", reason)

    def again(self, file: str) -> CatalogError:
        """The error that says what is declared here has been declared already."""
        return self.wrong(f"is declared in {file} already; choose another name")

    def table(self, value: Any, known: set[str] | None = None) -> dict[str, Any]:
        """`value`, which must be a table holding only known keys."""
        if not isinstance(value, dict):
            raise self.wrong(f"must be a table, not {value!r}")
        for key in value:
            if known is not None and key not in known:
                raise self.below(key).wrong(f"unknown key; known here: {', '.join(sorted(known))}")
        return value

    def get(self, table: dict[str, Any], key: str, kind: type[Kind], default: Kind | None = None) -> Kind:
        """`table[key]`, which must be of that type; with no default it must be there."""
        if key not in table:
            if default is None:
                raise self.below(key).wrong("is missing")
            return default
        value = table[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.below(key).wrong(f"must be {_WORDS[kind]}, not {value!r}")
        if isinstance(value, str) and "\0" in value:
            raise self.below(key).wrong("holds the character NUL, which PostgreSQL cannot store")
        return value

    def name(self, name: str) -> str:
        """`name`, which must be a plain identifier."""
        if not NAME.fullmatch(name):
            raise self.wrong(
                f"{name!r}: a name is lower-case letters, digits and _, starts with a letter, and has at most 48"
            )
        return name

    def wire(self, table: dict[str, Any], key: str, default: str) -> str:
        """`table[key]`, which must be usable as a key of sent JSON objects."""
        value = self.get(table, key, str, default)
        if not _WIRE.fullmatch(value):
            raise self.below(key).wrong(f'{value!r} must be 1 to 255 characters, without ", \\ and control characters')
        return value

    def strings(self, table: dict[str, Any], key: str) -> tuple[str, ...]:
        """`table[key]`, a list of different strings; empty when absent."""
        values = table.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) and "\0" not in value for value in values):
            raise self.below(key).wrong(f"must be a list of strings, not {values!r}")
        if len(set(values)) != len(values):
            raise self.below(key).wrong(f"names one thing twice: {values!r}")
        return tuple(values)

    def span_s(self, table: dict[str, Any], key: str) -> int:
        """`table[key]`, a length of time such as `30m`, `12h` or `90d`, in seconds."""
        text = self.get(table, key, str)
        found = _SPAN.fullmatch(text)
        if not found:
            raise self.below(key).wrong(
                f"must be a number of minutes, hours or days such as '30m', '12h' or '90d', not {text!r}"
            )
        return int(found[1]) * _SPAN_S[found[2]]
