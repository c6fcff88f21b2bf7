"""Acknowledged means loadable: whatever any way in accepts, PostgreSQL stores.

Thousands of made-up bodies, and good ones broken byte by byte, go through the collector; what it accepts is loaded at
the end, and nothing may be a dead letter.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.conftest import Feed
from totalizer.catalog import Catalog, load_catalog
from totalizer.catalog.read import parse_catalog
from totalizer.collect import Collector
from totalizer.errors import Refused
from totalizer.store.plan import apply_plan, plan_catalog
from totalizer.web.encoding import unpack, zstd
from totalizer.web.ingest_routes import Head
from totalizer.web.intake import Route
from totalizer.web.principal import Principal
from totalizer.web.route_table import route_table

EVERYTHING = """
[event_type.everything]
time = "from"
subject = "line"
unknown_fields = "keep:data"
[event_type.everything.fields]
line = { type = "text", length_max = 65536 }
choice = { type = "text", values = ["on", "o\\tff", "o\\\\ff"] }
whole = { type = "integer" }
part = { type = "number" }
price = { type = "decimal", scale = 18 }
flag = { type = "boolean" }
who = { type = "uuid" }
data = { type = "json" }
"""
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from('\\\t\n\r\0\x0b\x7f.N"{}é😀\u2028\ufeff\ud800'), max_size=6),
    st.sampled_from(["\\.", "\\N", "__proto__", "constructor", "\0", "a\0b"]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([2**63 - 1, -(2**63), 2**63, 2**64, 10**400, 5e-324, 1.7976931348623157e308, -0.0, 1e22]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def raw(*texts: str) -> st.SearchStrategy[str]:
    """JSON as it stands."""
    return st.sampled_from(texts)


def encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """JSON of made-up values."""
    return values.map(json.dumps)


TIMES = raw(
    '"9999-12-31T23:59:59Z"', '"0001-01-01T00:00:00+14:00"', '"1970-01-01T00:00:00Z"', '"1970-01-01T00:00:00+00:01"',
    '"2025-02-30T00:00:00Z"', '"2024-02-29T23:59:59.9999999-12:00"', '"2025-09-05T23:59:60Z"', '"2025-09-05t00:00z"',
    "1757066400000", "253402300799999", "100000000000", "-1", "0", "null", "1e12",
)  # fmt: skip
DECIMALS = raw(
    "1E+29", "1E+30", "0E-18", "0.1e-17", "1e-19", "-0", "-0.0e5", "999999999999999999999999999999.999999999999999999",
    '"1_000"', '"٣"', '"NaN"', '"Infinity"', '"1e5"', '" 1"', '"0x10"', '"+.5"', "1e999999999", "9" * 5000,
)  # fmt: skip
NUMBERS_AS_WRITTEN = raw("1e308", "1e309", "-1e999", "4e-325", "1E22", "-0", "1.0", "00", "1.", "NaN", "9" * 5000)
UUIDS = raw(
    '"7F1F9D9A-55D6-4F4C-8F6A-0E6F0A3B9C11"', '"7f1f9d9a55d64f4c8f6a0e6f0a3b9c11"', '""',
    '"7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11\\n"', '"{7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11}"',
)  # fmt: skip
OBJECTS = encoded(st.dictionaries(TEXTS, VALUES, max_size=3)) | raw(
    '{"a":1,"a":2}', '{"__proto__":{"x":1},"b":[{"constructor":{}}]}', '{"\\u0000":1}', '{"a":["\\u0000"]}',
    '{"a":"\\ud800"}', '{"a":1e400}', '{"a":18446744073709551616}', '{"a":1e308,"b":5e-324}',
    '{"a":' * 31 + "1" + "}" * 31, '{"b":' * 40 + "1" + "}" * 40,
)  # fmt: skip
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "line": encoded(TEXTS) | raw('"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\xff"', '"a\tb"', "null"),
        "choice": raw('"on"', '"o\\tff"', '"o\\\\ff"', '"off"'),
        "whole": encoded(NUMBERS) | NUMBERS_AS_WRITTEN,
        "part": encoded(NUMBERS) | NUMBERS_AS_WRITTEN,
        "price": encoded(NUMBERS) | DECIMALS,
        "flag": raw("true", "false", "null", "1"),
        "who": UUIDS,
        "data": OBJECTS,
        "id": encoded(TEXTS),
        "source": encoded(TEXTS),
        "from": TIMES,
        "extra": encoded(VALUES),
        "__proto__": encoded(VALUES),
    },
)


def written(members: dict[str, str]) -> bytes:
    """A JSON object with at most a few members: more would seldom be right all at once."""
    parts = [f"{json.dumps(name)}:{value}" for name, value in members.items()]
    return ("{" + ",".join(parts) + "}").encode("utf-8", "surrogatepass")


@pytest.fixture
def everything() -> Catalog:
    """The shipped catalog and a type with every kind of field."""
    shipped = load_catalog()
    [own] = parse_catalog([("everything.toml", EVERYTHING)]).event_types.values()
    return Catalog({**shipped.event_types, own.name: own}, shipped.rollups)


class Books:
    """What was acknowledged, and how it is sent."""

    def __init__(self, feed: Feed, catalog: Catalog) -> None:
        self.feed, self.accepted, self.refused = feed, 0, 0
        apply_plan(feed.administrator, plan_catalog(feed.administrator, catalog))
        feed.collector = Collector(catalog, feed.collector._clock, batch_events_max=1000)
        self.organization_id = feed.organization()

    def send(self, admit: Callable[[], Any]) -> None:
        """Journal what is accepted."""
        refused: Refused | None = None
        try:
            admission = admit()
        except Refused as error:
            refused = error
        if refused is not None:
            self.refused += 1
            assert 400 <= refused.status < 500
            assert len(refused.detail) < 2000
            return
        self.feed.append(admission.payload)
        self.accepted += 1

    def balance(self) -> None:
        """Load it all: every acknowledged event is stored, or a duplicate."""
        journalled = self.feed.load()
        dead = self.feed.administrator.execute("SELECT event_type, reason, line FROM totalizer.dead_letters").fetchall()
        assert dead == []
        stored = self.feed.administrator.execute(
            "SELECT sum(loaded + duplicate + conflict)::int FROM totalizer.load_ledger"
        ).fetchone()
        assert stored == (journalled,)


@pytest.fixture
def books(feed: Feed, everything: Catalog) -> Books:
    return Books(feed, everything)


def test_made_up_events(books: Books) -> None:
    collector = books.feed.collector

    @settings(max_examples=400, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(MEMBERS, min_size=1, max_size=5))
    def send(events: list[Any]) -> None:
        bodies = [written(event) for event in events]
        for body in bodies:
            books.send(partial(collector.admit_one, books.organization_id, "everything", body))
        books.send(lambda: collector.admit_batch(books.organization_id, b'{"everything":[' + b",".join(bodies) + b"]}"))

    send()
    assert min(books.accepted, books.refused) > 100
    books.balance()


ENTRY = {"id": "1", "userId": "u", "action": "a\\b\tü", "timestamp": "2025-09-05T10:00:00.5+02:00", "duration": 5,
         "metadata": {"k": [1, 2.5, None, {"x": "😀"}]}}  # fmt: skip
CLOUD = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "time": "2025-09-05T10:00:00Z", "ext": 1,
         "data": {"k": "v"}}  # fmt: skip
MESSAGE = {"type": "track", "event": "E", "userId": 5, "messageId": "m", "timestamp": 1757066400000,
           "properties": {"a": 1}, "context": {"ip": "::1"}}  # fmt: skip
#: Path, media type, a good body.
GOOD: list[tuple[str, str, Any]] = [
    ("/api/metrics/entries", "application/json", ENTRY),
    ("/api/metrics/batch", "application/json", {"time_entries": [ENTRY, ENTRY], "timestamp": "2025-09-05T10:00:00Z"}),
    ("/api/v1/events", "application/cloudevents+json", CLOUD),
    ("/api/v1/events", "application/cloudevents-batch+json", [CLOUD, {**CLOUD, "data_base64": "e30=", "data": None}]),
    ("/v1/batch", "application/json", {"batch": [MESSAGE], "sentAt": "2025-09-05T10:00:00Z", "context": {"x": 1}}),
    ("/v1/track", "application/json", MESSAGE),
]
#: What a mutation puts in.
PIECES = [b"\0", b"\xff", b"\\u0000", b"\\ud800", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\n", b"\t",
          b"1e999",
          b"null", b"9" * 50, b"NaN", b"\xef\xbb\xbf", b'"id":', b"__proto__", b"\xe2\x80\xa8", b"-", b" "]  # fmt: skip


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The body with a few bytes flipped, cut out, doubled, or put in."""
    result = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(result) + 1), chance.randint(1, 12)
        match chance.randrange(5):
            case 0 if at < len(result):
                result[at] ^= 1 << chance.randrange(8)
            case 1:
                del result[at : at + size]
            case 2:
                result[at:at] = result[at : at + size]
            case 3:
                result[at:at] = chance.choice(PIECES)
            case _:
                result[at : at + size] = chance.choice(PIECES)
    return bytes(result)


@pytest.mark.parametrize(("path", "media_type", "good"), GOOD, ids=[f"{path} {kind}" for path, kind, _ in GOOD])
def test_bodies_broken_byte_by_byte(books: Books, path: str, media_type: str, good: Any) -> None:
    route: Route = route_table(books.feed.collector, line_bytes_max=1 << 20)[path][media_type]
    meters: Any = None  # no request is counted here
    principal = Principal(books.organization_id, frozenset(("ingest",)), meters, "a test")
    body, chance = json.dumps(good).encode(), random.Random(f"{path} {media_type}")
    accepted = 0
    for number in range(1500):
        sent = mutated(body, chance) if number else body
        with contextlib.suppress(Refused):
            payload, _, status, _ = route.admit(principal, Head({"content-type": media_type}, ""), sent)
            assert 200 <= status < 300
            accepted += 1
            books.feed.append(payload)
    assert accepted > 20
    books.balance()


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_packed_bodies_broken_byte_by_byte(encoding: str) -> None:
    body = json.dumps([ENTRY] * 20).encode()
    packed, chance = gzip.compress(body) if encoding == "gzip" else zstd.compress(body), random.Random(encoding)
    for _ in range(3000):
        with contextlib.suppress(Refused):
            assert len(unpack(encoding, mutated(packed, chance), 100_000)) <= 100_000
