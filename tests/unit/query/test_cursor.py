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
from totalizer.query.combine import Page
from totalizer.query.cursor import end_of, next_cursor, page_of
from totalizer.query.parse import parse_parameters
from totalizer.query.question import Filter, Metric, Order, Query
from totalizer.query.windows import Windows
from totalizer.window import Grain

QueryOf = Callable[..., Query]
NOW = datetime(2025, 9, 5, 10, tzinfo=UTC)
KEY = ["2025-09-05T10:00:00+00:00", False, "north"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
MINE, VERSION = "my organisation", "1"


def encode_cursor(query: Query, key: list[Any]) -> str:
    """A cursor after a row in order of windows, from its key as a cursor has it."""
    return next_cursor(query, MINE, [datetime.fromisoformat(key[0]), *key[1:]], 0, VERSION)


def decode_cursor(query: Query, organization: str = MINE, version: str = VERSION) -> Any:
    page = page_of(query, organization, version)
    return None if page.after is None else list(page.after)


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
        {"end": datetime(2025, 9, 3, tzinfo=UTC)}, {"windows": Windows(Grain.DAY)},
        {"group_by": ("gift",)}, {"group_by": ("shop", "gift")}, {"filters": (Filter("shop", "in", ("a",)),)},
        {"metrics": (Metric("sales", "sales", "sales"),)}, {"time_zone": "Europe/Berlin"},
        {"order": (Order("window", descending=True),)},
    ],
)  # fmt: skip
def test_a_cursor_of_another_query_is_refused(query_of: QueryOf, change: dict[str, Any]) -> None:
    cursor = encode_cursor(query_of(group_by=("shop",)), KEY)
    with pytest.raises(Refused, match="belongs to another query") as caught:
        decode_cursor(query_of(**{"group_by": ("shop",), "cursor": cursor, **change}))
    assert caught.value.refusal is Refusal.INVALID_QUERY


def test_a_cursor_of_another_organisation_is_refused(query_of: QueryOf) -> None:
    cursor = encode_cursor(query_of(group_by=("shop",)), KEY)
    with pytest.raises(Refused, match="belongs to another query"):
        decode_cursor(query_of(group_by=("shop",), cursor=cursor), "theirs")


def test_the_size_of_the_page_may_change(query_of: QueryOf) -> None:
    cursor = encode_cursor(query_of(group_by=("shop",), limit=1), KEY)
    assert decode_cursor(query_of(group_by=("shop",), limit=2, cursor=cursor)) == KEY


def test_in_order_of_a_number_a_page_begins_after_so_many_rows_of_the_same_data(query_of: QueryOf) -> None:
    order = (Order("sales", descending=True),)
    cursor = next_cursor(query_of(order=order), MINE, [NOW], 20, VERSION)
    query = query_of(order=order, cursor=cursor)
    assert page_of(query, MINE, VERSION) == Page(offset=20)
    with pytest.raises(Refused, match="ask again for the first page") as caught:
        page_of(query, MINE, "2")
    assert (caught.value.refusal, caught.value.status) == (Refusal.DATA_CHANGED, 409)
    forged = as_cursor([fingerprint(query), NOW.isoformat(), [], 10**12, VERSION])
    with pytest.raises(Refused, match="belongs to another query"):
        page_of(query_of(order=order, cursor=forged), MINE, VERSION)


def as_cursor(content: Any) -> str:
    raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def fingerprint(query: Query) -> str:
    text = next_cursor(query, MINE, [NOW, *KEY[1:]], 0, VERSION)
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
    assert end_of(cursor, now) == now


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
    first = parse_parameters(sales, parameters, end_of(None, now), "UTC")
    cursor = encode_cursor(first, KEY)
    following = {**parameters, "cursor": [cursor]}
    second = parse_parameters(sales, following, end_of(cursor, now + timedelta(seconds=5)), "UTC")
    assert (second.start, second.end) == (first.start, first.end)
    assert decode_cursor(second) == KEY
