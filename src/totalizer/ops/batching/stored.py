"""Holding batch files against the database: every entry is stored once, as it was batched, or not imported yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalizer.clock import utc_datetime
from totalizer.edge.batch import Entry, decode_batch_file
from totalizer.edge.event_of import EVENT_TYPE
from totalizer.edge.integrity import Finding, Level
from totalizer.event import event_uuid

if TYPE_CHECKING:
    from psycopg import Connection

#: Entries of one query.
ENTRIES_MAX = 1000
#: Ids named in a finding; the rest is counted.
NAMED_MAX = 3

# The time is that of the entry, so that only few partitions are looked at.
_QUERY = f"""
SELECT id::text, organization_id::text, user_id, action, (extract(epoch FROM occurred_at) * 1000)::bigint
FROM events.{EVENT_TYPE} WHERE occurred_at = ANY(%s) AND id = ANY(%s::uuid[])
"""


@dataclass
class Tally:
    """What was looked up.

    Attributes:
        entries: in batch files that can be read.
        stored: of these, found in the database.
    """

    entries: int = 0
    stored: int = 0


def stored_findings(connection: Connection[Any], path: Path, tally: Tally) -> Iterator[Finding]:
    """What is wrong between a batch file that can be read and the database.

    Args:
        connection: as the refresher role, who may read all organisations' events.
        path: of the file.
        tally: counted up.
    """
    entries = decode_batch_file(path.read_bytes(), path.name).entries
    tally.entries += len(entries)
    differing, several = [], []
    for begin in range(0, len(entries), ENTRIES_MAX):
        chosen = entries[begin : begin + ENTRIES_MAX]
        rows = _rows(connection, chosen)
        for entry in chosen:
            found = rows.get(_stored_id(entry), [])
            tally.stored += bool(found)
            if len(found) > 1:
                several.append(str(entry["id"]))
            expected = (entry.get("userId"), entry.get("action"), entry.get("timestamp"))
            if found and all(row[1:] != expected for row in found):
                differing.append(str(entry["id"]))
    yield from _named(Level.PROBLEM, differing, "stored with another user or action")
    # Whose files these are is not known here, and two organisations may call their entries the same.
    yield from _named(Level.NOTE, several, "stored for more than one organisation: were they sent with several keys?")


def balance_findings(connection: Connection[Any]) -> Iterator[tuple[str, Finding]]:
    """What `totalizer verify` finds wrong: the organisation and event type, and the finding."""
    from totalizer.rollup.verify import verify

    for balance in verify(connection):
        if not balance.exact:
            text = (
                f"loaded {balance.ledger}, stored {balance.events}; rollups that differ: {balance.mismatches or 'none'}"
            )
            yield f"{balance.organization}: {balance.event_type}", Finding(Level.PROBLEM, text)


def _rows(connection: Connection[Any], entries: Iterable[Entry]) -> dict[str, list[tuple[Any, ...]]]:
    """Rows by stored id: organisation, user, action, milliseconds."""
    times, ids = [], []
    for entry in entries:
        if isinstance(entry.get("timestamp"), int):
            times.append(utc_datetime(entry["timestamp"] * 1_000_000))
            ids.append(_stored_id(entry))
    found: dict[str, list[tuple[Any, ...]]] = {}
    for stored_id, *row in connection.execute(_QUERY.encode(), (times, ids)):
        found.setdefault(stored_id, []).append(tuple(row))
    return found


def _stored_id(entry: Entry) -> str:
    return event_uuid("", str(entry["id"]))


def _named(level: Level, ids: list[str], what: str) -> Iterator[Finding]:
    if ids:
        more = ", …" if len(ids) > NAMED_MAX else ""
        yield Finding(level, f"{len(ids)} entries are {what} ({', '.join(ids[:NAMED_MAX])}{more})")
