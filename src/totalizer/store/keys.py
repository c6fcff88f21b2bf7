"""Organisations and their API keys. A key is shown once; the database keeps its SHA-256 only.

A key is 32 random bytes, so a plain hash is enough: there is nothing to guess. Nor does the time that finding a hash
takes help anybody: who does not know the key cannot choose its hash.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import namedtuple_row

from totalizer.errors import OperationError

#: Start of every key, so that a leaked one can be recognised.
KEY_PREFIX = "tz_"
#: Longest text that can be a key; those made here have 46 characters.
KEY_LENGTH_MAX = 128
#: Longest name of a key.
KEY_NAME_LENGTH_MAX = 200
#: What a key may be allowed to do. Which actions each allows is web/permissions.py's.
SCOPES = ("ingest", "query", "export", "quarantine", "admin")
#: Scopes of a key that is made without naming any.
DEFAULT_SCOPES = ("ingest", "query")
#: How long a replaced key goes on, unless told otherwise, and at most.
OVERLAP: Final = timedelta(hours=24)
OVERLAP_MAX: Final = timedelta(days=90)

#: The statements below serve the administrator, and over HTTP the app role, who sees one organisation's keys alone.
LIST_KEYS = (
    "SELECT k.id, o.name AS organization, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at, "
    "k.replaced_by FROM totalizer.api_keys k JOIN totalizer.organizations o ON o.id = k.organization_id "
    "ORDER BY k.created_at, k.id"
)
ADD_KEY = (
    "INSERT INTO totalizer.api_keys (organization_id, name, key_hash, scopes, expires_at) "
    "VALUES (%(organization_id)s, %(name)s, %(key_hash)s, %(scopes)s, %(expires_at)s) RETURNING id, expires_at"
)
REVOKE_KEY = "UPDATE totalizer.api_keys SET revoked_at = now() WHERE id::text = %s AND revoked_at IS NULL"
#: A key to rotate, locked. The new one lives as long as the old one was to live.
LOCK_KEY = (
    "SELECT id, organization_id, name, scopes, replaced_by, now() + (expires_at - created_at) AS next_expires_at "
    "FROM totalizer.api_keys WHERE id::text = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) "
    "FOR UPDATE"
)
REPLACE_KEY = (
    "UPDATE totalizer.api_keys SET replaced_by = %(new)s, expires_at = least(expires_at, now() + %(overlap)s) "
    "WHERE id = %(old)s RETURNING expires_at"
)


class MadeKey(NamedTuple):
    """A new key, the only time that it can be seen.

    Attributes:
        id: its id.
        key: what to send.
        expires_at: when it ends by itself; None if it does not.
        old_expires_at: when the key ends that it replaces; None if it replaces none.
    """

    id: str
    key: str
    expires_at: datetime | None
    old_expires_at: datetime | None = None


def hash_key(key: str) -> bytes:
    """What the database knows a key by."""
    return hashlib.sha256(key.encode()).digest()


def new_key() -> str:
    """A key that nobody has."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def create_organization(connection: Connection[Any], name: str, time_zone: str) -> str:
    """The id of the organisation of that name, made if there is none.

    Raises:
        OperationError: PostgreSQL does not know the time zone.
    """
    try:
        with connection.transaction():
            connection.execute("SELECT now() AT TIME ZONE %s", [time_zone])
    except psycopg.errors.InvalidParameterValue:
        raise OperationError(f"PostgreSQL does not know the time zone {time_zone!r}; use another IANA name") from None
    connection.execute(
        "INSERT INTO totalizer.organizations (name, time_zone) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
        [name, time_zone],
    )
    row = connection.execute("SELECT id FROM totalizer.organizations WHERE name = %s", [name]).fetchone()
    assert row is not None
    return str(row[0])


def list_organizations(connection: Connection[Any]) -> list[Any]:
    """All organisations by name, with `id`, `name`, `time_zone` and `created_at`."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        query = "SELECT id, name, time_zone, created_at FROM totalizer.organizations ORDER BY name"
        return list(cursor.execute(query).fetchall())


def create_key(
    connection: Connection[Any],
    organization_id: str,
    name: str,
    scopes: tuple[str, ...] = DEFAULT_SCOPES,
    expires_at: datetime | None = None,
) -> str:
    """A new key for an organisation; this is the only time it can be seen.

    Args:
        connection: as the administrator.
        organization_id: whose data it may touch.
        name: what it is for.
        scopes: some of SCOPES.
        expires_at: when it ends by itself.

    Raises:
        OperationError: a scope is unknown.
    """
    for scope in scopes:
        if scope not in SCOPES:
            raise OperationError(f"no scope {scope!r}; use some of {', '.join(SCOPES)}")
    key = new_key()
    connection.execute(ADD_KEY, new_row(organization_id, name, key, scopes, expires_at))
    return key


def new_row(
    organization_id: str, name: str, key: str, scopes: tuple[str, ...] | list[str], expires_at: datetime | None
) -> dict[str, Any]:
    """The parameters of ADD_KEY."""
    return {
        "organization_id": organization_id, "name": name, "key_hash": hash_key(key), "scopes": list(scopes),
        "expires_at": expires_at,
    }  # fmt: skip


def rotate_key(connection: Connection[Any], key_id: str, overlap: timedelta = OVERLAP) -> MadeKey:
    """A key to take the place of another: same organisation, name, scopes and length of life.

    Args:
        connection: as the administrator.
        key_id: the old key.
        overlap: how long the old one goes on; it never lives longer than it would have.

    Raises:
        OperationError: there is no such live key, or it was rotated before.
    """
    with connection.transaction(), connection.cursor(row_factory=namedtuple_row) as cursor:
        old: Any = cursor.execute(LOCK_KEY, [key_id]).fetchone()
        check_rotatable(key_id, old)
        key = new_key()
        row = new_row(old.organization_id, old.name, key, old.scopes, old.next_expires_at)
        added: Any = cursor.execute(ADD_KEY, row).fetchone()
        ended: Any = cursor.execute(REPLACE_KEY, {"new": added.id, "old": old.id, "overlap": overlap}).fetchone()
    return MadeKey(str(added.id), key, added.expires_at, ended.expires_at)


def check_rotatable(key_id: str, old: Any) -> None:
    """Judge what LOCK_KEY has found.

    Raises:
        OperationError: there is no such live key, or it was rotated before.
    """
    if old is None:
        raise OperationError(f"no live key {key_id!r}; `totalizer keys list` shows them")
    if old.replaced_by is not None:
        raise OperationError(f"key {key_id} was rotated before: rotate {old.replaced_by}, which replaced it")


def revoke_key(connection: Connection[Any], key_id: str) -> None:
    """End a key now.

    Raises:
        OperationError: there is no such key, or it is revoked already.
    """
    if not connection.execute(REVOKE_KEY, [key_id]).rowcount:
        raise OperationError(f"no live key {key_id!r}; `totalizer keys list` shows them")


def list_keys(connection: Connection[Any]) -> list[Any]:
    """All keys with their organisation's name, oldest first: the columns of LIST_KEYS."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(LIST_KEYS).fetchall()
