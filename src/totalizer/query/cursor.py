"""Where a page of an answer ended, as text that a client sends back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from totalizer.errors import Refusal, Refused
from totalizer.prepared import prepared
from totalizer.query.combine import Page
from totalizer.query.opaque import decoded, encoded, fingerprint
from totalizer.query.question import Query

#: Rows behind which no page begins when rows are in order of a metric.
OFFSET_MAX = 1_000_000


@prepared
class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """What a cursor says.

    Attributes:
        query: fingerprint of the organisation and the question it holds for.
        end: the end of the range, for a query that names none.
        key: sort key of the last row, in order of windows; empty in any other order.
        offset: rows before the next page, in any other order.
        version: of the data that these were counted in.
    """

    query: str
    end: str
    key: list[Any]
    offset: int = 0
    version: str = ""


def next_cursor(query: Query, organization_id: str, key: list[Any], offset: int, version: str) -> str:
    """The cursor after a row.

    Args:
        query: the question.
        organization_id: whose; nobody else can use it.
        key: the row's sort key.
        offset: rows up to and with it.
        version: of the data.
    """
    question, end = _fingerprint(query, organization_id), query.end.isoformat()
    if query.by_window:
        return encoded(Cursor(question, end, [key[0].isoformat(), *key[1:]]))
    return encoded(Cursor(question, end, [], offset, version))


def end_of(text: str | None, now: datetime) -> datetime:
    """The end of the range of a request that names none: now, or what it was for the page before.

    Without it the next page of a query without an end would be a page of another query.

    Args:
        text: the request's cursor, if it has one.
        now: the end without one.
    """
    cursor = _read(text) if isinstance(text, str) else None
    return now if cursor is None else datetime.fromisoformat(cursor.end)


def page_of(query: Query, organization_id: str, version: str) -> Page:
    """The page that the query's cursor stands for; the first if it has none.

    Raises:
        Refused: it is no cursor, or of another query, or rows are in order of a metric and data have changed since.
    """
    if query.cursor is None:
        return Page()
    cursor = _read(query.cursor)
    if cursor is None:
        detail = f"cursor={query.cursor:.50}: is no cursor; send next_cursor as it was"
        raise Refused(Refusal.INVALID_QUERY, detail)
    if cursor.query != _fingerprint(query, organization_id) or not _fits(cursor, query):
        detail = f"cursor={query.cursor:.50}: belongs to another query; repeat the query it came from"
        raise Refused(Refusal.INVALID_QUERY, detail)
    if query.by_window:
        return Page(after=cursor.key)
    if cursor.version != version:
        raise Refused(
            Refusal.DATA_CHANGED,
            "the data have changed since the page before, and with them the order of the rows; ask again for the first "
            "page, or order by window: such pages go on whatever arrives",
        )
    return Page(offset=cursor.offset)


def _read(text: str) -> Cursor | None:
    try:
        cursor = decoded(text, Cursor)
        return cursor if datetime.fromisoformat(cursor.end).tzinfo else None
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None


def _fits(cursor: Cursor, query: Query) -> bool:
    """True if PostgreSQL can compare rows with it."""
    if not query.by_window:
        return not cursor.key and 0 <= cursor.offset <= OFFSET_MAX
    # A time and then, for each dimension, a flag and a text.
    types = [str, *((bool, str)[number % 2] for number in range(2 * len(query.group_by)))]
    if list(map(type, cursor.key)) != types or any(isinstance(part, str) and "\0" in part for part in cursor.key):
        return False
    try:
        return datetime.fromisoformat(cursor.key[0]).tzinfo is not None
    except ValueError:
        return False


def _fingerprint(query: Query, organization_id: str) -> str:
    """What a cursor holds for: everything but the page."""
    return fingerprint(organization_id, msgspec.structs.replace(query, cursor=None, limit=0, explain=False))
