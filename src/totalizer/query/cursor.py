"""Where a page of an answer ended, as text that a client sends back."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec

from totalizer.errors import Refusal, Refused
from totalizer.query.parse import Query


class _Cursor(msgspec.Struct, array_like=True):
    query: str
    key: list[Any]


def encode_cursor(query: Query, key: list[Any]) -> str:
    """A cursor after the row with this sort key."""
    text = msgspec.json.encode(_Cursor(_fingerprint(query), key))
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def decode_cursor(query: Query) -> list[Any] | None:
    """The sort key that the query's cursor stands for; None if it has none.

    Raises:
        Refused: it is no cursor, or of another query.
    """
    if query.cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4))
        cursor = msgspec.json.decode(text, type=_Cursor)
    except (ValueError, msgspec.MsgspecError):
        raise Refused(
            Refusal.INVALID_QUERY, f"cursor={query.cursor:.50}: is no cursor; send next_cursor as it was"
        ) from None
    types = [str, *((bool, str)[number % 2] for number in range(2 * len(query.group_by)))]
    if cursor.query != _fingerprint(query) or list(map(type, cursor.key)) != types:
        raise Refused(Refusal.INVALID_QUERY, "cursor: belongs to another query; repeat the query it came from")
    return cursor.key


def _fingerprint(query: Query) -> str:
    """What a cursor holds for: everything but the page."""
    same = msgspec.structs.replace(query, cursor=None, limit=0)
    return hashlib.blake2b(msgspec.json.encode(same), digest_size=8).hexdigest()
