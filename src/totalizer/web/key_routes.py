"""An organisation's API keys over HTTP: list, create, rotate, revoke. Nobody sees or touches another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from psycopg import AsyncConnection
from psycopg.rows import namedtuple_row
from psycopg_pool import AsyncConnectionPool

from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.collect.bodies import UNDECODABLE, bad_json
from totalizer.errors import OperationError, Refusal, Refused, StoreUnavailable
from totalizer.store import keys
from totalizer.store.tenant import writing_as
from totalizer.web.audit import Who, actor_of
from totalizer.web.described import told
from totalizer.web.described.forms import Form
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator

#: Keys of one organisation, revoked ones included; more are somebody's mistake.
KEYS_MAX = 1000
_PATH = "/api/keys"


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body that asks for a key.

    Attributes:
        name: what it is for.
        scopes: some of keys.SCOPES.
        expires_at: when it ends by itself, with a zone; never, if left out.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=keys.KEY_NAME_LENGTH_MAX, pattern="^[^\\x00]*$")]
    scopes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=len(keys.SCOPES))] = msgspec.field(
        default_factory=lambda: list(keys.DEFAULT_SCOPES)
    )
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """The body that asks for a key in the place of another.

    Attributes:
        overlap_s: how long the old one goes on, seconds.
    """

    overlap_s: Annotated[int, msgspec.Meta(ge=0, le=int(keys.OVERLAP_MAX.total_seconds()))] = int(
        keys.OVERLAP.total_seconds()
    )


def key_routes(authenticator: Authenticator, pool: AsyncConnectionPool[Any]) -> list[Any]:
    """The routes, all for those who may `keys`."""

    @get(_PATH, summary="List the organisation's API keys", **described(told.KEYS_TAG, "keys", told.KEYS))
    async def list_keys(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Oldest first, without what they are: that is not stored."""
        principal = await enter(authenticator, request)
        async with _cursor(pool, principal) as cursor:
            rows = await (await cursor.execute(keys.LIST_KEYS)).fetchall()
        return {"keys": [_described(row) for row in rows]}

    @post(
        _PATH, summary="Make an API key", status_code=201,
        **described(told.KEYS_TAG, "keys", told.MADE_KEY, body=told.NEW_KEY),
    )  # fmt: skip
    async def create_key(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """The answer's `key` is shown this once."""
        principal = await enter(authenticator, request)
        wanted = _decoded(await request.body(), NewKey)
        _check(wanted)
        key = keys.new_key()
        row = keys.new_row(principal.organization_id, wanted.name, key, wanted.scopes, wanted.expires_at)
        async with _cursor(pool, principal) as cursor:
            await _check_room(cursor)
            made: Any = await (await cursor.execute(keys.ADD_KEY, row)).fetchone()
        return {"id": made.id, "key": key, "name": wanted.name, "scopes": wanted.scopes, "expires_at": made.expires_at}

    @post(
        _PATH + "/{key_id:str}/rotate", summary="Replace an API key", status_code=201,
        **described(
            told.KEYS_TAG, "keys", told.ROTATED, asked=told.KEY_ASKED, body=told.ROTATION, body_needed=False
        ),
    )  # fmt: skip
    async def rotate_key(request: Request[Any, Any, Any], key_id: str) -> dict[str, Any]:
        """A new key with the same name, scopes and length of life; the old one goes on for `overlap_s` seconds."""
        principal = await enter(authenticator, request)
        overlap = timedelta(seconds=_decoded(await request.body() or b"{}", Rotation).overlap_s)
        async with _cursor(pool, principal) as cursor:
            await _check_room(cursor)
            return await _rotate(cursor, key_id, overlap)

    @delete(
        _PATH + "/{key_id:str}", summary="Revoke an API key", status_code=204,
        **described(told.KEYS_TAG, "keys", Form(None), asked=told.KEY_ASKED),
    )  # fmt: skip
    async def revoke_key(request: Request[Any, Any, Any], key_id: str) -> Response[None]:
        """It may be accepted for `TOTALIZER_KEY_CACHE_MS` longer."""
        principal = await enter(authenticator, request)
        async with _cursor(pool, principal) as cursor:
            done = await cursor.execute(keys.REVOKE_KEY, [_id(key_id)])
            if not done.rowcount:
                raise _no_key(key_id)
        return Response(None, status_code=204)

    return [list_keys, create_key, rotate_key, revoke_key]


async def _rotate(cursor: Any, key_id: str, overlap: timedelta) -> dict[str, Any]:
    old = await (await cursor.execute(keys.LOCK_KEY, [_id(key_id)])).fetchone()
    if old is None:
        raise _no_key(key_id)
    try:
        keys.check_rotatable(key_id, old)
    except OperationError as error:
        raise Refused(Refusal.BAD_REQUEST, str(error)) from None
    key = keys.new_key()
    row = keys.new_row(str(old.organization_id), old.name, key, old.scopes, old.next_expires_at)
    made = await (await cursor.execute(keys.ADD_KEY, row)).fetchone()
    replacement = {"new": made.id, "old": old.id, "overlap": overlap}
    ended = await (await cursor.execute(keys.REPLACE_KEY, replacement)).fetchone()
    return {
        "id": made.id, "key": key, "name": old.name, "scopes": old.scopes, "expires_at": made.expires_at,
        "old_id": old.id, "old_expires_at": ended.expires_at,
    }  # fmt: skip


@asynccontextmanager
async def _cursor(pool: AsyncConnectionPool[Any], who: Who) -> AsyncIterator[Any]:
    try:
        async with (
            writing_as(pool, who.organization_id, actor_of(who)) as connection,
            _named(connection) as cursor,
        ):
            yield cursor
    except StoreUnavailable as error:
        detail = "the keys cannot be reached at present; try again"
        raise Refused(Refusal.DATABASE_UNAVAILABLE, detail, retry_after_s=5) from error


def _named(connection: AsyncConnection[Any]) -> Any:
    return connection.cursor(row_factory=namedtuple_row)


def _decoded(body: bytes, form: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise Refused(Refusal.BAD_REQUEST, str(error)) from None
    except UNDECODABLE as error:
        raise bad_json(error) from None


def _check(wanted: NewKey) -> None:
    for scope in wanted.scopes:
        if scope not in keys.SCOPES:
            known = ", ".join(keys.SCOPES)
            raise Refused(Refusal.BAD_REQUEST, f"scopes: there is no {scope[:80]!r}; use some of {known}")
    if wanted.expires_at is not None and wanted.expires_at <= utc_datetime(SYSTEM_CLOCK.now_ns()):
        raise Refused(Refusal.BAD_REQUEST, f"expires_at: {wanted.expires_at.astimezone(UTC).isoformat()} is over")


async def _check_room(cursor: Any) -> None:
    row = await (await cursor.execute("SELECT count(*) AS keys FROM totalizer.api_keys")).fetchone()
    if row.keys >= KEYS_MAX:
        raise Refused(Refusal.BAD_REQUEST, f"this organisation has {row.keys} keys, and {KEYS_MAX} are enough")


def _id(text: str) -> str:
    """An id that can be looked for: what is none cannot be that of a key."""
    try:
        return str(UUID(text))
    except ValueError:
        raise _no_key(text) from None


def _no_key(key_id: str) -> Refused:
    return Refused(Refusal.NOT_FOUND, f"there is no live key {key_id[:80]!r} in this organisation")


def _described(row: Any) -> dict[str, Any]:
    return {
        "id": row.id, "name": row.name, "scopes": row.scopes, "created_at": row.created_at,
        "expires_at": row.expires_at, "last_used_at": row.last_used_at, "revoked_at": row.revoked_at,
        "replaced_by": row.replaced_by,
    }  # fmt: skip
