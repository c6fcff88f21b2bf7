"""Durable, append-only, bounded: what is acknowledged is on the disk, and is read back exactly as it was.

Read `format` for the bytes, `pending` and `writer` for the way in, `recovery` for what follows a crash,
`segment_view` and `reader` for the way out. docs/reference/journal.md tells it for operators.
"""

from totalizer.journal.journal import Journal, JournalStats
from totalizer.journal.position import BEGINNING, Position, Record
from totalizer.journal.quarantine import Damage, quarantined
from totalizer.journal.reader import JournalReader
from totalizer.journal.spool import claim, journals_in, recover_idle

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
