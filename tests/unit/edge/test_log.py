"""The log of one process: what waits, what is sealed, what is done; the same after a crash and for other processes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.edge.backlog import fold, read_waiting
from totalizer.edge.entry import EntryEncoder
from totalizer.edge.folder import Folders
from totalizer.edge.log import EntryLog, Taken
from totalizer.edge.options import Options
from totalizer.edge.records import Done, Fold, Seal, done_payload, entry_payload, seal_payload
from totalizer.errors import JournalBusy, JournalFailed, JournalFull
from totalizer.journal import Journal, JournalReader, Position, Record
from totalizer.journal.format import segment_numbers, segment_path
from unit.edge.parts import MONDAY_NS, SetClock, entry

MS = MONDAY_NS // 1_000_000


def payload(number: int, **members: Any) -> bytes:
    encoder = EntryEncoder(clock=SetClock(), entry_bytes_max=1 << 20)
    return entry_payload(encoder.encode(entry(number, id=str(number), **members)), MS + number)


def opened(place: Path, **options: Any) -> EntryLog:
    return EntryLog.claim(Folders(place), Options(data_path=place, **options))


def begun(place: Path, count: int, sealed: int) -> tuple[EntryLog, Taken]:
    """A log with some entries, the first few of them in a batch that was begun."""
    log = opened(place)
    for number in range(count):
        log.append(payload(number))
    taken = log.take(sealed)
    assert taken is not None
    log.seal("b", MS, taken)
    return log, taken


def ids(taken: Taken | None) -> list[int]:
    return [] if taken is None else [int(each["id"]) for each in taken.entries]


def finish(log: EntryLog, taken: Taken, batch_id: str = "b") -> None:
    log.done(Done(batch_id, taken.through, taken.after.segment, taken.after.offset, delivered=len(taken.entries)))


def crash(log: EntryLog, place: Path) -> Path:
    """What a process that is killed now would leave: a copy of its folder."""
    copy = place.with_name(f"{place.name}-crashed")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    return copy


def test_entries_wait_until_they_are_done(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(5):
        log.append(payload(number))
    assert (log.waiting, log.added, log.oldest_ms()) == (5, 5, MS)
    taken = log.take(3)
    assert taken is not None
    assert ids(taken) == [0, 1, 2]
    log.seal("b", MS, taken)
    assert (log.waiting, log.is_sealed) == (5, True)
    finish(log, taken)
    assert (log.waiting, log.is_sealed, log.oldest_ms()) == (2, False, MS + 3)
    assert ids(log.take(10)) == [3, 4]
    log.settle()
    assert (log.waiting, log.added) == (2, 5)
    log.close()


def test_taking_changes_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(5):
        log.append(payload(number))
    assert [ids(log.take(count)) for count in (2, 4, 1)] == [[0, 1], [0, 1, 2, 3], [0]]
    log.close()


def test_another_life_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(6):
        log.append(payload(number))
    first = log.take(2)
    assert first is not None
    log.seal("first", MS, first)
    finish(log, first, "first")
    second = log.take(2)
    assert second is not None
    log.seal("second", MS + 1, second)
    log.append(payload(6))
    log.close()

    again = opened(tmp_path)
    assert again.folder == log.folder
    assert (again.waiting, again.added, again.is_sealed) == (5, 0, True)
    taken = again.take(100)
    assert taken is not None
    assert ids(taken) == [2, 3]
    assert (taken.sealed and taken.sealed.batch_id, taken.sealed and taken.sealed.timestamp) == ("second", MS + 1)
    finish(again, taken, "second")
    assert ids(again.take(100)) == [4, 5, 6]
    again.close()


@given(st.lists(st.sampled_from(["add", "add", "add", "seal", "done", "settle", "crash", "reopen"]), max_size=40))
def test_whatever_happens_each_entry_is_done_once_and_in_order(tmp_path_factory: Any, steps: list[str]) -> None:
    """What is done but not settled when the process crashes is taken again, with the same batch id."""
    place = tmp_path_factory.mktemp("log")
    log, number, batches = opened(place), 0, 0
    done: list[int] = []
    settled: list[int] = []
    names: dict[int, str] = {}
    taken: Taken | None = None
    for step in steps:
        if step == "add":
            log.append(payload(number))
            number += 1
        elif step == "seal" and not log.is_sealed and (taken := log.take(2)):
            settled = list(done)
            batches += 1
            log.seal(f"batch {batches}", MS, taken)
            assert all(names.setdefault(each, f"batch {batches}") == f"batch {batches}" for each in ids(taken))
        elif step == "done" and log.is_sealed and (taken := log.take(2)):
            finish(log, taken)
            done += ids(taken)
        elif step == "settle":
            log.settle()
            settled = list(done)
        elif step in ("crash", "reopen"):
            if step == "crash":
                place = crash(log, place)
                done = settled
            log.close()
            settled = list(done)
            log = opened(place)
            if log.is_sealed and (taken := log.take(2)):
                assert taken.sealed is not None
                assert {names[each] for each in ids(taken)} == {taken.sealed.batch_id}
        assert log.waiting == number - len(done)
    rest = log.take(1000)
    if log.is_sealed:
        assert rest is not None
        finish(log, rest)
        done += ids(rest)
        rest = log.take(1000)
    assert done + ids(rest) == list(range(number))
    assert [int(each["id"]) for each in read_waiting(log.folder, None)] == list(range(len(settled), number))
    log.close()


def test_segments_that_are_dealt_with_are_given_back(tmp_path: Path) -> None:
    log = opened(tmp_path, quota_bytes=1 << 20)
    for number in range(200):
        log.append(payload(number, metadata={"x": "y" * 4000}))
    before = len(segment_numbers(log.folder))
    assert before > 5
    while taken := log.take(10):
        log.seal("b", MS, taken)
        finish(log, taken)
    log.settle()
    assert len(segment_numbers(log.folder)) == 1
    assert log.waiting == 0
    log.close()
    assert opened(tmp_path).waiting == 0


def fill(log: EntryLog) -> None:
    for number in range(2000):
        log.append(payload(number, metadata={"x": "y" * 3000}))


def test_a_quota_is_kept_and_leaves_room_for_what_is_needed_to_drain(tmp_path: Path) -> None:
    log = opened(tmp_path, quota_bytes=1 << 20)
    with pytest.raises(JournalFull, match="quota_bytes"):
        fill(log)
    added = log.added
    assert 250 < added < 420
    assert log.is_full
    for _ in range(added):
        taken = log.take(1)
        assert taken is not None
        log.seal("b", MS, taken)
        finish(log, taken)
        log.settle()
    assert log.waiting == 0
    log.close()


def test_the_oldest_are_dropped_a_segment_at_a_time(tmp_path: Path) -> None:
    log = opened(tmp_path, quota_bytes=1 << 20)
    for number in range(100):
        log.append(payload(number, metadata={"x": "y" * 4000}))
    segments = len(segment_numbers(log.folder))
    dropped = log.drop_oldest()
    assert 10 < dropped < 40
    assert ids(log.take(1)) == [dropped]
    assert log.waiting == 100 - dropped
    assert len(segment_numbers(log.folder)) == segments - 1
    log.close()
    again = opened(tmp_path)
    assert (again.waiting, ids(again.take(1))) == (100 - dropped, [dropped])
    again.close()


def test_a_sealed_batch_can_be_dropped_too(tmp_path: Path) -> None:
    log, _ = begun(tmp_path, 4, 2)
    assert log.drop_oldest() == 4
    assert (log.waiting, log.is_sealed, log.take(5)) == (0, False, None)
    log.close()


def test_a_batch_has_a_longest_length_in_bytes(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(20):
        log.append(payload(number, metadata={"x": "y" * 1_000_000}))
    assert 5 <= len(ids(log.take(20))) <= 8
    log.close()


def test_entries_taken_with_durability_interval_are_there_after_a_sync(tmp_path: Path) -> None:
    log = opened(tmp_path, durability="interval")
    for number in range(500):
        log.append(payload(number))
    log.sync()
    assert (log.waiting, log.added) == (500, 500)
    log.close()
    assert len(read_waiting(log.folder, None)) == 500


def test_one_that_is_closed_takes_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.close()
    with pytest.raises(JournalFailed, match="closed"):
        log.append(payload(1))


def test_two_in_one_place_have_journals_of_their_own(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    assert {one.folder.name, two.folder.name} == {"edge-0", "edge-1"}
    with pytest.raises(JournalBusy):
        EntryLog.open(one.folder, Options(data_path=tmp_path))
    one.close()
    two.close()


def test_damage_costs_the_damaged_entries_and_no_others(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(30):
        log.append(payload(number))
    path = segment_path(log.folder, segment_numbers(log.folder)[0])
    data = bytearray(path.read_bytes())
    for number in (3, 4, 17):
        at = data.index(b'"id":"%d"' % number)
        data[at : at + 4] = b"????"
    path.write_bytes(data)
    found = []
    while taken := log.take(7):
        log.seal("b", MS, taken)
        found += ids(taken)
        finish(log, taken)
    assert found == [number for number in range(30) if number not in (3, 4, 17)]
    assert (log.waiting, log.damaged) == (0, 3)
    log.append(payload(30))
    assert (log.waiting, ids(log.take(5))) == (1, [30])
    log.close()


def test_a_sealed_batch_whose_entries_are_all_damaged_is_passed_over(tmp_path: Path) -> None:
    log, _ = begun(tmp_path, 4, 2)
    log.close()
    path = segment_path(log.folder, segment_numbers(log.folder)[0])
    path.write_bytes(path.read_bytes().replace(b'"id":"0"', b'"id":"?"').replace(b'"id":"1"', b'"id":"?"'))
    again = opened(tmp_path)
    assert ids(again.take(5)) == [2, 3]
    assert again.waiting == 2
    again.close()


def test_another_process_can_read_along(tmp_path: Path) -> None:
    log, taken = begun(tmp_path, 10, 4)
    with JournalReader(log.folder) as reader:
        state = fold(reader)
    assert (state.waiting, state.sealed, state.seal and state.seal.batch_id) == (10, 4, "b")
    assert [int(each["id"]) for each in read_waiting(log.folder, 3)] == [0, 1, 2]
    finish(log, taken)
    log.settle()
    assert [int(each["id"]) for each in read_waiting(log.folder, None)] == list(range(4, 10))
    log.close()


def test_records_of_a_later_version_are_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.close()
    with Journal.open(log.folder, segment_bytes=1 << 20, quota_bytes=1 << 22) as journal:
        journal.append_and_wait(b'S{"batchId":7}')
    with pytest.raises(JournalFailed, match="later version"):
        opened(tmp_path)


def test_a_fold_needs_only_what_is_left_of_a_journal() -> None:
    """Segments that are dealt with go, and with them the beginning of a batch.

    ```
    sequence   1 2 3 | 4 5 6 S D 9 10     gone up to |
    ```
    """
    records = [(each, payload(each)) for each in (4, 5, 6)]
    records += [(7, seal_payload(Seal("b", MS, 5, 5))), (8, done_payload(Done("b", 5, 1, 500)))]
    records += [(each, payload(each)) for each in (9, 10)]
    state = Fold()
    state.take(Record(Position(1, 100 * sequence), sequence, data) for sequence, data in records)
    assert (state.waiting, state.through, state.start, state.seal) == (3, 5, Position(1, 500), None)
