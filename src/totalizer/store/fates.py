"""SQL of what became of events: the ledger, the fates of single events, dead letters written, gaps in a journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from psycopg import Connection

from totalizer.store.loading import Target

Rows = Connection[Any]


class Fate(NamedTuple):
    """What became of events of one organisation and type.

    Attributes:
        loaded: stored.
        duplicate: stored before.
        conflict: stored before with other contents.
        dead_lettered: refused, and kept. Less than 0 for what was a dead letter and has another fate now.
        dropped: dead letters that somebody removed.
        accepted: how many events the journal's records say they hold; 0 for a change of fate.
    """

    loaded: int = 0
    duplicate: int = 0
    conflict: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    accepted: int = 0

    def __add__(self, other: object) -> Fate:
        assert isinstance(other, Fate)
        return Fate(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Account(NamedTuple):
    """Where the ledger counts an event.

    Attributes:
        organization_id: its owner.
        event_type: its type.
        hour: the hour in which it was received, as PostgreSQL reads times.
    """

    organization_id: str
    event_type: str
    hour: str


Fates = dict[Account, Fate]


class Unstored(NamedTuple):
    """Events of one journal record that share a fate, and were not stored.

    Attributes:
        organization_id, event_type: whose, and of what type.
        sequence: number of the record.
        fate: `duplicate`, `conflict` or `quarantined`.
        places: where they stood in the request, in their type's list.
        ids: what their sender called them, else their stored ids; as many as places.
        code, reason: PostgreSQL's code and words, of a quarantined event.
        dead_letter_id: of a quarantined event.
    """

    organization_id: str
    event_type: str
    sequence: int
    fate: str
    places: list[int]
    ids: list[str]
    code: str | None = None
    reason: str | None = None
    dead_letter_id: int | None = None


def add_ledger(connection: Rows, fates: Mapping[Account, Fate]) -> None:
    """Append what became of the events of this transaction."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO totalizer.load_ledger (organization_id, event_type, received_hour, "
            "loaded, duplicate, conflict, dead_lettered, dropped, accepted) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [(*account, *fate) for account, fate in fates.items()],
        )


def add_unstored(connection: Rows, journal_id: str, unstored: Sequence[Unstored]) -> None:
    """Note which events of a journal's records were not stored, so that their receipts can tell."""
    if unstored:
        connection.execute(
            "INSERT INTO totalizer.event_fates (organization_id, journal_id, sequence, event_type, fate, places, ids, "
            "code, reason, dead_letter_id) SELECT organization_id, %s, sequence, event_type, fate, places, ids, "
            "code, reason, dead_letter_id FROM json_to_recordset(%s::json) AS f(organization_id uuid, sequence bigint, "
            "event_type text, fate text, places integer[], ids text[], code text, reason text, dead_letter_id bigint)",
            [journal_id, msgspec.json.encode([each._asdict() for each in unstored]).decode()],
        )


def add_dead_letter(
    connection: Rows, target: Target, organization_id: str, line: bytes, journal_id: str, sqlstate: str, reason: str,
    hour: str | None,
) -> int:  # fmt: skip
    """Keep an acknowledged line that cannot be stored, with the reason; returns its number.

    Args:
        hour: in which it was received; None if the ledger does not count it.
    """
    row = connection.execute(
        "INSERT INTO totalizer.dead_letters "
        "(organization_id, event_type, columns, keyed, line, sqlstate, reason, journal_id, received_hour) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        [
            organization_id, target.event_type, list(target.columns), target.keyed, line, sqlstate, reason, journal_id,
            hour,
        ],
    ).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0])


def settle_letter(connection: Rows, letter_id: int, fate: str | None) -> None:
    """Note what became of a dead letter's event: a fate, or None if it is stored now."""
    if fate is None:
        connection.execute("DELETE FROM totalizer.event_fates WHERE dead_letter_id = %s", [letter_id])
    else:
        connection.execute(
            "UPDATE totalizer.event_fates SET fate = %s, code = NULL, reason = NULL, dead_letter_id = NULL "
            "WHERE dead_letter_id = %s",
            [fate, letter_id],
        )


def renew_reason(connection: Rows, letter_id: int, code: str, reason: str) -> None:
    """Note why a dead letter's event could not be stored this time either."""
    connection.execute(
        "UPDATE totalizer.event_fates SET code = %s, reason = %s WHERE dead_letter_id = %s", [code, reason, letter_id]
    )


def add_gaps(connection: Rows, journal_id: str, gaps: Iterable[tuple[int, int, str, int | None]]) -> None:
    """Note records that did not come as batches: (first, last, reason, dead letter if they are kept)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO totalizer.journal_gaps (journal_id, first, last, reason, dead_letter_id) "
            "VALUES (%s, %s, %s, %s, %s)",
            [(journal_id, *gap) for gap in gaps],
        )


def close_gap(connection: Rows, letter_id: int) -> int | None:
    """The number of the record that a dead letter kept, now that it can be read; None if nobody noted it."""
    row = connection.execute(
        "DELETE FROM totalizer.journal_gaps WHERE dead_letter_id = %s RETURNING first", [letter_id]
    ).fetchone()
    return None if row is None else int(row[0])
