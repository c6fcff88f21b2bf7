"""A disk that refuses: nothing is acknowledged that is not durable, nothing refused is given to a reader."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from totalizer.errors import JournalFailed, JournalFull
from totalizer.journal import Journal, JournalReader, quarantined, recover_idle

from .conftest import QUOTA_BYTES, SEGMENT_BYTES, FaultyDisk, drain, payloads_in, wait_until

Opener = Callable[..., Journal]
SIZES = {"segment_bytes": SEGMENT_BYTES, "quota_bytes": QUOTA_BYTES}


def accepted(journal: Journal, payload: bytes) -> bool:
    """True if the record is acknowledged, False if it is refused."""
    try:
        journal.append_and_wait(payload)
    except (JournalFailed, JournalFull):
        return False
    return True


def test_a_segment_is_durable_under_its_name_before_the_first_record_is_written(
    open_journal: Opener, disk: FaultyDisk
) -> None:
    journal = open_journal(disk=disk)
    begun = ["create", "reserve", "pwrite", "fsync", "rename", "sync_folder", "fsync"]
    start = len(disk.calls) - len(begun)
    assert disk.calls[start:] == begun
    journal.append_and_wait(b"x")
    assert disk.calls[start + len(begun) :] == ["pwrite", "fdatasync"]
    journal.append_and_wait(b"x" * SEGMENT_BYTES)
    assert disk.calls[start + len(begun) + 2 :] == ["truncate", "fsync", *begun, "pwrite", "fdatasync"]


def test_one_failed_sync_abandons_the_segment_and_acknowledges_from_a_new_one(
    open_journal: Opener, folder: Path, disk: FaultyDisk
) -> None:
    journal = open_journal(disk=disk)
    journal.append_and_wait(b"before")
    disk.countdown = {"fdatasync": 0}
    journal.append_and_wait(b"during")
    journal.append_and_wait(b"after")
    assert journal.stats().failures == 1
    assert journal.stats().segments == 2
    with JournalReader(folder) as reader:
        records = drain(reader)
        assert [(record.sequence, record.payload) for record in records] == [
            (1, b"before"),
            (2, b"during"),
            (3, b"after"),
        ]
        assert reader.damage == []


@pytest.mark.parametrize(
    "method", ["create", "reserve", "pwrite", "fdatasync", "fsync", "rename", "sync_folder", "truncate"]
)
def test_each_call_may_fail_once_anywhere_without_a_wrong_answer(method: str, folder: Path, disk: FaultyDisk) -> None:
    """The n-th call fails, for every n until none is left to fail; the records fill a segment and a half."""
    for nth in range(200):
        shutil.rmtree(folder, ignore_errors=True)
        disk.countdown = {}
        with Journal.open(folder, disk=disk, **SIZES) as journal:
            disk.countdown = {method: nth}
            answers = {number: accepted(journal, b"%d" % number + b"." * 2000) for number in range(20)}
            unharmed = method in disk.countdown
            disk.countdown = {}
        expected = [b"%d" % number + b"." * 2000 for number, answer in answers.items() if answer]
        assert payloads_in(folder) == expected
        assert quarantined(folder) == []
        with Journal.open(folder, **SIZES) as journal:
            journal.append_and_wait(b"again")
        assert payloads_in(folder) == [*expected, b"again"]
        if unharmed:
            assert all(answers.values())
            return
    pytest.fail("the fault was met 200 times")


def test_while_the_disk_refuses_everybody_is_told_and_when_it_is_back_it_goes_on(
    open_journal: Opener, folder: Path, disk: FaultyDisk
) -> None:
    answers: dict[object, bool] = {}

    def on_commit(tokens: list[object], error: JournalFailed | None) -> None:
        for token in tokens:
            assert token not in answers
            answers[token] = error is None

    journal = open_journal(disk=disk, on_commit=on_commit)
    journal.append_and_wait(b"before")
    disk.failing = {"fdatasync", "create"}
    tokens = []
    for number in range(500):
        try:
            journal.append(b"refused %d" % number, number)
        except JournalFailed:
            break
        tokens.append(number)
    wait_until(lambda: len(answers) == len(tokens))
    assert not any(answers.values())
    assert "disk refused" in str(journal.stats().refusal)
    assert journal.stats().pending_bytes == 0
    with pytest.raises(JournalFailed, match="disk refused"):
        journal.append_and_wait(b"refused")
    assert payloads_in(folder) == [b"before"]
    disk.failing = set()
    wait_until(lambda: journal.stats().refusal is None)
    journal.append_and_wait(b"after")
    journal.close()
    assert payloads_in(folder) == [b"before", b"after"]
    assert set(answers) == set(tokens)


def test_refused_records_stay_refused_if_the_process_is_killed_then(
    folder: Path, open_journal: Opener, disk: FaultyDisk
) -> None:
    """The group was written, the sync failed, and no segment can be begun or cut: only the watermark knows."""
    answer, question = os.pipe()
    child = os.fork()
    if child == 0:
        journal = Journal.open(folder, disk=disk, **SIZES)
        journal.append_and_wait(b"acknowledged")
        disk.failing = {"fdatasync", "create", "truncate"}
        os.write(question, b"yes" if accepted(journal, b"refused") else b"no")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(question)
    assert os.read(answer, 10) == b"no"
    os.close(answer)
    assert any(b"refused" in path.read_bytes() for path in folder.glob("*.segment"))
    assert payloads_in(folder) == [b"acknowledged"]
    assert recover_idle(folder)
    assert payloads_in(folder) == [b"acknowledged"]
    open_journal().append_and_wait(b"more")
    assert payloads_in(folder) == [b"acknowledged", b"more"]


def test_short_writes_are_completed(open_journal: Opener, folder: Path, disk: FaultyDisk) -> None:
    journal = open_journal(disk=disk)
    disk.short_writes = 7
    journal.append_and_wait(b"a somewhat longer payload")
    disk.short_writes = None
    assert payloads_in(folder) == [b"a somewhat longer payload"]


def test_a_write_that_writes_nothing_is_an_error_and_no_endless_loop(open_journal: Opener, disk: FaultyDisk) -> None:
    journal = open_journal(disk=disk)
    disk.short_writes = 0
    with pytest.raises(JournalFailed, match="wrote nothing"):
        journal.append_and_wait(b"x")
    disk.short_writes = None


@pytest.mark.parametrize("method", ["create", "reserve", "fsync", "rename", "sync_folder"])
def test_a_disk_that_refuses_at_the_start_is_told_and_the_folder_is_free_again(
    method: str, folder: Path, disk: FaultyDisk
) -> None:
    disk.failing, disk.error = {method}, errno.ENOSPC
    with pytest.raises(JournalFailed, match="No space left"):
        Journal.open(folder, disk=disk, **SIZES)
    Journal.open(folder, **SIZES).close()


def test_a_bug_in_the_writer_still_answers_everybody(
    open_journal: Opener, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[list[object], str]] = []
    journal = open_journal(disk=disk, on_commit=lambda tokens, error: answers.append((tokens, str(error))))
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)
    monkeypatch.setattr(disk, "fdatasync", lambda descriptor: 1 // 0)
    journal.append(b"x", 7)
    wait_until(lambda: bool(answers))
    assert answers[0][0] == [7]
    assert "ZeroDivisionError" in answers[0][1]
    with pytest.raises(JournalFailed, match="ZeroDivisionError"):
        journal.append(b"y", 8)


def test_a_file_size_limit_is_met_when_a_segment_is_begun(folder: Path) -> None:
    script = f"""
        import resource
        from pathlib import Path
        from totalizer.errors import JournalFailed
        from totalizer.journal import Journal
        journal = Journal.open(Path({str(folder)!r}), segment_bytes={SEGMENT_BYTES}, quota_bytes={QUOTA_BYTES})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_BYTES // 2, limits[1]))
        count = 0
        try:
            while True:
                journal.append_and_wait(b"." * 1000)
                count += 1
        except JournalFailed as error:
            print(count, error, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        while journal.stats().refusal is not None:
            pass
        journal.append_and_wait(b"back")
        journal.close()
    """.replace("SEGMENT_BYTES //", f"{SEGMENT_BYTES} //")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "File too large" in done.stdout
    assert len(payloads_in(folder)) == int(done.stdout.split()[0]) + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB in memory."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("mounting a tmpfs needs root on Linux")
    path = tmp_path / "disk"
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,nr_inodes=100", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {mount.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(small_disk: Path, open_journal: Opener) -> None:
    folder = small_disk / "journal"
    journal = open_journal(folder, quota_bytes=64 << 20)
    count = 0
    while accepted(journal, b"." * 3000):
        count += 1
    assert count > 50
    assert "No space left" in str(journal.stats().refusal)
    with JournalReader(folder) as reader:
        records = drain(reader)
        assert len(records) == count
        assert reader.discard(records[-1].position_after) > 0
        wait_until(lambda: journal.stats().refusal is None)
        journal.append_and_wait(b"room")
        assert [record.payload for record in drain(reader, records[-1].position_after)] == [b"room"]
    journal.close()


def test_a_disk_filled_by_others_refuses_at_the_start(small_disk: Path) -> None:
    (small_disk / "others").write_bytes(b"." * (500 << 10))
    with pytest.raises(JournalFailed, match="No space left"):
        Journal.open(small_disk / "journal", **SIZES)
    (small_disk / "others").unlink()
    with Journal.open(small_disk / "journal", **SIZES) as journal:
        journal.append_and_wait(b"x")
    assert payloads_in(small_disk / "journal") == [b"x"]
