"""Cursors: where a page ended, for the same query only."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import Catalog
from totalizer.errors import Refusal, Refused
from totalizer.query.cursor import decode_cursor, encode_cursor, end_of
from totalizer.query.parse import Query, parse_query
from totalizer.window import Grain

QueryOf = Callable[..., Query]
KEY = ["2025-09-05T10:00:00+00:00", False, "north"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.datetimes(timezones=st.just(UTC)), st.lists(st.tuples(st.booleans(), TEXTS), max_size=3))
def test_a_cursor_gives_its_key_back(query_of: QueryOf, window: datetime, groups: list[tuple[bool, str]]) -> None:
    query = query_of(group_by=("shop", "gift", "pieces")[: len(groups)])
    key = [window.isoformat(), *(part for group in groups for part in group)]
    cursor = encode_cursor(query, key)
    assert cursor.isascii()
    assert set(cursor).isdisjoint("+/=&? ")
    assert decode_cursor(msgspec.structs.replace(query, cursor=cursor)) == key


def test_no_cursor_is_the_first_page(query_of: QueryOf) -> None:
    assert decode_cursor(query_of()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"event_type": "visits"}, {"start": datetime(2025, 9, 2, tzinfo=UTC)},
        {"end": datetime(2025, 9, 3, tzinfo=UTC)}, {"grain": Grain.DAY},
        {"group_by": ("gift",)}, {"group_by": ("shop", "gift")}, {"filters": {"shop": ("a",)}},
        {"measures": ("sales",)}, {"time_zone": "Europe/Berlin"},
    ],
)  # fmt: skip
def test_a_cursor_of_another_query_is_refused(query_of: QueryOf, change: dict[str, Any]) -> None:
    cursor = encode_cursor(query_of(group_by=("shop",)), KEY)
    with pytest.raises(Refused, match="belongs to another query") as caught:
        decode_cursor(query_of(**{"group_by": ("shop",), "cursor": cursor, **change}))
    assert caught.value.refusal is Refusal.INVALID_QUERY


def test_the_size_of_the_page_and_the_order_of_filters_may_change(query_of: QueryOf) -> None:
    first = query_of(group_by=("shop",), limit=1, filters={"shop": ("a",), "gift": ("true",)})
    cursor = encode_cursor(first, KEY)
    again = query_of(group_by=("shop",), limit=2, filters={"gift": ("true",), "shop": ("a",)}, cursor=cursor)
    assert decode_cursor(again) == KEY


def as_cursor(content: Any) -> str:
    raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def fingerprint(query: Query) -> str:
    text = encode_cursor(query, KEY)
    return str(msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))[0])


@pytest.mark.parametrize(
    "cursor",
    [
        "", "x", "%%%", "ä", "\0", "a" * 10_000, as_cursor(b""), as_cursor(b"\xff"), as_cursor(None), as_cursor([]),
        as_cursor(["x", KEY]), as_cursor(["x", "yesterday", KEY]), as_cursor(["x", "2025-09-05T10:00:00", KEY]),
        as_cursor(["x", 5, KEY]), as_cursor(b'["x","2025-09-05T10:00:00Z",' + b"[" * 100_000),
    ],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(query_of: QueryOf, cursor: str) -> None:
    with pytest.raises(Refused, match="is no cursor; send next_cursor as it was") as caught:
        decode_cursor(query_of(cursor=cursor))
    assert caught.value.refusal is Refusal.INVALID_QUERY
    assert len(caught.value.detail) < 200
    now = datetime(2025, 9, 5, tzinfo=UTC)
    assert end_of({"cursor": [cursor]}, now) == now


@pytest.mark.parametrize(
    "key",
    [
        [], ["2025-09-05T10:00:00Z"], [*KEY, False, "x"], ["yesterday", False, "x"],
        ["2025-09-05T10:00:00", False, "x"],
        [5, False, "x"], [KEY[0], 0, "x"], [KEY[0], False, 5], [KEY[0], False, "a\0"], [KEY[0], None, "x"],
    ],
)  # fmt: skip
def test_a_key_that_the_database_could_not_compare_is_refused(query_of: QueryOf, key: list[Any]) -> None:
    """Whoever writes a cursor by hand gets a refusal, not an error of the database."""
    query = query_of(group_by=("shop",))
    forged = as_cursor([fingerprint(query), "2025-09-05T10:00:00Z", key])
    with pytest.raises(Refused, match="belongs to another query"):
        decode_cursor(msgspec.structs.replace(query, cursor=forged))


def test_the_next_page_of_a_query_without_an_end_is_of_the_same_range(sales: Catalog) -> None:
    """Now goes on between two pages; the range does not."""
    now = datetime(2025, 9, 5, 10, 7, 30, 123456, tzinfo=UTC)
    parameters = {"event_type": ["sales"], "group_by": ["shop"]}
    first = parse_query(sales, parameters, end_of(parameters, now), "UTC")
    following = {**parameters, "cursor": [encode_cursor(first, KEY)]}
    second = parse_query(sales, following, end_of(following, now + timedelta(seconds=5)), "UTC")
    assert (second.start, second.end) == (first.start, first.end)
    assert decode_cursor(second) == KEY
