"""Journals on file systems that lose power, freeze, turn read-only or have no room for one more file."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from crash import tally, writer
from crash.chances import Chances
from crash.forked import Forked
from crash.mounts import Mount, image, in_memory
from crash.oracle import KEPT, Ledger, Verdict, judge, judge_journal, payload_of
from crash.test_side_by_side import read_all
from support import wait_until
from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Journal, JournalReader, recover_idle
from totalizer.journal.disk import Disk

SIZES = {"segment_bytes": writer.SEGMENT_BYTES, "quota_bytes": writer.QUOTA_BYTES}
COUNT = 20


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Mount]:
    """A file system of its own."""
    with image(tmp_path, "ext4") as mount:
        yield mount


class CutDisk(Disk):
    """The real disk until the power fails, before the N-th call: then this process is gone too."""

    def __init__(self, mount: Mount, calls: int) -> None:
        self._mount, self._left = mount, calls

    def __getattribute__(self, name: str) -> object:
        if name in ("create", "pwrite", "fdatasync", "fsync", "reserve", "truncate", "rename", "unlink", "mkdir"):
            self._left -= 1
            if self._left < 0:
                self._mount.cut_power()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattribute__(name)


def verdict_of(folder: Path, ledger: Ledger) -> Verdict:
    """What is there after recovery. A torn last group may be reported as damage: it was never acknowledged."""
    known = ledger.known()
    if not (folder / "journal.json").exists():
        return judge(known, [], payload_of)
    assert recover_idle(folder)
    verdict = judge_journal(folder, known)
    return Verdict(verdict.lost, verdict.doubled, verdict.altered, verdict.invented)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_power_fails_before_each_call(kind: str, tmp_path: Path, chances: Chances) -> None:
    """From the first start over sealing, discarding and the end; and again within the recovery from that."""
    ledger, losses, chance = Ledger(tmp_path / "ledger"), 0, chances.of("cut", kind)
    with image(tmp_path, kind) as mount:
        for nth in chances.moments(0, "power", kind):
            folder = mount.path / f"{nth}" / "journal"
            ledger = Ledger(tmp_path / f"ledger-{nth}")
            for run in count():
                calls = nth if run == 0 else chance.randrange(30)
                work = partial(writer.main, folder, ledger, f"w{run}", COUNT, disk=CutDisk(mount, calls))
                done = Forked(work, log=tmp_path / "log")
                assert done.killed or done.code == 0, done.log.read_text()
                if done.killed:
                    losses += 1
                    tally.count("power loss")
                    mount.umount()
                    mount.mount()
                assert verdict_of(folder, ledger) == KEPT, f"seed {chances.seed}, call {nth}, run {run}"
                if not done.killed or run == 2:
                    break
            assert writer.main(folder, ledger, "fresh", 2) == 0
            assert verdict_of(folder, ledger) == KEPT
            ledger.close()
            if run == 0:
                break
    assert losses * chances.stride > 100


def test_a_frozen_disk_keeps_appends_waiting_and_loses_none(ext4: Mount) -> None:
    """As a hanging sync: nothing is answered, nothing read, and a wait with an end ends."""
    answers: dict[object, bool] = {}
    folder = ext4.path / "journal"
    with Journal.open(
        folder, on_commit=lambda tokens, error: answers.update(dict.fromkeys(tokens, error is None)), **SIZES
    ) as journal:
        journal.append_and_wait(b"before")
        ext4.freeze()
        for number in range(50):
            journal.append(b"%d" % number, number)
        with pytest.raises(TimeoutError):
            journal.append_and_wait(b"impatient", timeout_s=0.3)
        assert answers == {}
        with JournalReader(folder) as reader:
            records = reader.read(BEGINNING, records_max=99, bytes_max=1 << 20)
            assert [record.payload for record in records] == [b"before"]
            with pytest.raises(JournalFailed, match="within"):
                journal.close(timeout_s=0.1)
            ext4.thaw()
            wait_until(lambda: len(answers) == 50, "the answers")
            assert all(answers.values())
            more = reader.read(records[-1].position_after, records_max=99, bytes_max=1 << 20)
            assert [record.payload for record in more] == [*(b"%d" % number for number in range(50)), b"impatient"]
    assert recover_idle(folder)


def test_a_slow_disk_is_waited_for(ext4: Mount) -> None:
    """Frozen and thawed again and again while records come in."""
    folder = ext4.path / "journal"
    done: list[int] = []
    with Journal.open(folder, on_commit=lambda tokens, error: done.extend(tokens), **SIZES) as journal:  # type: ignore[arg-type]
        for number in range(20):
            ext4.freeze()
            journal.append(payload_of(f"{number}"), number)
            ext4.thaw()
        wait_until(lambda: len(done) == 20, "the answers")
    ext4.cut_power()
    ext4.umount()
    ext4.mount()
    tally.count("power loss")
    assert recover_idle(folder)
    with JournalReader(folder) as reader:
        found = [record.payload for record in read_all(reader, BEGINNING)]
    assert found == [payload_of(f"{number}") for number in range(20)]


def test_a_file_system_that_turns_read_only_acknowledges_nothing_and_comes_back(ext4: Mount) -> None:
    """By an error of its own, as with `errors=remount-ro`; what was acknowledged stays readable all the time."""
    folder = ext4.path / "journal"
    journal = Journal.open(folder, **SIZES)
    journal.append_and_wait(b"before")
    ext4.break_down()
    for _ in range(2):
        with pytest.raises(JournalFailed, match="the disk refused"):
            journal.append_and_wait(b"refused")
    with JournalReader(folder) as reader:
        assert [each.payload for each in reader.read(BEGINNING, records_max=9, bytes_max=99)] == [b"before"]
    journal.close()
    with pytest.raises(JournalFailed, match="Read-only"):
        Journal.open(folder, **SIZES)
    with pytest.raises(JournalFailed, match="Read-only"):
        recover_idle(folder)
    ext4.umount()
    ext4.mount()
    with Journal.open(folder, **SIZES) as journal:
        journal.append_and_wait(b"after")
        with JournalReader(folder) as reader:
            assert [each.payload for each in reader.read(BEGINNING, records_max=1, bytes_max=99)] == [b"before"]


def test_a_read_only_mount_is_told_and_left_as_it_is(ext4: Mount) -> None:
    folder = ext4.path / "journal"
    with Journal.open(folder, **SIZES) as journal:
        journal.append_and_wait(b"before")
    ext4.remount("ro")
    with pytest.raises(JournalFailed, match="Read-only"):
        Journal.open(folder, **SIZES)
    with JournalReader(folder) as reader:
        [record] = reader.read(BEGINNING, records_max=9, bytes_max=99)
        assert record.payload == b"before"
        ext4.remount("rw")
        with Journal.open(folder, **SIZES) as journal:
            journal.append_and_wait(b"after")
        [more] = reader.read(record.position_after, records_max=9, bytes_max=99)
        assert more.payload == b"after"


def test_without_inodes_no_segment_can_be_begun_until_there_are(tmp_path: Path) -> None:
    with in_memory(tmp_path, "size=8m,nr_inodes=24") as mount:
        folder, numbers, acknowledged = mount.path / "journal", count(), []
        with Journal.open(folder, **SIZES) as journal:
            for number in count():
                try:
                    (mount.path / f"other-{number}").touch()
                except OSError:
                    break

            def accepted() -> bool:
                payload = payload_of(f"{next(numbers)}") + b"." * 5000
                try:
                    journal.append_and_wait(payload)
                except JournalFailed:
                    return False
                acknowledged.append(payload)
                return True

            while accepted():
                pass
            tally.count("full disk")
            assert acknowledged
            assert "No space left" in str(journal.stats().refusal)
            (mount.path / "other-0").unlink()
            (mount.path / "other-1").unlink()
            wait_until(accepted, "a new segment")
        with JournalReader(folder) as reader:
            found = [record.payload for record in read_all(reader, BEGINNING)]
        assert found == acknowledged


def test_without_inodes_a_first_start_is_refused(tmp_path: Path) -> None:
    with in_memory(tmp_path, "size=8m,nr_inodes=4") as mount:
        (mount.path / "other").touch()
        with pytest.raises(JournalFailed, match="No space left"):
            Journal.open(mount.path / "journal", **SIZES)
        (mount.path / "other").unlink()
