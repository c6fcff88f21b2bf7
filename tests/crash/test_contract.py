"""What a journal promises whatever it is made of: the real one and the one on SQLite, each by every test here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crash.sqlite_journal import SqliteJournal, SqliteReader
from support import wait_until
from totalizer.errors import JournalBusy, JournalFailed, JournalFull
from totalizer.journal import BEGINNING, Journal, JournalReader, Position

SIZES = {"segment_bytes": 24 << 10, "quota_bytes": 256 << 10}
PAYLOADS = [b"", b"one", b"\0" * 5000, bytes(range(256)) * 40, b"last"]


class Medium(NamedTuple):
    """One implementation."""

    writer: Callable[..., Any]
    reader: Callable[[Path], Any]


@pytest.fixture(params=["segments", "sqlite"])
def medium(request: pytest.FixtureRequest) -> Medium:
    """Each in turn."""
    return {"segments": Medium(Journal.open, JournalReader), "sqlite": Medium(SqliteJournal.open, SqliteReader)}[
        request.param
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where it is."""
    return tmp_path / "journal"


@pytest.fixture
def opened(medium: Medium, folder: Path) -> Iterator[Callable[..., Any]]:
    """Opens it; what is still open is closed after the test."""
    journals = []

    def opener(**options: Any) -> Any:
        journals.append(medium.writer(folder, **{**SIZES, **options}))
        return journals[-1]

    yield opener
    for journal in journals:
        journal.close()


def everything(medium: Medium, folder: Path, after: Position = BEGINNING, **bounds: int) -> list[Any]:
    """Records a new reader gives."""
    found: list[Any] = []
    with medium.reader(folder) as reader:
        while records := reader.read(after, **{"records_max": 3, "bytes_max": 1 << 20, **bounds}):
            found += records
            after = records[-1].position_after
        assert reader.damage == []
    return found


def taken(journal: Any, payload: bytes) -> bool:
    """False if there is no room."""
    try:
        journal.append_and_wait(payload)
    except JournalFull:
        return False
    return True


def test_what_was_appended_is_read_in_order(medium: Medium, folder: Path, opened: Callable[..., Any]) -> None:
    journal = opened()
    for payload in PAYLOADS:
        journal.append_and_wait(payload)
    records = everything(medium, folder)
    assert [record.payload for record in records] == PAYLOADS
    assert [record.sequence for record in records] == [1, 2, 3, 4, 5]
    positions = [record.position_after for record in records]
    assert positions == sorted(set(positions))
    with medium.reader(folder) as reader:
        assert reader.durable_end() == positions[-1]
    for index, position in enumerate(positions):
        assert [record.payload for record in everything(medium, folder, position)] == PAYLOADS[index + 1 :]


def test_bounds_of_a_read_hold_and_one_record_is_given_however_long(
    medium: Medium, folder: Path, opened: Callable[..., Any]
) -> None:
    journal = opened()
    for payload in PAYLOADS:
        journal.append_and_wait(payload)
    with medium.reader(folder) as reader:
        assert len(reader.read(BEGINNING, records_max=2, bytes_max=1 << 20)) == 2
        two = reader.read(BEGINNING, records_max=9, bytes_max=10)
        assert [record.payload for record in two] == PAYLOADS[:2]
        assert [record.payload for record in reader.read(two[-1].position_after, records_max=9, bytes_max=10)] == [
            PAYLOADS[2]
        ]


def test_each_token_is_answered_once_and_in_order_even_if_it_is_the_same(
    folder: Path, opened: Callable[..., Any]
) -> None:
    answers: list[tuple[object, JournalFailed | None]] = []
    journal = opened(on_commit=lambda tokens, error: answers.extend((token, error) for token in tokens))
    for number in range(200):
        journal.append(b"%d" % number, number // 2)
    journal.close()
    assert answers == [(number // 2, None) for number in range(200)]


def test_many_threads_append_at_once(medium: Medium, folder: Path, opened: Callable[..., Any]) -> None:
    told: Counter[object] = Counter()
    journal = opened(on_commit=lambda tokens, error: told.update(tokens))

    def produce(name: int) -> None:
        for number in range(20):
            journal.append(b"%d/%d/a" % (name, number), (name, number))
            journal.append_and_wait(b"%d/%d/w" % (name, number))

    threads = [threading.Thread(target=produce, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert set(told.values()) == {1}
    assert len(told) == 80
    payloads = [record.payload for record in everything(medium, folder)]
    for name in range(4):
        mine = [payload for payload in payloads if payload.startswith(b"%d/" % name)]
        assert mine == [b"%d/%d/%s" % (name, number, kind) for number in range(20) for kind in (b"a", b"w")]


def test_reopening_goes_on_where_it_was(medium: Medium, folder: Path, opened: Callable[..., Any]) -> None:
    identities, after = set(), BEGINNING
    for run in range(4):
        journal = opened()
        identities.add(journal.id)
        journal.append_and_wait(b"%d" % run)
        journal.close()
        records = everything(medium, folder, after)
        assert [(record.sequence, record.payload) for record in records] == [(run + 1, b"%d" % run)]
        after = records[-1].position_after
    assert len(identities) == 1


def test_only_one_may_write(opened: Callable[..., Any]) -> None:
    first = opened()
    with pytest.raises(JournalBusy):
        opened()
    first.close()
    opened().append_and_wait(b"x")


def test_what_is_discarded_does_not_come_back_and_positions_rise(
    medium: Medium, folder: Path, opened: Callable[..., Any]
) -> None:
    after, numbers = BEGINNING, iter(range(1000))
    for _ in range(3):
        journal, sent = opened(), []
        for _ in range(20):
            sent.append(b"%d" % next(numbers) + b"." * 3000)
            journal.append_and_wait(sent[-1])
        with medium.reader(folder) as reader:
            records = everything(medium, folder, after)
            assert [record.payload for record in records] == sent
            assert all(record.position_after > after for record in records)
            after = records[-1].position_after
            assert reader.discard(after) > 0
            assert reader.read(after, records_max=9, bytes_max=99) == []
        journal.close()
        assert everything(medium, folder, after) == []


def test_a_full_journal_refuses_and_takes_again_what_there_is_room_for(
    medium: Medium, folder: Path, opened: Callable[..., Any]
) -> None:
    journal, count = opened(), 0
    while taken(journal, b"%04d" % count * 500):
        count += 1
    assert count > 50
    with medium.reader(folder) as reader:
        records = everything(medium, folder)
        assert len(records) == count
        reader.discard(records[-1].position_after)
        wait_until(lambda: taken(journal, b"room"), "room")
        assert reader.read(records[-1].position_after, records_max=1, bytes_max=1)[0].payload == b"room"


def test_a_payload_that_can_never_fit_is_refused_for_good(opened: Callable[..., Any]) -> None:
    journal = opened()
    with pytest.raises(ValueError, match="bytes"):
        journal.append(b"." * SIZES["quota_bytes"], None)
    journal.append_and_wait(b"x")


def test_closing_answers_all_and_refuses_more(medium: Medium, folder: Path, opened: Callable[..., Any]) -> None:
    answers: list[object] = []
    journal = opened(on_commit=lambda tokens, error: answers.extend(tokens))
    for number in range(50):
        journal.append(b"%d" % number, number)
    journal.close()
    journal.close()
    assert answers == list(range(50))
    for call in (lambda: journal.append(b"x", 0), lambda: journal.append_and_wait(b"x")):
        with pytest.raises(JournalFailed, match="closed"):
            call()
    assert len(everything(medium, folder)) == 50


def test_a_reader_needs_a_journal(medium: Medium, tmp_path: Path) -> None:
    with pytest.raises(JournalFailed, match=r"no journal|not exist"):
        medium.reader(tmp_path)
