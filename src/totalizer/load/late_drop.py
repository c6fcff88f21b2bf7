"""Late events dropped: written to a file first, so that nothing is lost."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg import Connection

from totalizer.load.copy_text import values_of
from totalizer.load.drop_file import DropFile
from totalizer.store import audit, fates, late
from totalizer.store.fates import Account, Fate, Fates
from totalizer.store.late import LateEvent

#: Events written, synced and deleted in one transaction.
BATCH_EVENTS = 1000


def late_record(event: LateEvent) -> dict[str, Any]:
    """A late event as JSON can hold it: `line` is base64 of its bytes, `values` what its columns would have got."""
    record = event._asdict()
    record["line"] = base64.b64encode(event.line).decode()
    return {**record, "values": values_of(event.columns, event.line)}


def drop_late(connection: Connection[Any], ids: Sequence[int], file: Path) -> Iterator[int]:
    """Move late events into a new file of JSON lines, and count them as dropped.

    An event is deleted after its line in the file is on disk. Whoever is killed between leaves it in both places, and
    not in none.

    Args:
        connection: as writer, autocommit.
        ids: their numbers. Those that are not there any more, or were added to the rollups, are passed over.
        file: made, readable by this user only; its folder must exist.

    Yields:
        How many were dropped by each transaction.

    Raises:
        OperationError: the file exists already, or the disk refuses; events not reported as dropped are still there.
        psycopg.Error: the database is to blame; so it is then, too.
    """
    with DropFile(file) as kept:
        for start in range(0, len(ids), BATCH_EVENTS):
            with connection.transaction():
                events = late.lock_unapplied(connection, ids[start : start + BATCH_EVENTS])
                kept.append([late_record(event) for event in events])
                late.delete_late(connection, [event.id for event in events])
                audit.note_dropped(connection, "late.drop", events)
                fates.add_ledger(connection, _dropped(events))
            yield len(events)


def _dropped(events: Sequence[LateEvent]) -> Fates:
    found: Fates = {}
    for event in events:
        account = Account(event.organization_id, event.event_type, event.received_hour.isoformat())
        found[account] = found.get(account, Fate()) + Fate(loaded=-1, dropped=1)
    return found
