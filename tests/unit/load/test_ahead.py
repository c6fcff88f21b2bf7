"""A piece prepared ahead is the piece that would have been made, or none."""

from __future__ import annotations

from pathlib import Path

from totalizer.event import BatchHeader, Section, encode_batch
from totalizer.journal import Position, Record
from totalizer.load.ahead import Lookahead, prepare
from totalizer.load.gather import Gathered, gather

COLUMNS = ("organization_id", "sold_at", "id", "shop")
ORGANIZATION = "00000000-0000-4000-8000-000000000001"
ONE, OTHER = Path("one"), Path("other")


def record(number: int, rows: int) -> Record:
    ids = [f"{number:08x}-0000-7000-8000-00000000000{row}" for row in range(rows)]
    lines = "".join(
        f"{ORGANIZATION}\t2025-09-05T10:00:0{9 - row}.000000Z\t{event_id}\tx\n" for row, event_id in enumerate(ids)
    ).encode()
    header = BatchHeader(
        ORGANIZATION, "2025-09-05T10:00:00.000000Z", (Section("sales", COLUMNS, True, rows, len(lines)),)
    )
    return Record(Position(1, number), number, encode_batch(header, lines))


class Counting:
    """Gathers, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, payloads: list[bytes], rows_max: int) -> Gathered:
        self.calls += 1
        return gather(payloads, rows_max)


def test_it_is_used_for_the_very_records_it_was_made_of_and_once() -> None:
    records, ahead, counting = [record(number, 3) for number in range(4)], Lookahead(), Counting()
    ahead.begin(ONE, counting, records, 6)
    first = ahead.take(ONE, counting, records, 6)
    assert counting.calls == 1
    apart = prepare(gather, records, 6)
    assert (first.gathered.lines, first.orders) == (apart.gathered.lines, apart.orders)
    assert first.gathered.records == 2
    assert ahead.take(ONE, counting, records, 6).orders == first.orders
    assert counting.calls == 2, "after a failure the piece is made anew"
    ahead.close()


def test_what_was_made_of_others_is_not_used() -> None:
    records, others, ahead, counting = [record(1, 3)], [record(2, 2)], Lookahead(), Counting()
    ahead.begin(ONE, counting, records, 10)
    assert ahead.take(OTHER, counting, others, 10).gathered.rows == 2
    assert ahead.take(ONE, counting, list(records), 10).gathered.rows == 3
    assert counting.calls == 3
    ahead.begin(ONE, counting, records, 10)
    ahead.forget(ONE)
    ahead.close()
    assert ahead.take(ONE, counting, records, 10).gathered.rows == 3
    assert counting.calls == 5


def test_lines_and_keys_are_in_the_order_of_their_indexes() -> None:
    prepared = prepare(gather, [record(2, 3), record(1, 2)], 10)
    [(target, order)] = prepared.orders.items()
    [lines] = prepared.gathered.lines.values()
    assert order.lines == sorted(lines) != lines
    assert [key.split(b"\t")[2] for key in order.keys] == sorted(line.split(b"\t")[2] + b"\n" for line in lines)
    assert target.keyed
