"""Who changed what: the database writes it down in the transaction of the change, and is asked for it here.

Tables that only people change have triggers, so that no way of changing them is forgotten. What jobs do as well as
people is noted where it is done, and is an entry only if the connection says who is at it: see the migration 0013.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

#: Everything that is written down, and what it means. Docs: reference/audit.md.
ACTIONS: Final = MappingProxyType(
    {
        "organization.create": "an organisation was made",
        "organization.change": "its time zone or name was changed",
        "organization.delete": "it was removed",
        "key.create": "an API key was made",
        "key.rotate": "another took its place",
        "key.revoke": "it was ended",
        "key.change": "something else of it was changed",
        "key.delete": "its row was removed",
        "limits.change": "an organisation was given limits of its own",
        "retention.change": "it was set how long something is kept, or taken back",
        "retention.run": "what is older than it is kept was removed by hand",
        "partition.drop": "that run dropped a partition",
        "catalog.event_type": "an event type was declared or changed",
        "catalog.rollup": "a rollup was declared or changed",
        "dead_letter.retry": "an event in quarantine was tried again",
        "dead_letter.fix": "it was tried again with other fields",
        "dead_letter.drop": "events in quarantine were dropped",
        "late.release": "held events were said to count",
        "late.drop": "late events were dropped",
        "rollup.refresh": "a part of the rollups was marked to be computed anew",
        "rollup.backfill": "the same, behind all that is live",
        "rollup.repair": "rows that were wrong were computed anew",
        "job.run": "a run of a job was asked for, or begun by hand",
        "alert.silence": "alerts were silenced",
        "alert.unsilence": "a silence was ended",
    }
)
#: Entries in one answer.
ENTRIES_MAX: Final = 500
#: Organisations see their own by row security, the refresher all.
ENTRIES: Final = """
    SELECT a.id, a.at, a.organization_id::text, o.name AS organization, a.actor, a.action, a.target, a.before, a.after
    FROM totalizer.audit a LEFT JOIN totalizer.organizations o ON o.id = a.organization_id
    WHERE (%(organization_id)s::uuid IS NULL OR a.organization_id = %(organization_id)s::uuid)
      AND (%(actor)s::text IS NULL OR %(actor)s = ANY (ARRAY(SELECT value FROM jsonb_each_text(a.actor))))
      AND (%(action)s::text IS NULL OR a.action = %(action)s OR starts_with(a.action, %(action)s || '.'))
      AND (%(since)s::timestamptz IS NULL OR a.at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR a.at < %(until)s)
      AND (%(before)s::bigint IS NULL OR a.id < %(before)s)
    ORDER BY a.id DESC LIMIT %(limit)s"""
_TELL = "SELECT set_config('app.actor', %s, true)"


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who changes something.

    Attributes:
        kind: `api_key`, `token` or `command_line`; the database says `database` itself where nobody is named.
        id: of the API key; the token's subject; the user of the operating system. None if a token names none.
        role: the token's.
    """

    kind: str
    id: str | None = None
    role: str | None = None

    @property
    def setting(self) -> str:
        """As the database's setting `app.actor` has it. What JSON or PostgreSQL cannot hold of an id is replaced."""
        told = None if self.id is None else self.id.encode("utf-8", "replace").decode().replace("\0", "?")
        return msgspec.json.encode(msgspec.structs.replace(self, id=told)).decode()


class Wanted(NamedTuple):
    """Which entries: those that meet every condition given.

    Attributes:
        limit: how many at most, newest first.
        organization_id: whose.
        actor: the kind, id, name or role of who did it.
        action: one of ACTIONS, or what stands before its dot.
        since, until: when; the end is excluded.
        before: only those with a smaller number.
    """

    limit: int
    organization_id: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None


class Numbered(Protocol):
    """An event that is kept aside under a number."""

    @property
    def organization_id(self) -> str:
        """Whose it is."""

    @property
    def event_type(self) -> str:
        """What it is."""

    @property
    def id(self) -> int:
        """Its number."""


class Change(NamedTuple):
    """What was changed.

    Attributes:
        action: one of ACTIONS.
        target: what it was done to.
        organization_id: whose; None: of the installation.
        before, after: what it was and is, as JSON can hold it. Never a key, a token or what an event holds.
    """

    action: str
    target: str
    organization_id: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


def os_user() -> str:
    """Who runs this process, by the operating system: the environment may say anything."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user without a name
        return f"uid {os.geteuid()}"


def command_line() -> Actor:
    """Somebody who types commands on this machine."""
    return Actor("command_line", os_user())


def note(connection: Connection[Any], change: Change) -> None:
    """Write a change down, if the connection says who makes it; without, it is the service's own work.

    Args:
        connection: as writer or refresher, in the transaction of the change.
        change: what it was.
    """
    connection.execute(
        "SELECT totalizer.note_change(%s::uuid, %s, %s, %s, %s)",
        [change.organization_id, change.action, change.target, _json(change.before), _json(change.after)],
    )


def note_dropped(connection: Connection[Any], action: str, events: Iterable[Numbered]) -> None:
    """Write down that events were dropped: an entry for each organisation and event type.

    Args:
        connection: as `note` has it.
        action: one of ACTIONS.
        events: which.
    """
    dropped: dict[tuple[str, str], list[int]] = {}
    for event in events:
        dropped.setdefault((event.organization_id, event.event_type), []).append(event.id)
    for (organization_id, event_type), ids in dropped.items():
        note(connection, Change(action, event_type, organization_id, before={"ids": ids}))


def note_by(connection: Connection[Any], actor: Actor, change: Change) -> None:
    """The same, of somebody whom the connection does not name; in a transaction."""
    connection.execute(_TELL, [actor.setting])
    note(connection, change)


def problem(action: str) -> str | None:
    """Why there can be no entries of such an action; None if there can."""
    families = {name.partition(".")[0] for name in ACTIONS}
    if action in ACTIONS or action in families:
        return None
    return f"there is no action {action[:80]!r}; there are {', '.join(ACTIONS)}, and what stands before their dots"


def entries(connection: Connection[Any], wanted: Wanted) -> list[dict[str, Any]]:
    """Entries by column, newest first; as the refresher or the administrator."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(ENTRIES.encode(), wanted._asdict()).fetchall()


def _json(content: dict[str, Any] | None) -> Jsonb | None:
    return None if content is None else Jsonb(content)
