"""Organisations and their API keys. A key is shown once; the database keeps its SHA-256 only.

A key is 32 random bytes, so a plain hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import namedtuple_row

from totalizer.errors import OperationError

#: Start of every key, so that a leaked one can be recognised.
KEY_PREFIX = "tz_"
#: What a key may be allowed to do.
SCOPES = ("ingest", "query")


class Principal(NamedTuple):
    """Who a request comes from.

    Attributes:
        key_id: the API key.
        organization_id: whose data it may touch.
        scopes: subset of SCOPES.
        expires_at: when the key ends by itself, if it does.
    """

    key_id: str
    organization_id: str
    scopes: frozenset[str]
    expires_at: datetime | None


def hash_key(key: str) -> bytes:
    """What the database knows a key by."""
    return hashlib.sha256(key.encode()).digest()


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


def create_key(connection: Connection[Any], organization_id: str, name: str, scopes: tuple[str, ...] = SCOPES) -> str:
    """A new key for an organisation; this is the only time it can be seen.

    Raises:
        OperationError: a scope is unknown.
    """
    for scope in scopes:
        if scope not in SCOPES:
            raise OperationError(f"no scope {scope!r}; use some of {', '.join(SCOPES)}")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO totalizer.api_keys (organization_id, name, key_hash, scopes) VALUES (%s, %s, %s, %s)",
        [organization_id, name, hash_key(key), list(scopes)],
    )
    return key


def revoke_key(connection: Connection[Any], key_id: str) -> None:
    """End a key now.

    Raises:
        OperationError: there is no such key, or it is revoked already.
    """
    revoked = connection.execute(
        "UPDATE totalizer.api_keys SET revoked_at = now() WHERE id::text = %s AND revoked_at IS NULL",
        [key_id],
    )
    if not revoked.rowcount:
        raise OperationError(f"no live key {key_id!r}; `totalizer keys list` shows them")


def list_keys(connection: Connection[Any]) -> list[Any]:
    """All keys with their organisation's name, oldest first."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(
            "SELECT k.id, o.name AS organization, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at "
            "FROM totalizer.api_keys k JOIN totalizer.organizations o ON o.id = k.organization_id ORDER BY k.created_at"
        ).fetchall()
