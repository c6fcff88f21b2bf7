"""Durable, append-only, bounded: what is acknowledged is on the disk, and is read back exactly as it was.

Read `format` for the bytes, `pending` and `writer` for the way in, `recovery` for what follows a crash,
`segment_view` and `reader` for the way out. docs/reference/journal.md tells it for operators.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totalizer.journal.journal import Journal, JournalStats
    from totalizer.journal.position import BEGINNING, Position, Record
    from totalizer.journal.quarantine import Damage, quarantined
    from totalizer.journal.reader import JournalReader
    from totalizer.journal.spool import claim, journals_in, recover_idle

#: Names by the module they are in, which is imported when they are first used: of a journal that is not opened, the
#: batching library needs the calls of the disk alone.
_HOMES = {
    "BEGINNING": "position",
    "Damage": "quarantine",
    "Journal": "journal",
    "JournalReader": "reader",
    "JournalStats": "journal",
    "Position": "position",
    "Record": "position",
    "claim": "spool",
    "journals_in": "spool",
    "quarantined": "quarantine",
    "recover_idle": "spool",
}

__all__ = [
    "BEGINNING",
    "Damage",
    "Journal",
    "JournalReader",
    "JournalStats",
    "Position",
    "Record",
    "claim",
    "journals_in",
    "quarantined",
    "recover_idle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
