"""Types that are read from JSON or from plain values, made ready where they are defined."""

from __future__ import annotations

from typing import TypeVar

import msgspec

_Kind = TypeVar("_Kind", bound=type)


def prepared(kind: _Kind) -> _Kind:
    """Decorate a struct that `msgspec.convert` or `decode(…, type=…)` will make.

    msgspec looks at a type's fields when it meets the type for the first time. If two threads do that at once, one of
    them is handed a type that is half known, and the process ends by SIGSEGV (msgspec 0.22). A module is imported by
    one thread alone. Fields may only be of types that stand before it.
    """
    msgspec.json.Decoder(kind)
    return kind
