"""Where a page of an answer ended, as text that a client sends back."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from totalizer.errors import Refusal, Refused
from totalizer.query.parse import Query


class _Cursor(msgspec.Struct, array_like=True):
    query: str
    end: str
    key: list[Any]


def encode_cursor(query: Query, key: list[Any]) -> str:
    """A cursor after the row with this sort key."""
    text = msgspec.json.encode(_Cursor(_fingerprint(query), query.end.isoformat(), key))
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def end_of(parameters: Mapping[str, Sequence[str]], now: datetime) -> datetime:
    """The end of the range of a request that names none: now, or what it was for the page before.

    Without it the next page of a query without an end would be a page of another query.
    """
    cursor = _read("".join(parameters.get("cursor", ())[:1]))
    return now if cursor is None else datetime.fromisoformat(cursor.end)


def decode_cursor(query: Query) -> list[Any] | None:
    """The sort key that the query's cursor stands for; None if it has none.

    Raises:
        Refused: it is no cursor, or of another query.
    """
    if query.cursor is None:
        return None
    cursor = _read(query.cursor)
    if cursor is None:
        detail = f"cursor={query.cursor:.50}: is no cursor; send next_cursor as it was"
        raise Refused(Refusal.INVALID_QUERY, detail)
    if cursor.query != _fingerprint(query) or not _is_key(cursor.key, query):
        detail = f"cursor={query.cursor:.50}: belongs to another query; repeat the query it came from"
        raise Refused(Refusal.INVALID_QUERY, detail)
    return cursor.key


def _read(text: str) -> _Cursor | None:
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        cursor = msgspec.json.decode(content, type=_Cursor)
        return cursor if datetime.fromisoformat(cursor.end).tzinfo else None
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None


def _is_key(key: list[Any], query: Query) -> bool:
    """True for a time and then, for each dimension, a flag and a text: what PostgreSQL can compare rows with."""
    types = [str, *((bool, str)[number % 2] for number in range(2 * len(query.group_by)))]
    if list(map(type, key)) != types or any(isinstance(part, str) and "\0" in part for part in key):
        return False
    try:
        return datetime.fromisoformat(key[0]).tzinfo is not None
    except ValueError:
        return False


def _fingerprint(query: Query) -> str:
    """What a cursor holds for: everything but the page."""
    same = msgspec.structs.replace(query, cursor=None, limit=0)
    return hashlib.blake2b(msgspec.json.encode(same, order="deterministic"), digest_size=8).hexdigest()
