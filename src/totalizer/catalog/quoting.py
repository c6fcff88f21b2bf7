"""SQL identifiers. Catalog names are checked against NAME, so quoting them is safe; that is asserted here too."""

from __future__ import annotations

import re

#: 48 characters leave room for suffixes within PostgreSQL's 63.
NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}")


def quoted(name: str) -> str:
    """`name` as a quoted SQL identifier.

    Raises:
        ValueError: it is not a plain lower-case name.
    """
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain lower-case SQL name")
    return f'"{name}"'


def quoted_list(names: tuple[str, ...] | list[str]) -> str:
    """Several names, quoted, separated by commas."""
    return ", ".join(quoted(name) for name in names)
