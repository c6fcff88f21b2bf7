"""SQL of the dead letters: finding, locking, renewing and deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row

from totalizer.errors import OperationError
from totalizer.store.fates import Account
from totalizer.store.loading import Target

Rows = Connection[Any]

_LETTER = (
    "SELECT id, organization_id::text, event_type, columns, keyed, line, sqlstate, reason, journal_id::text, "
    "created_at, retries, retried_at, coalesce(received_hour, date_trunc('hour', created_at, 'UTC')) AS received_hour "
    "FROM totalizer.dead_letters"
)
_SELECTED = (
    "WHERE (%(ids)s::bigint[] IS NULL OR d.id = ANY (%(ids)s)) "
    "AND (%(organization_id)s::uuid IS NULL OR d.organization_id = %(organization_id)s::uuid) "
    "AND (%(event_type)s::text IS NULL OR d.event_type = %(event_type)s::text) "
    "AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s::timestamptz)"
)


class DeadLetter(NamedTuple):
    """An acknowledged event that PostgreSQL refused.

    Attributes:
        id: its number.
        organization_id: owner; all zeros if the bytes do not tell.
        event_type: of the event; `unreadable` for a journal record that is no batch.
        columns: of the line; none for a record that is no batch.
        keyed: True if the sender chose the event's id.
        line: one line of COPY text, newline included; the whole record if that is no batch.
        sqlstate: PostgreSQL's code, or TZ001 no such event type, TZ002 no batch, TZ003 no such day.
        reason: why it was refused.
        journal_id: the journal that it was in.
        created_at: when it was refused first.
        retries: how often it was refused again.
        retried_at: when it was refused last, if again.
        received_hour: the hour in which the event was received, under which the ledger counts it.
    """

    id: int
    organization_id: str
    event_type: str
    columns: list[str]
    keyed: bool
    line: bytes
    sqlstate: str
    reason: str
    journal_id: str
    created_at: datetime
    retries: int
    retried_at: datetime | None
    received_hour: datetime

    @property
    def account(self) -> Account:
        """Where the ledger counts it."""
        return Account(self.organization_id, self.event_type, self.received_hour.isoformat())

    @property
    def target(self) -> Target:
        """Where the line belongs."""
        return Target(self.event_type, tuple(self.columns), self.keyed)

    @property
    def in_ledger(self) -> bool:
        """True if the ledger counts it: of a record that is no batch nobody knows how many events it holds."""
        return bool(self.columns)


class Listed(NamedTuple):
    """What a list shows of a dead letter: all but its bytes, and the organisation's name if it has one."""

    id: int
    organization_id: str
    organization: str | None
    event_type: str
    sqlstate: str
    reason: str
    size: int
    created_at: datetime
    retries: int


class Reason(NamedTuple):
    """How many letters were refused for the same reason: `example` is the text of the newest."""

    event_type: str
    sqlstate: str
    letters: int
    example: str


class Selection(NamedTuple):
    """Which dead letters are meant; every condition that is not None must hold.

    Attributes:
        ids: their numbers.
        organization_id: their owner.
        event_type: their type.
        since: refused first at this time or later.
    """

    ids: list[int] | None = None
    organization_id: str | None = None
    event_type: str | None = None
    since: datetime | None = None


def organization_id_of(connection: Rows, name: str) -> str:
    """The id of the organisation of that name.

    Args:
        connection: as refresher or administrator.
        name: of the organisation.

    Raises:
        OperationError: there is none.
    """
    row = connection.execute("SELECT id::text FROM totalizer.organizations WHERE name = %s", [name]).fetchone()
    if row is None:
        raise OperationError(f"no organisation {name!r}; `totalizer organizations list` shows those there are")
    return str(row[0])


def list_letters(connection: Rows, selection: Selection, limit: int) -> list[Listed]:
    """At most `limit` letters, newest first; as refresher or administrator, who see all organisations."""
    with connection.cursor(row_factory=class_row(Listed)) as cursor:
        return cursor.execute(
            "SELECT d.id, organization_id::text, o.name AS organization, event_type, sqlstate, reason, "
            "octet_length(line) AS size, d.created_at, retries "
            "FROM totalizer.dead_letters d LEFT JOIN totalizer.organizations o ON o.id = organization_id "
            f"{_SELECTED} ORDER BY d.id DESC LIMIT %(limit)s",
            {**selection._asdict(), "limit": limit},
        ).fetchall()


def count_by_reason(connection: Rows, selection: Selection) -> list[Reason]:
    """How many letters each reason has, most first; as refresher or administrator."""
    with connection.cursor(row_factory=class_row(Reason)) as cursor:
        return cursor.execute(
            "SELECT event_type, sqlstate, count(*) AS letters, (array_agg(reason ORDER BY id DESC))[1] AS example "
            f"FROM totalizer.dead_letters d {_SELECTED} GROUP BY event_type, sqlstate ORDER BY letters DESC, 1, 2",
            selection._asdict(),
        ).fetchall()


def ids_of(connection: Rows, selection: Selection) -> list[int]:
    """The numbers of the letters, oldest first: the order in which their events were acknowledged."""
    rows = connection.execute(
        f"SELECT id FROM totalizer.dead_letters d {_SELECTED} ORDER BY id", selection._asdict()
    ).fetchall()
    return [row[0] for row in rows]


def ids_to_retry(connection: Rows, retries_max: int, limit: int) -> list[int]:
    """The numbers of letters that were not refused too often yet, oldest first; as refresher or administrator."""
    rows = connection.execute(
        "SELECT id FROM totalizer.dead_letters WHERE retries < %s ORDER BY id LIMIT %s", [retries_max, limit]
    ).fetchall()
    return [row[0] for row in rows]


def read_letter(connection: Rows, letter_id: int) -> DeadLetter | None:
    """One letter; None if there is none of that number."""
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return cursor.execute(f"{_LETTER} WHERE id = %s", [letter_id]).fetchone()


def lock_letters(connection: Rows, ids: Sequence[int]) -> list[DeadLetter]:
    """The letters that are still there, oldest first, and nobody else's until the transaction ends.

    Waits for whoever is at work on one of them. As writer, in a transaction.
    """
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return cursor.execute(f"{_LETTER} WHERE id = ANY (%s) ORDER BY id FOR UPDATE", [list(ids)]).fetchall()


def refuse_again(connection: Rows, letter_id: int, sqlstate: str, reason: str) -> None:
    """Note why a letter could not be stored this time either; as writer."""
    connection.execute(
        "UPDATE totalizer.dead_letters SET sqlstate = %s, reason = %s, retries = retries + 1, retried_at = now() "
        "WHERE id = %s",
        [sqlstate, reason, letter_id],
    )


def delete_letters(connection: Rows, ids: Sequence[int]) -> None:
    """Remove letters; as writer."""
    connection.execute("DELETE FROM totalizer.dead_letters WHERE id = ANY (%s)", [list(ids)])
