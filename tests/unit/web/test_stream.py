"""Streams by line: numbering, pieces, back-pressure, and what is said when one is broken off."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.errors import JournalFailed, Refusal, Refused
from totalizer.event import decode_batch
from totalizer.web import stream
from totalizer.web.ingest_routes import Head
from totalizer.web.intake import Sink
from totalizer.web.principal import Principal
from totalizer.web.stream import ITEMS_MAX, PIECE_LINES, PIECES_WAITING_MAX, Lines, StreamRoute

NOTHING: Any = None
PRINCIPAL = Principal("00000000-0000-4000-8000-000000000001", frozenset(("ingest",)), NOTHING, "a test")


class Disk:
    """A journal that takes a piece when it is told to.

    Args:
        fails_at: number of the piece that cannot be written; later ones can.
        full_at: number of the first piece for which there is no room.
    """

    def __init__(self, fails_at: int | None = None, full_at: int | None = None) -> None:
        self.fails_at, self.full_at = fails_at, full_at
        self.payloads: list[bytes] = []
        self.waiting = self.waiting_max = 0

    def append(self, payload: bytes) -> asyncio.Future[int]:
        if len(self.payloads) == self.full_at:
            raise Refused(Refusal.JOURNAL_FULL, "full", retry_after_s=5)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        number = len(self.payloads)
        self.payloads.append(payload)
        self.waiting += 1
        self.waiting_max = max(self.waiting, self.waiting_max)
        asyncio.get_running_loop().call_later(0.001, self._answer, future, number)
        return future

    def _answer(self, future: asyncio.Future[int], number: int) -> None:
        self.waiting -= 1
        if number == self.fails_at:
            future.set_exception(JournalFailed("broken disk"))
        else:
            future.set_result(number)

    def rows(self) -> int:
        return sum(self.rows_of(payload) for payload in self.payloads)

    @staticmethod
    def rows_of(payload: bytes) -> int:
        return sum(section.rows for section in decode_batch(payload)[0].sections)


def receipt(_organization_id: str, sequence: int, accepted: int) -> bytes:
    """A receipt that can be read."""
    return b"%d:%d" % (sequence, accepted)


@pytest.fixture
def collector(catalog: Catalog) -> Collector:
    return Collector(catalog, SYSTEM_CLOCK, batch_events_max=1000)


def entry(number: int) -> bytes:
    return json.dumps({"id": str(number), "userId": "u", "action": "a"}).encode()


def sent(
    collector: Collector, chunks: Iterable[bytes], disk: Disk, name: str | None = "time_entries", query: str = "",
    **headers: str,
) -> dict[str, Any]:  # fmt: skip
    """The answer to a stream that comes in these chunks."""
    event_type = None if name is None else collector.tools[name].event_type
    route = StreamRoute(collector, event_type, 10_000)

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    head = Head({name.replace("_", "-"): text for name, text in headers.items()}, query)
    answer, status = asyncio.run(route.stream(PRINCIPAL, head, body(), Sink(disk.append, receipt)))
    assert status == 202
    found: dict[str, Any] = json.loads(answer)
    return found


@given(st.lists(st.sampled_from([b"", b"a", b"bc", b"\r"]), max_size=8), st.integers(1, 5), st.booleans())
def test_lines_are_the_same_however_they_are_cut(parts: list[bytes], size: int, ended: bool) -> None:
    body = b"\n".join(parts) + (b"\n" if ended else b"")
    lines, found = Lines(10), []
    for start in range(0, len(body), size):
        for some in lines.split(body[start : start + size]):
            found += some
    for some in lines.end():
        found += some
    expected = body.split(b"\n")
    assert found == (expected[:-1] if expected[-1] == b"" else expected)


def test_a_line_without_end_is_refused_in_time() -> None:
    lines = Lines(100)
    assert [list(lines.split(b"x" * 40)) for _ in range(2)] == [[], []]
    with pytest.raises(Refused, match="longer than 100 bytes"):
        list(lines.split(b"x" * 40))
    with pytest.raises(Refused, match="longer than 100 bytes"):
        list(Lines(100).split(b"a\n" + b"x" * 101 + b"\n"))


def test_every_line_counts_whatever_the_chunks(collector: Collector) -> None:
    body = b"\xef\xbb\xbf" + b"".join(entry(number) + b"\r\n" for number in range(2500)) + b"\n  \n" + entry(2500)
    for size in (7919, len(body)):
        disk = Disk()
        answer = sent(collector, [body[start : start + size] for start in range(0, len(body), size)], disk)
        blocks = answer.pop("receipts")
        assert answer == {"accepted": 2501, "rejected": 0, "lines": 2503, "items": []}
        assert [block["receipt"] for block in blocks] == [
            f"{number}:{disk.rows_of(payload)}" for number, payload in enumerate(disk.payloads)
        ]
        bounds = [(block["first_line"], block["last_line"]) for block in blocks]
        assert (bounds[0][0], bounds[-1][1]) == (1, 2503)
        assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(bounds))
        assert disk.rows() == 2501
    assert len(disk.payloads) == 2502 // PIECE_LINES + 2  # the last line, which no newline ends, comes by itself


def test_the_first_rejected_lines_are_named_by_number(collector: Collector) -> None:
    lines = [entry(0), b"", b"{bad", b'{"userId":5}', entry(1), *([b"[]"] * 200)]
    answer = sent(collector, [b"\n".join(lines)], Disk())
    assert (answer["accepted"], answer["rejected"], answer["lines"]) == (2, 202, 205)
    assert [item["line"] for item in answer["items"]] == [3, 4, *range(6, 6 + ITEMS_MAX - 2)]
    assert [item["code"] for item in answer["items"][:2]] == ["bad_json", "invalid_event"]


def test_events_are_placed_by_their_lines(collector: Collector) -> None:
    """The place of an event in its block's receipt is its line, less the block's first; empty lines count."""
    disk = Disk()
    answer = sent(collector, [b"\n".join([b"", entry(0), b"{bad", b" ", entry(1)]) + b"\n"], disk)
    [block] = answer["receipts"]
    assert block == {"first_line": 1, "last_line": 5, "receipt": "0:2"}
    [section] = decode_batch(disk.payloads[0])[0].sections
    assert section.places == (1, 4)


def test_a_block_without_an_accepted_event_has_no_receipt(collector: Collector) -> None:
    answer = sent(collector, [b"{bad\n", entry(0) + b"\n"], Disk())
    assert [block["first_line"] for block in answer["receipts"]] == [2]


def test_a_stream_without_end_has_so_many_receipts(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RECEIPTS_MAX", 3)
    answer = sent(collector, pieces(5), Disk())
    assert (answer["accepted"], [block["last_line"] for block in answer["receipts"]]) == (50, [10, 20, 30])


def test_a_stream_is_not_all_or_nothing(collector: Collector) -> None:
    disk = Disk()
    refused = broken_off(lambda: sent(collector, pieces(2), disk, query="atomic=true"))
    assert (refused.refusal, disk.payloads) == (Refusal.BAD_REQUEST, [])
    assert "send a batch" in refused.detail
    assert sent(collector, pieces(2), disk, query="atomic=false")["accepted"] == 20


def test_a_stream_of_several_types(collector: Collector) -> None:
    lines = [
        {"event_type": "time_entries", "userId": "u", "action": "a"},
        {"event_type": "events", "type": "x", "event": 5},
        {"userId": "u"}, {"event_type": "unheard"}, {"event_type": 5}, 5,
    ]  # fmt: skip
    disk = Disk()
    answer = sent(collector, [b"\n".join(json.dumps(line).encode() for line in lines)], disk, None)
    assert (answer["accepted"], [item["line"] for item in answer["items"]]) == (2, [3, 4, 5, 6])
    [payload] = disk.payloads
    assert {section.event_type for section in decode_batch(payload)[0].sections} == {"time_entries", "events"}
    assert b'{"event":5}' in payload


def test_no_more_is_read_than_can_be_made_durable(collector: Collector) -> None:
    disk, packed = Disk(), gzip.compress(b"\n".join(entry(number) for number in range(30_000)))
    answer = sent(collector, [packed[start : start + 1000] for start in range(0, len(packed), 1000)], disk,
                  content_encoding="gzip")  # fmt: skip
    assert answer["accepted"] == disk.rows() == 30_000
    assert disk.waiting_max <= PIECES_WAITING_MAX + 1


def test_a_long_stream_takes_little_memory(collector: Collector) -> None:
    piece = b"".join(entry(number) + b"\n" for number in range(500))
    disk = Disk()
    disk.payloads = Forgetful()
    sent(collector, (piece for _ in range(2)), disk)
    tracemalloc.start()
    try:
        sent(collector, (piece for _ in range(200)), disk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(piece) * 200 > 4 << 20
    assert peak < 3 << 20


class Forgetful(list[bytes]):
    """Keeps nothing."""

    def append(self, payload: bytes) -> None:
        """Forget it."""


def broken_off(send: Callable[[], Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        send()
    return caught.value


def pieces(count: int) -> list[bytes]:
    """Chunks of 10 lines."""
    return [b"".join(entry(10 * piece + number) + b"\n" for number in range(10)) for piece in range(count)]


@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_disk_that_fails_ends_it_and_says_where(collector: Collector, at: int) -> None:
    refused = broken_off(lambda: sent(collector, pieces(20), Disk(fails_at=at)))
    assert refused.refusal is Refusal.JOURNAL_FAILED
    assert (refused.extra["lines"], refused.extra["accepted"]) == (10 * at, 10 * at)
    assert len(refused.extra["receipts"]) == at
    assert refused.retry_after_s is not None
    assert f"the first {10 * at} lines are dealt with" in refused.detail


@pytest.mark.parametrize("at", [0, 3])
def test_a_full_journal_ends_it_once_all_before_is_on_disk(collector: Collector, at: int) -> None:
    disk = Disk(full_at=at)
    refused = broken_off(lambda: sent(collector, pieces(10), disk))
    assert refused.refusal is Refusal.JOURNAL_FULL
    assert refused.extra["accepted"] == disk.rows() == 10 * at


def test_a_damaged_end_leaves_what_came_before(collector: Collector) -> None:
    packed = gzip.compress(b"".join(pieces(5)), 0)
    refused = broken_off(lambda: sent(collector, [packed[:-4]], Disk(), content_encoding="gzip"))
    assert (refused.refusal, refused.extra["lines"]) == (Refusal.BAD_JSON, 50)
    refused = broken_off(lambda: sent(collector, [*pieces(2), b"x" * 20_000], Disk()))
    assert (refused.refusal, refused.extra["lines"]) == (Refusal.BODY_TOO_LARGE, 20)


def test_nothing_accepted_is_a_refusal(collector: Collector) -> None:
    assert broken_off(lambda: sent(collector, [], Disk())).refusal is Refusal.BATCH_EMPTY
    assert broken_off(lambda: sent(collector, [b"\n \n"], Disk())).refusal is Refusal.BATCH_EMPTY
    refused = broken_off(lambda: sent(collector, [b"5\n6"], Disk()))
    assert (refused.refusal, refused.extra["rejected"]) == (Refusal.INVALID_EVENT, 2)
