"""What goes in comes out: once, in order, as it was, and never before it is durable."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from totalizer.errors import JournalBusy, JournalError, JournalFailed, JournalFull
from totalizer.journal import BEGINNING, Journal, JournalReader, Position, journals_in, recover_idle
from totalizer.journal.disk import Disk
from totalizer.journal.format import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, segment_numbers

from .conftest import SEGMENT_BYTES, FaultyDisk, drain, payloads_in, wait_until

Opener = Callable[..., Journal]


def test_records_are_read_back_in_order_with_gapless_sequences(open_journal: Opener, folder: Path) -> None:
    payloads = [b"", b"\0" * 100, b"one", b"two" * 1000, bytes(range(256))]
    journal = open_journal()
    for payload in payloads:
        journal.append_and_wait(payload)
    with JournalReader(folder) as reader:
        records = drain(reader)
        assert [record.payload for record in records] == payloads
        assert [record.sequence for record in records] == [1, 2, 3, 4, 5]
        assert records[-1].position_after == reader.durable_end()
        assert reader.id == journal.id
        assert reader.damage == []


def test_tokens_are_answered_once_each_in_order_after_their_records_are_readable(
    open_journal: Opener, folder: Path
) -> None:
    answers: list[object] = []
    readable: list[int] = []

    def on_commit(tokens: list[object], error: JournalError | None) -> None:
        assert error is None
        answers.extend(tokens)
        readable.append(len(payloads_in(folder)))
        assert readable[-1] >= len(answers)

    journal = open_journal(on_commit=on_commit)
    for number in range(500):
        journal.append(b"%d" % number, number)
    journal.close()
    assert answers == list(range(500))
    assert readable[-1] == 500


def test_append_and_wait_works_beside_tokens_from_many_threads(open_journal: Opener, folder: Path) -> None:
    answers: list[object] = []
    journal = open_journal(on_commit=lambda tokens, error: answers.extend(tokens))

    def produce(producer: int) -> None:
        for number in range(50):
            journal.append_and_wait(b"%d/%d" % (producer, number))
            journal.append(b"token", (producer, number))

    threads = [threading.Thread(target=produce, args=(producer,)) for producer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    payloads = payloads_in(folder)
    assert len(payloads) == 800
    assert sorted(answers) == sorted((producer, number) for producer in range(8) for number in range(50))
    for producer in range(8):
        prefix = b"%d/" % producer
        mine = [payload for payload in payloads if payload.startswith(prefix)]
        assert mine == [b"%d/%d" % (producer, number) for number in range(50)]


def test_an_event_loop_can_await_its_records(open_journal: Opener, folder: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def settle(tokens: list[object], error: JournalError | None) -> None:
            for token in tokens:
                assert isinstance(token, asyncio.Future)
                if error is None:
                    token.set_result(None)
                else:
                    token.set_exception(error)

        journal = open_journal(
            on_commit=lambda tokens, error: loop.call_soon_threadsafe(settle, tokens, error) and None
        )

        async def request(number: int) -> None:
            future: asyncio.Future[None] = loop.create_future()
            journal.append(b"%d" % number, future)
            await future

        await asyncio.gather(*(request(number) for number in range(300)))

    asyncio.run(main())
    assert sorted(map(int, payloads_in(folder))) == list(range(300))


def test_reading_goes_on_across_segments_and_reopening(open_journal: Opener, folder: Path) -> None:
    position, seen, expected = BEGINNING, [], []
    reader: JournalReader | None = None
    for run in range(3):
        journal = open_journal()
        reader = reader or JournalReader(folder)
        for number in range(60):
            payload = b"%d/%d" % (run, number) + b"." * 1500
            journal.append_and_wait(payload)
            expected.append(payload)
            if number % 7 == 0:
                records = drain(reader, position)
                seen += [record.payload for record in records]
                position = records[-1].position_after
        journal.close()
    assert reader is not None
    seen += [record.payload for record in drain(reader, position)]
    assert seen == expected
    assert len(segment_numbers(folder)) > 6
    assert payloads_in(folder) == expected
    assert reader.damage == []
    reader.close()


def test_a_position_can_be_any_record_after_and_bounds_hold(open_journal: Opener, folder: Path) -> None:
    journal = open_journal()
    for number in range(100):
        journal.append_and_wait(b"%04d" % number * 100)
    with JournalReader(folder) as reader:
        records = drain(reader)
        for index, record in enumerate(records):
            following = reader.read(record.position_after, records_max=3, bytes_max=1000)
            if following:  # else only the rest of the segment was left
                assert following == records[index + 1 : index + 1 + len(following)]
                assert len(following) <= 2  # 400 bytes each: two fit into 1000
        assert reader.read(records[-1].position_after, records_max=3, bytes_max=1000) == []
        assert len(reader.read(BEGINNING, records_max=1, bytes_max=1 << 20)) == 1


def test_a_record_larger_than_any_bound_but_its_own_is_written_and_read(open_journal: Opener, folder: Path) -> None:
    journal = open_journal(quota_bytes=8 << 20)
    payloads = [b"small", b"L" * (SEGMENT_BYTES * 20), b"small again"]
    for payload in payloads:
        journal.append_and_wait(payload)
    with JournalReader(folder) as reader:
        assert [record.payload for record in drain(reader, bytes_max=1)] == payloads


def test_a_payload_that_can_never_fit_is_refused_for_good(open_journal: Opener) -> None:
    journal = open_journal(quota_bytes=64 << 10)
    with pytest.raises(ValueError, match="at most"):
        journal.append(b"x" * (64 << 10), None)
    with pytest.raises(ValueError, match="at most"):
        journal.append_and_wait(b"x" * (64 << 10))


def test_nothing_is_readable_before_its_sync(folder: Path) -> None:
    entered, release = threading.Event(), threading.Event()

    class SlowDisk(Disk):
        def fdatasync(self, descriptor: int) -> None:
            entered.set()
            assert release.wait(30)
            super().fdatasync(descriptor)

    answers: list[object] = []
    with Journal.open(
        folder,
        segment_bytes=SEGMENT_BYTES,
        quota_bytes=1 << 20,
        disk=SlowDisk(),
        on_commit=lambda tokens, error: answers.extend(tokens),
    ) as journal:
        reader = JournalReader(folder)
        journal.append(b"secret", 1)
        assert entered.wait(30)
        # It is in the file already: only the watermark keeps the reader from it.
        assert any(b"secret" in path.read_bytes() for path in folder.glob("*.segment"))
        assert drain(reader) == []
        assert answers == []
        with pytest.raises(TimeoutError, match=r"0\.01 s"):
            journal.append_and_wait(b"later", timeout_s=0.01)
        assert journal.stats().pending_bytes == len(b"secret" + b"later") + 2 * RECORD_HEADER_BYTES
        release.set()
        wait_until(lambda: answers == [1])
        assert drain(reader)[0].payload == b"secret"
        reader.close()


def test_close_answers_what_is_pending_and_refuses_the_rest(open_journal: Opener, folder: Path) -> None:
    answers: list[object] = []
    journal = open_journal(on_commit=lambda tokens, error: answers.extend(tokens))
    for number in range(1000):
        journal.append(b"%d" % number, number)
    journal.close()
    journal.close()
    assert answers == list(range(1000))
    with pytest.raises(JournalFailed, match="closed"):
        journal.append(b"late", 0)
    with pytest.raises(JournalFailed, match="closed"):
        journal.append_and_wait(b"late")
    assert len(payloads_in(folder)) == 1000


def test_close_says_so_if_the_disk_hangs_and_keeps_the_folder(folder: Path) -> None:
    release = threading.Event()

    class HungDisk(Disk):
        def fdatasync(self, descriptor: int) -> None:
            assert release.wait(30)

    options = {"segment_bytes": SEGMENT_BYTES, "quota_bytes": 1 << 20}
    journal = Journal.open(folder, disk=HungDisk(), **options)
    journal.append(b"x", None)
    with pytest.raises(JournalFailed, match="has not taken"):
        journal.close(timeout_s=0.05)
    with pytest.raises(JournalBusy):
        Journal.open(folder, **options)
    release.set()
    journal.close()
    Journal.open(folder, **options).close()


def test_a_failing_callback_is_reported_and_stops_nobody(
    open_journal: Opener, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: reported.append(arguments.exc_value))

    def on_commit(tokens: list[object], error: JournalError | None) -> None:
        raise KeyError("callback")

    journal = open_journal(on_commit=on_commit)
    journal.append(b"one", 1)
    wait_until(lambda: len(reported) == 1)
    journal.append_and_wait(b"two")
    journal.close()
    assert payloads_in(folder) == [b"one", b"two"]


def test_the_quota_refuses_before_accepting_and_discarding_makes_room(open_journal: Opener, folder: Path) -> None:
    quota = 4 * SEGMENT_BYTES
    journal = open_journal(quota_bytes=quota)
    written = 0
    refusal: JournalFull | None = None
    while refusal is None:
        try:
            journal.append_and_wait(b"x" * 1000)
            written += 1
        except JournalFull as error:
            refusal = error
    assert "quota" in str(refusal)
    assert sum(path.stat().st_size for path in folder.glob("*.segment")) <= quota
    assert journal.stats().bytes_on_disk <= quota
    reader = JournalReader(folder)
    records = drain(reader)
    assert len(records) == written
    assert reader.discard(records[-1].position_after) > 0

    def accepts() -> bool:
        try:
            journal.append_and_wait(b"after")
        except JournalFull:
            return False
        return True

    wait_until(accepts)
    assert [record.payload for record in drain(reader, records[-1].position_after)] == [b"after"]
    reader.close()


@pytest.mark.parametrize("quota", [32 << 10, 40 << 10, 100 << 10])
def test_a_quota_smaller_than_a_segment_never_locks_up(open_journal: Opener, folder: Path, quota: int) -> None:
    journal = open_journal(quota_bytes=quota, segment_bytes=1 << 20)
    reader, position, count = JournalReader(folder), BEGINNING, 0

    def step() -> bool:
        nonlocal position, count
        try:
            journal.append_and_wait(b"y" * 5000)
            count += 1
        except JournalFull:
            for record in drain(reader, position):
                position = record.position_after
            reader.discard(position)
        return count == 60

    wait_until(step)
    assert sum(path.stat().st_size for path in folder.glob("*.segment")) <= quota
    reader.close()


def test_discard_deletes_whole_segments_before_the_position_and_never_the_newest(
    open_journal: Opener, folder: Path
) -> None:
    journal = open_journal()
    for _ in range(100):
        journal.append_and_wait(b"z" * 2000)
    reader = JournalReader(folder)
    records = drain(reader)
    numbers = segment_numbers(folder)
    assert len(numbers) > 4
    middle = next(record for record in records if record.position_after.segment == numbers[2])
    assert reader.discard(BEGINNING) == 0
    assert reader.discard(middle.position_after) > 0
    assert segment_numbers(folder) == numbers[2:]
    assert drain(reader, middle.position_after) == records[records.index(middle) + 1 :]
    reader.discard(Position(1 << 60, 0))
    assert segment_numbers(folder) == numbers[-1:]
    journal.append_and_wait(b"on")
    assert drain(reader, records[-1].position_after)[-1].payload == b"on"
    reader.close()


def test_positions_are_never_reused_even_if_everything_was_discarded(open_journal: Opener, folder: Path) -> None:
    last = BEGINNING
    for run in range(5):
        journal = open_journal()
        identity = journal.id
        if run % 2:
            journal.append_and_wait(b"%d" % run)
        with JournalReader(folder) as reader:
            assert reader.id == identity
            records = drain(reader, last)
            assert [record.payload for record in records] == ([b"%d" % run] if run % 2 else [])
            for record in records:
                assert record.position_after > last
                last = record.position_after
            reader.discard(last)
        journal.close()
        assert recover_idle(folder)
    # Starts without work leave nothing behind.
    assert len(segment_numbers(folder)) <= 2


def test_polling_an_idle_journal_touches_no_file(open_journal: Opener, folder: Path, disk: FaultyDisk) -> None:
    journal = open_journal()
    journal.append_and_wait(b"one")
    reader = JournalReader(folder, disk=disk)
    position = drain(reader)[-1].position_after
    disk.failing = {"pread"}
    assert reader.read(position, records_max=1, bytes_max=1) == []
    journal.append_and_wait(b"two")
    disk.error = errno.EACCES
    reader.close()
    with pytest.raises(JournalFailed, match="cannot be read"):
        reader.read(position, records_max=1, bytes_max=1)
    disk.failing = set()
    assert drain(reader, position)[0].payload == b"two"
    reader.close()


def test_stats_count_what_happened(open_journal: Opener, folder: Path) -> None:
    journal = open_journal()
    for _ in range(10):
        journal.append_and_wait(b"12345")
    stats = journal.stats()
    assert (stats.records, stats.failures, stats.pending_bytes, stats.refusal) == (10, 0, 0, None)
    assert stats.bytes == 10 * (5 + RECORD_HEADER_BYTES)
    assert 1 <= stats.syncs <= 10
    assert stats.segments == 1
    assert stats.bytes_on_disk == SEGMENT_HEADER_BYTES + stats.bytes


def test_journals_are_found_below_a_root(open_journal: Opener, tmp_path: Path) -> None:
    assert journals_in(tmp_path / "nowhere") == []
    paths = [tmp_path / name for name in ("api-0", "api-1", "deep/er/edge-0")]
    for path in reversed(paths):
        open_journal(path)
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    assert journals_in(tmp_path) == paths
    assert journals_in(paths[0]) == paths[:1]


@pytest.mark.parametrize("sizes", [(100, 1 << 20), (1 << 20, 100)])
def test_sizes_without_room_for_records_are_refused(open_journal: Opener, sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="or more"):
        open_journal(segment_bytes=sizes[0], quota_bytes=sizes[1])
