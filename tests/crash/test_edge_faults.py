"""What goes wrong around an aggregator: a full disk, folders and files that change under it, clocks, a crowd."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash import tally
from crash.chances import Chances
from crash.edge_accounts import entry_of, judge_folders
from crash.oracle import KEPT, Known, Ledger
from crash.traced import child, environment
from support import PATIENCE_S, unavailable, wait_until
from totalizer.clock import SystemClock
from totalizer.edge import FlushError, SmartBatchAggregator
from totalizer.edge.folder import Folders
from totalizer.edge.status import waiting
from totalizer.errors import JournalError

QUIET = {"flush_on_sigterm": False, "max_age_ms": 600_000}


class Sender:
    """Adds entries in this process, and knows what was taken."""

    def __init__(self, aggregator: SmartBatchAggregator, run: str = "x") -> None:
        self.aggregator, self.known, self._run = aggregator, Known(), run

    def add(self, count: int = 1) -> int:
        """Add some; how many were taken."""
        taken = 0
        for _ in range(count):
            name = f"{self._run}-{len(self.known.sent)}"
            self.known.sent.append(name)
            with contextlib.suppress(JournalError):
                self.aggregator.add(entry_of(name))
                self.known.acknowledged.append(name)
                taken += 1
        return taken


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        unavailable(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_takes_nothing_more_loses_nothing_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    folders = Folders(small_disk / "aggregated")
    aggregator = SmartBatchAggregator(data_path=folders.data, batch_size=20, quota_bytes=1 << 20, **QUIET)
    sender = Sender(aggregator)
    assert sender.add(30) == 30
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    refused = 0
    for _ in range(400):
        refused += 1 - sender.add(1)
    assert refused > 0
    tally.count("full disk")
    with pytest.raises(FlushError):
        aggregator.force_flush()
    assert aggregator.get_current_batch_size() > 0
    ballast.unlink()
    wait_until(lambda: sender.add(1) == 1, "an entry that is taken again")
    aggregator.force_flush()
    aggregator.shutdown()
    assert judge_folders(folders, sender.known) == KEPT


def test_batch_files_are_removed_by_others_without_harm(tmp_path: Path) -> None:
    """They are the receiver's: who takes them over may remove them."""
    folders = Folders(tmp_path / "aggregated")
    with SmartBatchAggregator(data_path=folders.data, **QUIET) as aggregator:
        sender = Sender(aggregator)
        for _ in range(5):
            sender.add(3)
            aggregator.flush()
            for path in folders.batch_files():
                path.unlink()
        sender.known.acknowledged.clear()
        sender.known.sent.clear()
        sender.add(3)
    assert judge_folders(folders, sender.known) == KEPT


def test_recovery_folders_that_are_removed_are_made_again(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "aggregated")
    with SmartBatchAggregator(data_path=folders.data, **QUIET) as aggregator:
        sender = Sender(aggregator)
        sender.add(3)
        shutil.rmtree(folders.recovery)
        shutil.rmtree(folders.logs)
        aggregator.flush()
        sender.add(3)
    folders.make()
    assert judge_folders(folders, sender.known) == KEPT


def test_a_folder_that_is_removed_whole_is_told_and_does_not_hang(tmp_path: Path) -> None:
    """What was in it is gone with it; the process tells, and another aggregator can begin anew."""
    folders = Folders(tmp_path / "aggregated")
    aggregator = SmartBatchAggregator(data_path=folders.data, batch_size=5, quota_bytes=1 << 20, **QUIET)
    sender = Sender(aggregator)
    sender.add(3)
    while folders.data.exists():  # the process may be writing its figures meanwhile
        shutil.rmtree(folders.data, ignore_errors=True)
    with contextlib.suppress(FlushError):
        aggregator.flush(timeout_ms=10_000)
    aggregator._shut(1000)
    with SmartBatchAggregator(data_path=folders.data, **QUIET) as again:
        fresh = Sender(again, "fresh")
        assert fresh.add(3) == 3
    fresh.known.sent += sender.known.sent
    assert judge_folders(folders, fresh.known) == KEPT


def test_a_damaged_batch_file_stops_nobody(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "aggregated")
    with SmartBatchAggregator(data_path=folders.data, **QUIET) as aggregator:
        sender = Sender(aggregator)
        sender.add(3)
        aggregator.flush()
        [path] = folders.batch_files()
        path.write_bytes(path.read_bytes()[:100])
        assert sender.add(3) == 3
        aggregator.flush()
        assert len(folders.batch_files()) == 2
        assert aggregator.get_performance_metrics().success_rate == 1.0


class JumpingClock(SystemClock):
    """A wall clock that is set, by hand, in the middle of things."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86_400, -3600, 3600, 10 * 365 * 86_400])
def test_a_clock_that_is_set_holds_up_no_flush_and_hurries_none_for_ever(tmp_path: Path, jump_s: int) -> None:
    folders = Folders(tmp_path / "aggregated")
    clock = JumpingClock()
    with SmartBatchAggregator(
        data_path=folders.data, clock=clock, batch_size=10, max_age_ms=300, flush_on_sigterm=False
    ) as aggregator:
        sender = Sender(aggregator)
        sender.add(2)
        clock.ahead_ns = jump_s * 1_000_000_000
        assert aggregator.get_batch_age_ms() < 60_000
        wait_until(lambda: aggregator.is_empty(), "the flush by age")
        # Entries' own times are of 2025: set back before that the clock would refuse them, as it should.
        if jump_s > -86_400:
            sender.add(12)
            wait_until(lambda: aggregator.is_empty(), "the flush after it")
            clock.ahead_ns = 0
            sender.add(12)
            wait_until(lambda: aggregator.is_empty(), "the flush after it was set right")
        triggers = aggregator.get_performance_metrics().triggers
        assert set(triggers) <= {"age", "size", "threshold"}
    assert judge_folders(folders, sender.known) == KEPT


def start(folders: Folders, ledger: Path, run: str, count: int, threads: int = 1) -> subprocess.Popen[bytes]:
    command = child("edge_sender", folders.data, ledger, run, count, threads)
    return subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_fifty_processes_on_one_folder_lose_and_double_nothing(tmp_path: Path, chances: Chances) -> None:
    """Some of them are killed on the way; the others, and the next ones, deliver what those had taken."""
    folders, ledger = Folders(tmp_path / "aggregated"), tmp_path / "ledger"
    known = Ledger(ledger)
    chance = chances.of("edge crowd")
    processes = [start(folders, ledger, f"p{number}", 30) for number in range(50)]
    deadline = time.monotonic() + PATIENCE_S * 4
    victims = chance.sample(processes, 15)
    for victim in victims:
        time.sleep(chance.uniform(0, 0.2))
        victim.kill()
        tally.count("kill")
    for process in processes:
        _, output = process.communicate(timeout=max(deadline - time.monotonic(), 1))
        assert process.returncode in (0, -signal.SIGKILL), output
    said = known.known()
    assert len(said.acknowledged) >= 35 * 30
    assert judge_folders(folders, said) == KEPT
    assert sum(status.waiting for status in waiting(folders)) == 0


def test_killed_at_any_moment_again_and_again(tmp_path: Path, chances: Chances) -> None:
    """Processes with four threads each, one after the other on the same folders, killed by the clock.

    Every second one is in the midst of its work by then, however slowly it started; the others may be anywhere.
    """
    folders, ledger = Folders(tmp_path / "aggregated"), tmp_path / "ledger"
    known = Ledger(ledger)
    chance = chances.of("edge killed")
    for number in range(chances.share("edge killed")):
        said = ledger.stat().st_size
        process = start(folders, ledger, f"k{number}", 400, threads=4)
        if number % 2 == 0:
            wait_until(lambda said=said: b"acknowledged" in ledger.read_bytes()[said:], "an entry that is taken")
        time.sleep(chance.uniform(0.0, 0.7))
        process.kill()
        tally.count("kill")
        process.communicate()
    assert len(known.known().acknowledged) > 0
    assert judge_folders(folders, known.known()) == KEPT


def test_threads_that_add_flush_and_read_at_once(tmp_path: Path, chances: Chances) -> None:
    folders = Folders(tmp_path / "aggregated")
    aggregator = SmartBatchAggregator(data_path=folders.data, batch_size=7, max_age_ms=20, flush_on_sigterm=False)
    senders = [Sender(aggregator, f"t{number}") for number in range(8)]
    failures: list[BaseException] = []

    def work(sender: Sender, chance: random.Random) -> None:
        try:
            for _ in range(60):
                sender.add(chance.randrange(4))
                match chance.randrange(6):
                    case 0:
                        aggregator.flush()
                    case 1:
                        aggregator.get_current_batch(limit=5)
                    case 2:
                        aggregator.get_stats()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [
        threading.Thread(target=work, args=(sender, chances.of("edge mix", number)))
        for number, sender in enumerate(senders)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    aggregator.shutdown()
    assert failures == []
    known = Known()
    for sender in senders:
        known.sent += sender.known.sent
        known.acknowledged += sender.known.acknowledged
    assert aggregator.get_stats().processed == len(known.acknowledged)
    assert judge_folders(folders, known) == KEPT
