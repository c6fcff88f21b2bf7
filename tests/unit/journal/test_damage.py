"""Torn tails are cut, damage in the middle is stepped over, and no payload is ever given that was not appended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Damage, Journal, JournalReader, quarantined, recover_idle
from totalizer.journal.disk import Disk
from totalizer.journal.format import (
    HEADER_COPIES,
    RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    encode_group,
    segment_numbers,
    segment_path,
    unpack_header,
)

from .conftest import SEGMENT_BYTES, FaultyDisk, UnsyncedDisk, drain, payloads_in

Opener = Callable[..., Journal]
PAYLOADS = [b"first", b"second one", b"third, a little longer", b"4", b"the fifth"]
HEADER_COPY_BYTES = 76


@pytest.fixture
def small(folder: Path, open_journal: Opener) -> Path:
    """A closed journal of one segment with PAYLOADS, each a group of its own; gives the segment's file."""
    journal = open_journal()
    for payload in PAYLOADS:
        journal.append_and_wait(payload)
    journal.close()
    return segment_path(folder, segment_numbers(folder)[-1])


def ends(payloads: list[bytes]) -> list[int]:
    """Offset behind each record of a segment that holds just these."""
    offsets, end = [], SEGMENT_HEADER_BYTES
    for payload in payloads:
        end += RECORD_HEADER_BYTES + len(payload)
        offsets.append(end)
    return offsets


def forget_watermark(folder: Path) -> None:
    """What a power loss may do to it."""
    (folder / "durable").write_bytes(bytes(128))


def read_damaged(folder: Path) -> tuple[list[bytes], list[Damage]]:
    with JournalReader(folder, disk=UnsyncedDisk()) as reader:
        return [record.payload for record in drain(reader)], reader.damage


def flips(data: bytes, ranges: list[range]) -> Iterator[tuple[int, bytes]]:
    """Every single bit of some ranges turned over, one at a time, with its byte's offset."""
    for where in ranges:
        for offset in where:
            for bit in range(8):
                changed = bytearray(data)
                changed[offset] ^= 1 << bit
                yield offset, bytes(changed)


def test_a_torn_tail_at_every_byte_is_cut_and_nothing_else_lost(small: Path, folder: Path) -> None:
    data = small.read_bytes()
    assert ends(PAYLOADS)[-1] == len(data)
    for length in range(ends(PAYLOADS)[-2], len(data)):
        for tail in (b"", bytes(len(data) - length + 100)):  # the file is shorter, or reserved and still zero
            small.write_bytes(data[:length] + tail)
            forget_watermark(folder)
            assert recover_idle(folder, disk=UnsyncedDisk())
            assert read_damaged(folder) == (PAYLOADS[:-1], [])
            assert small.stat().st_size == ends(PAYLOADS)[-2]
    assert quarantined(folder) == []


def test_recovery_after_a_torn_tail_begins_a_new_segment(small: Path, folder: Path, open_journal: Opener) -> None:
    small.write_bytes(small.read_bytes()[:-1])
    forget_watermark(folder)
    journal = open_journal()
    assert journal.recovery.torn_bytes == RECORD_HEADER_BYTES + len(PAYLOADS[-1]) - 1
    journal.append_and_wait(b"new")
    with JournalReader(folder) as reader:
        records = drain(reader)
        assert [record.payload for record in records] == [*PAYLOADS[:-1], b"new"]
        assert [record.sequence for record in records] == [1, 2, 3, 4, 5]
        assert records[-1].position_after.segment == int(small.name[:16], 16) + 1


def test_every_bit_flip_in_an_unfinished_segment_is_found_by_recovery(small: Path, folder: Path) -> None:
    data = small.read_bytes()
    headers = [range(start, start + HEADER_COPY_BYTES) for start in HEADER_COPIES]
    last = ends(PAYLOADS)[-2]
    for offset, changed in flips(data, [*headers, range(SEGMENT_HEADER_BYTES, len(data))]):
        small.write_bytes(changed)
        forget_watermark(folder)
        shutil.rmtree(folder / "quarantine", ignore_errors=True)
        assert recover_idle(folder, disk=UnsyncedDisk())
        payloads, damage = read_damaged(folder)
        noted = quarantined(folder)
        if offset < SEGMENT_HEADER_BYTES:  # the other copy of the header serves
            assert (payloads, noted) == (PAYLOADS, [])
        elif offset >= last:  # not to be told from an interrupted write
            assert (payloads, noted) == (PAYLOADS[:-1], [])
        else:
            hit = next(index for index, end in enumerate(ends(PAYLOADS)) if offset < end)
            assert payloads == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
            assert [(note.offset, note.records_lost) for note in noted] == [
                ([SEGMENT_HEADER_BYTES, *ends(PAYLOADS)][hit], 1)
            ]
            assert damage == noted
            kept = (folder / "quarantine" / str(noted[0].kept)).read_bytes()
            assert kept == changed[noted[0].offset : noted[0].offset + noted[0].length]


def test_every_bit_flip_behind_a_valid_watermark_is_found_by_the_reader(small: Path, folder: Path) -> None:
    data = small.read_bytes()
    for offset, changed in flips(data, [range(SEGMENT_HEADER_BYTES, len(data))]):
        small.write_bytes(changed)
        shutil.rmtree(folder / "quarantine", ignore_errors=True)
        hit = next(index for index, end in enumerate(ends(PAYLOADS)) if offset < end)
        payloads, damage = read_damaged(folder)
        assert payloads == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
        assert [(each.offset, each.records_lost) for each in damage] == [
            ([SEGMENT_HEADER_BYTES, *ends(PAYLOADS)][hit], 1)
        ]


def test_damage_in_a_sealed_segment_is_reported_once_and_reading_goes_on(folder: Path, open_journal: Opener) -> None:
    journal = open_journal()
    for number in range(60):
        journal.append_and_wait(b"%02d" % number + b"." * 1500)
    numbers = segment_numbers(folder)
    path = segment_path(folder, numbers[1])
    data = bytearray(path.read_bytes())
    data[SEGMENT_HEADER_BYTES + 2000 : SEGMENT_HEADER_BYTES + 5000] = b"\xff" * 3000
    path.write_bytes(data)
    with JournalReader(folder) as reader:
        records = drain(reader)
        # Three records lie in the bytes overwritten, in part or whole.
        missing = set(range(1, 61)) - {record.sequence for record in records}
        assert len(records) == 57
        assert len(missing) == 3
        assert [each.records_lost for each in reader.damage] == [3]
        assert reader.damage[0].kept is not None
        drain(reader)
        assert len(reader.damage) == 1
    note = json.loads((folder / "quarantine" / f"{reader.damage[0].kept[:-6]}.json").read_text())
    assert note["segment"] == numbers[1]
    assert "no readable record" in note["reason"]


def test_a_damaged_end_of_a_sealed_segment_is_counted(folder: Path, open_journal: Opener) -> None:
    journal = open_journal()
    for number in range(40):
        journal.append_and_wait(b"%02d" % number + b"." * 1500)
    path = segment_path(folder, segment_numbers(folder)[0])
    path.write_bytes(path.read_bytes()[:-2000])
    with JournalReader(folder) as reader:
        assert len(drain(reader)) == 38
        assert [each.records_lost for each in reader.damage] == [2]


def test_a_damaged_end_that_was_acknowledged_is_no_torn_tail(small: Path, folder: Path) -> None:
    """A writer was killed, and then the disk lost a record which the watermark says had been durable."""
    from totalizer.journal.folder import load_identity
    from totalizer.journal.watermark import Watermark

    identity = load_identity(folder)
    assert identity is not None
    watermark = Watermark(folder, identity.id_bytes, Disk())
    end = watermark.read()
    assert end is not None
    watermark.reset(end._replace(ended=0))
    watermark.close()
    small.write_bytes(small.read_bytes()[:-1] + b"?")
    assert recover_idle(folder)
    assert payloads_in(folder) == PAYLOADS[:-1]
    assert [(note.records_lost, note.reason) for note in quarantined(folder)] == [
        (1, "acknowledged records cannot be read")
    ]


def test_a_hole_in_the_last_group_is_told_from_lost_records(folder: Path, open_journal: Opener) -> None:
    journal = open_journal()
    journal.append_and_wait(b"durable")
    journal.close()
    path = segment_path(folder, segment_numbers(folder)[-1])
    header = unpack_header(path.read_bytes()[:SEGMENT_HEADER_BYTES])
    assert header is not None
    group = bytearray(encode_group([b"a" * 50, b"b" * 50, b"c" * 50], header.marker, 2))
    group[80:120] = bytes(40)  # a page that did not get to the disk
    path.write_bytes(path.read_bytes() + group)
    forget_watermark(folder)
    assert recover_idle(folder)
    assert payloads_in(folder) == [b"durable", b"a" * 50, b"c" * 50]
    assert "may never have been acknowledged" in quarantined(folder)[0].reason


def test_foreign_copied_and_unreadable_segments_are_set_aside(
    small: Path, folder: Path, tmp_path: Path, open_journal: Opener
) -> None:
    other = open_journal(tmp_path / "other")
    other.append_and_wait(b"not yours")
    other.close()
    number = int(small.name[:16], 16)
    foreign, copied, unreadable = (segment_path(folder, number + step) for step in (1, 2, 3))
    shutil.copy(next((tmp_path / "other").glob("*.segment")), foreign)
    shutil.copy(small, copied)
    unreadable.write_bytes(b"\0" * 20000)
    # A reader that comes first steps over them, too.
    assert read_damaged(folder)[0] == PAYLOADS
    journal = open_journal()
    reasons = [damage.reason for damage in journal.recovery.damage]
    assert ["another journal" in reasons[0], "a copy of" in reasons[1], "neither copy" in reasons[2]] == [True] * 3
    journal.append_and_wait(b"more")
    assert payloads_in(folder) == [*PAYLOADS, b"more"]
    # Numbers that were seen are used up.
    assert segment_numbers(folder) == [number, number + 4]
    assert {damage.kept for damage in quarantined(folder)} == {foreign.name, copied.name, unreadable.name}


def test_a_missing_segment_is_noted_and_its_records_counted(folder: Path, open_journal: Opener) -> None:
    journal = open_journal()
    for number in range(60):
        journal.append_and_wait(b"%02d" % number + b"." * 1500)
    journal.close()
    numbers = segment_numbers(folder)
    segment_path(folder, numbers[1]).unlink()
    with JournalReader(folder) as reader:
        records = drain(reader)
        assert [damage.records_lost for damage in reader.damage] == [60 - len(records)]
        assert len(records) < 60
    assert len(open_journal().recovery.damage) == 1


def test_a_lost_journal_json_is_made_again_with_the_same_id(small: Path, folder: Path, open_journal: Opener) -> None:
    identity = JournalReader(folder).id
    for damaged in (None, b"", b"{", b"[]", b'{"format": "totalizer journal", "version": 1, "id": 5}'):
        (folder / "journal.json").unlink()
        if damaged is not None:
            (folder / "journal.json").write_bytes(damaged)
        assert recover_idle(folder)
        assert JournalReader(folder).id == identity
        assert payloads_in(folder) == PAYLOADS


def test_unreadable_pages_are_damage_and_no_end(folder: Path, open_journal: Opener) -> None:
    journal = open_journal(segment_bytes=1 << 20)
    for number in range(100):
        journal.append_and_wait(b"%03d" % number * 300)

    class BadPage(Disk):
        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            if offset < 20 * 4096 + 4096 and offset + length > 20 * 4096:
                raise OSError(5, "Input/output error")
            return super().pread(descriptor, length, offset)

    with JournalReader(folder, disk=BadPage()) as reader:
        records = drain(reader)
        lost = reader.damage[0].records_lost
        assert lost is not None
        assert len(records) + lost == 100
        assert 4 <= lost <= 6
        assert records[-1].sequence == 100


def test_a_page_that_can_be_read_the_second_time_is_no_damage(folder: Path, open_journal: Opener) -> None:
    journal = open_journal()
    for number in range(10):
        journal.append_and_wait(b"%d" % number * 100)

    class Flickering(Disk):
        left = 3

        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            if offset >= SEGMENT_HEADER_BYTES and self.left:
                self.left -= 1
                raise OSError(5, "Input/output error")
            return super().pread(descriptor, length, offset)

    with JournalReader(folder, disk=Flickering()) as reader:
        assert [record.sequence for record in drain(reader)] == list(range(1, 11))
        assert reader.damage == []


def test_a_disk_that_reads_something_else_each_time_never_stops_the_reader(folder: Path, open_journal: Opener) -> None:
    journal = open_journal()
    for number in range(50):
        journal.append_and_wait(b"%d" % number * 100)

    class Drunk(Disk):
        turn = 0

        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            data = super().pread(descriptor, length, offset)
            self.turn += 1
            return data if offset < SEGMENT_HEADER_BYTES or self.turn % 3 else bytes(len(data))

    with JournalReader(folder, disk=Drunk()) as reader:
        payloads = [record.payload for record in drain(reader, records_max=3)]
        assert set(payloads) <= {b"%d" % number * 100 for number in range(50)}


def test_payloads_that_look_like_records_are_not_taken_for_them(folder: Path, open_journal: Opener) -> None:
    """A sender may know the marker of a segment it has seen; it cannot know that of the one it writes to."""
    journal = open_journal()
    journal.append_and_wait(b"seen")
    seen = unpack_header(segment_path(folder, segment_numbers(folder)[-1]).read_bytes()[:SEGMENT_HEADER_BYTES])
    assert seen is not None
    journal.close()
    journal = open_journal()
    for sequence in (2, 3):
        journal.append_and_wait(encode_group([b"forged"], seen.marker, sequence + 1))
    journal.append_and_wait(b"real")
    journal.close()
    path = segment_path(folder, segment_numbers(folder)[-1])
    data = bytearray(path.read_bytes())
    for record in range(2):
        data[SEGMENT_HEADER_BYTES + record * (2 * RECORD_HEADER_BYTES + 6)] ^= 1
    path.write_bytes(data)
    assert payloads_in(folder) == [b"seen", b"real"]


def test_a_quarantine_on_a_full_disk_does_not_stop_the_reading(small: Path, folder: Path, disk: FaultyDisk) -> None:
    data = bytearray(small.read_bytes())
    data[SEGMENT_HEADER_BYTES + 1] ^= 1
    small.write_bytes(data)
    disk.failing, disk.error = {"pwrite"}, 28
    with JournalReader(folder, disk=disk) as reader:
        assert [record.payload for record in drain(reader)] == PAYLOADS[1:]
        assert "No space left" in reader.damage[0].reason
        assert reader.damage[0].kept is None


def test_garbage_of_every_length_never_stops_recovery(folder: Path, open_journal: Opener) -> None:
    open_journal().close()
    for length in (0, 1, 4095, 8191, 8192, 8193, 20000, SEGMENT_BYTES):
        segment_path(folder, 1000 + length).write_bytes(b"\xa5" * length)
        (folder / "durable").write_bytes(b"\xa5" * 128)
        assert recover_idle(folder)
        assert drain(JournalReader(folder), BEGINNING) == []


@pytest.mark.parametrize(
    "length", [0, 1, 5, 11, 1000, SEGMENT_BYTES, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, 0xFFFFFFFF]
)
@pytest.mark.parametrize("known", [True, False], ids=["watermark", "no watermark"])
def test_a_lying_length_takes_one_record_with_it_and_no_memory(
    length: int, known: bool, small: Path, folder: Path
) -> None:
    """Found by its bound or its checksum, before anything as long as it says is read."""
    data = bytearray(small.read_bytes())
    at = ends(PAYLOADS)[0]
    data[at + 8 : at + 12] = length.to_bytes(4, "little")
    small.write_bytes(data)
    longest = 0

    class Measured(UnsyncedDisk):
        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            nonlocal longest
            found = super().pread(descriptor, length, offset)
            longest = max(longest, len(found))
            return found

    if not known:
        forget_watermark(folder)
        assert recover_idle(folder, disk=Measured())
    with JournalReader(folder, disk=Measured()) as reader:
        assert [record.payload for record in drain(reader)] == PAYLOADS[:1] + PAYLOADS[2:]
    assert longest <= len(data)


def test_what_an_earlier_file_left_behind_the_end_is_not_read(small: Path, folder: Path, open_journal: Opener) -> None:
    """Records of another segment, whole and with higher sequences, on blocks that were not written over."""
    journal = open_journal()
    for number in range(9):
        journal.append_and_wait(b"later %d" % number)
    journal.close()
    later = segment_path(folder, segment_numbers(folder)[-1])
    stale = later.read_bytes()[SEGMENT_HEADER_BYTES:]
    later.unlink()
    for gap in (0, 1, 4096):
        small.write_bytes(small.read_bytes()[: ends(PAYLOADS)[-1]] + bytes(gap) + stale)
        forget_watermark(folder)
        assert read_damaged(folder) == ([], []), "the newest is not read before it is recovered"
        assert recover_idle(folder)
        assert read_damaged(folder) == (PAYLOADS, [])


def test_a_first_record_said_again_is_not_given_twice(small: Path, folder: Path) -> None:
    """The bytes of a record once more, behind the last: its sequence is an old one."""
    data = small.read_bytes()
    small.write_bytes(data + data[SEGMENT_HEADER_BYTES : ends(PAYLOADS)[1]])
    forget_watermark(folder)
    assert recover_idle(folder)
    assert read_damaged(folder) == (PAYLOADS, [])


@pytest.mark.parametrize("missing", ["first", "last", "both ends"])
def test_segments_missing_at_an_end_take_no_other_with_them(missing: str, folder: Path, open_journal: Opener) -> None:
    journal = open_journal()
    for number in range(80):
        journal.append_and_wait(b"%02d" % number + b"." * 1500)
    journal.close()
    numbers = segment_numbers(folder)
    gone = {"first": numbers[:1], "last": numbers[-1:], "both ends": [numbers[0], numbers[-1]]}[missing]
    with JournalReader(folder) as reader:
        records = drain(reader)
    for number in gone:
        segment_path(folder, number).unlink()
    kept = [record.payload for record in records if record.position_after.segment not in gone]
    journal = open_journal()
    journal.append_and_wait(b"new")
    with JournalReader(folder) as reader:
        found = drain(reader)
    assert [record.payload for record in found] == [*kept, b"new"]
    assert found[-1].sequence == 81
    assert found[-1].position_after.segment > numbers[-1]


@pytest.mark.parametrize("method", ["open", "pread", "unlink", "sync_folder"])
def test_each_call_of_a_reader_may_fail_once_and_nothing_is_lost_or_discarded_early(
    method: str, folder: Path, open_journal: Opener
) -> None:
    """Either it says so, or it tries again itself; asked again, it gives what it did not."""
    for nth in range(300):
        journal = open_journal(folder / f"{nth}")
        payloads = [b"%02d" % number + b"." * 1500 for number in range(50)]
        for payload in payloads:
            journal.append_and_wait(payload)
        left, found, after = nth, [], BEGINNING

        class FailingOnce(UnsyncedDisk):
            def __getattribute__(self, name: str) -> object:
                nonlocal left
                if name == method:
                    left -= 1
                    if left == -1:
                        raise OSError(5, "Input/output error")
                return super().__getattribute__(name)

        with JournalReader(folder / f"{nth}", disk=FailingOnce()) as reader:
            for _ in range(100):
                try:
                    records = reader.read(after, records_max=10, bytes_max=1 << 20)
                    found += records
                    after = records[-1].position_after if records else after
                    reader.discard(after)
                except JournalFailed:
                    continue
                if not records:
                    break
            assert [record.payload for record in found] == payloads
            assert reader.damage == []
        journal.close()
        if left >= 0:
            assert nth > 0
            return
    pytest.fail("the fault was met 300 times")
