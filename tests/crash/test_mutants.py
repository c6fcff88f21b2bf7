"""The tests of this folder, tried on wrong programs: each must be noticed by the judgement it is held against here."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase
from hypothesis.errors import Flaky

from crash import tally
from crash.chances import Chances
from crash.mutants import MUTANTS, applied
from crash.oracle import KEPT, Verdict
from crash.pipeline import Pipeline
from crash.proxy import Proxy
from crash.test_journal_calls import Trial
from crash.test_power import SIZES, first_broken
from crash.test_side_by_side import live, read_all
from crash.traced import call_set, require_strace, unsynced_acknowledgements
from crash.volatile import VolatileDisk, restore
from support import PATIENCE_S, Database
from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Journal, JournalReader, recover_idle
from totalizer.store.roles import Role


@pytest.fixture(autouse=True)
def _deliberate() -> Iterator[None]:
    """What is lost here is lost on purpose."""
    with tally.deliberate():
        yield


#: The mutant, and the test here that notices it.
NOTICED: dict[str, str] = {
    "acknowledge_refused": "test_wrong_journals_differ_from_the_other_one",
    "reading_past_the_watermark": "test_a_reader_past_the_watermark_shows_what_is_not_durable",
    "recovery_without_sync": "test_a_recovery_without_sync_takes_back_what_it_gave",
    "numbers_used_again": "test_numbers_used_again_hide_what_is_new",
    "discarding_what_is_not_read": "test_discarding_what_is_not_read_loses",
    "acknowledge_before_sync": "test_wrong_journals_lose_by_a_power_loss",
    "sync_again_after_failure": "test_a_second_sync_is_seen_in_the_order_of_calls",
    "no_checksum": "test_wrong_journals_lose_by_a_power_loss",
    "no_folder_sync": "test_wrong_journals_lose_by_a_power_loss",
    "no_fence": "test_a_loader_without_fence_stores_what_another_stored",
    "offset_before_insert": "test_wrong_loaders_fail_when_the_connection_breaks",
    "offset_after_insert": "test_wrong_loaders_fail_when_the_connection_breaks",
    "discard_before_commit": "test_discarding_early_loses",
    "marks_after_commit": "test_wrong_loaders_fail_when_the_connection_breaks",
    "no_key_table": "test_without_keys_a_resend_is_stored_twice",
}


def named_for(test: str) -> list[str]:
    """The mutants that a test must notice."""
    return [mutant for mutant, noticer in NOTICED.items() if noticer == test]


def test_every_mutant_is_tried_by_a_test_that_exists() -> None:
    assert NOTICED.keys() == MUTANTS.keys()
    assert set(NOTICED.values()) <= globals().keys()


@pytest.mark.parametrize("mutant", named_for("test_wrong_journals_lose_by_a_power_loss"))
def test_wrong_journals_lose_by_a_power_loss(mutant: str, tmp_path: Path, chances: Chances) -> None:
    with applied(mutant):
        broken = first_broken(tmp_path, chances._replace(faults=600))
    assert broken is not None, f"{mutant} was not noticed"
    _, verdict = broken
    assert verdict.altered or verdict.invented if mutant == "no_checksum" else verdict.lost, verdict


@pytest.mark.parametrize("mutant", named_for("test_wrong_journals_differ_from_the_other_one"))
def test_wrong_journals_differ_from_the_other_one(mutant: str, chances: Chances) -> None:
    """Whatever hypothesis makes of it: a difference, or one that comes and goes with the threads."""
    with applied(mutant), pytest.raises((AssertionError, Flaky)):
        live(chances.seed, 1000, Phase.generate)


class Sleepy(VolatileDisk):
    """Its next sync of data waits until told, or, if told to, the process dies in it."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__(folder, chance, None)
        self.asleep, self.told, self.dies = threading.Event(), threading.Event(), False
        self.told.set()

    def fdatasync(self, descriptor: int) -> None:
        if not self.told.is_set():
            self.asleep.set()
            self.told.wait(PATIENCE_S)
        if self.dies:
            self.kill()
        super().fdatasync(descriptor)


@pytest.mark.parametrize("mutant", [None, "reading_past_the_watermark"])
def test_a_reader_past_the_watermark_shows_what_is_not_durable(mutant: str | None, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir(0o700)
    disk = Sleepy(tmp_path / "journal", random.Random(1))
    with applied(mutant), Journal.open(tmp_path / "journal", disk=disk, **SIZES) as journal:
        disk.told.clear()
        journal.append(b"not durable", None)
        assert disk.asleep.wait(PATIENCE_S)
        with JournalReader(tmp_path / "journal") as reader:
            found = reader.read(BEGINNING, records_max=1, bytes_max=1)
        disk.told.set()
    assert [record.payload for record in found] == ([b"not durable"] if mutant else [])


@pytest.mark.parametrize("mutant", [None, "recovery_without_sync"])
def test_a_recovery_without_sync_takes_back_what_it_gave(mutant: str | None, tmp_path: Path) -> None:
    """A writer is killed before its sync, a reader is given the record, and the power fails."""
    taken_back = 0
    for number in range(30):
        folder = tmp_path / f"{number}"
        folder.mkdir(0o700)
        disk = Sleepy(folder, random.Random(number))
        journal = Journal.open(folder, disk=disk, **SIZES)
        disk.dies = True
        with pytest.raises(JournalFailed):
            journal.append_and_wait(b"unanswered")
        journal.close()
        next_disk = disk.after_kill()
        with applied(mutant):
            assert recover_idle(folder, disk=next_disk)
            with JournalReader(folder, disk=next_disk) as reader:
                assert [each.payload for each in read_all(reader, BEGINNING)] == [b"unanswered"]
        restore(next_disk.lose_power(), tmp_path / f"{number} after")
        assert recover_idle(tmp_path / f"{number} after")
        with JournalReader(tmp_path / f"{number} after") as reader:
            taken_back += read_all(reader, BEGINNING) == []
    assert bool(taken_back) is (mutant is not None)


@pytest.mark.parametrize("mutant", [None, "numbers_used_again"])
def test_numbers_used_again_hide_what_is_new(mutant: str | None, tmp_path: Path) -> None:
    """All is read and discarded, and the next writer begins where the reader has been before."""
    folder = tmp_path / "journal"
    with applied(mutant):
        with Journal.open(folder, **SIZES) as journal:
            journal.append_and_wait(b"old")
        with Journal.open(folder, **SIZES), JournalReader(folder) as reader:
            position = read_all(reader, BEGINNING)[-1].position_after
            assert reader.discard(position) > 0
        with Journal.open(folder, **SIZES) as journal, JournalReader(folder) as reader:
            journal.append_and_wait(b"new")
            found = [record.payload for record in read_all(reader, position)]
    assert (found == [b"new"]) is (mutant is None)


@pytest.mark.parametrize("mutant", [None, "discarding_what_is_not_read"])
def test_discarding_what_is_not_read_loses(mutant: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with applied(mutant):
        for run in (b"a", b"b"):
            with Journal.open(folder, **SIZES) as journal:
                journal.append_and_wait(run + b"1")
                journal.append_and_wait(run + b"2")
        with JournalReader(folder) as reader:
            position = reader.read(BEGINNING, records_max=1, bytes_max=1)[0].position_after
            reader.discard(position)
            left = [record.payload for record in read_all(reader, position)]
    assert (left == [b"a2", b"b1", b"b2"]) is (mutant is None)


def test_an_early_acknowledgement_is_seen_in_the_order_of_calls(tmp_path: Path) -> None:
    """The second judgement on it, which needs no loss."""
    require_strace()
    done = Trial(tmp_path / "trial").run(None, mutant="acknowledge_before_sync")
    assert done.code == 0, done.output
    assert "w-0" in unsynced_acknowledgements(done.log)


def test_a_second_sync_is_seen_in_the_order_of_calls(tmp_path: Path) -> None:
    require_strace()
    done = Trial(tmp_path / "trial").run(f"{call_set('fdatasync')}:error=EIO:when=3", mutant="sync_again_after_failure")
    assert done.injected == 1
    assert any("was synced again" in wrong for wrong in unsynced_acknowledgements(done.log))


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """A way to the database that can be broken."""
    with Proxy(database.dsn(Role.WRITER)) as proxy:
        yield proxy


def verdicts(mutant: str, proxy: Proxy, pipelines: Callable[[], Pipeline], step: int) -> Iterator[Verdict]:
    """What the oracle says after a break at every message of the wrong loader, or every `step`-th."""
    moment = 0
    while True:
        pipeline = pipelines()
        pipeline.some()
        proxy.arm(moment)
        with applied(mutant):
            pipeline.load(pipeline.loader(proxy.dsn))
        fired = proxy.fired
        proxy.disarm()
        pipeline.load()
        yield pipeline.verdict()
        pipeline.close()
        if not fired:
            return
        moment += step


@pytest.mark.parametrize("mutant", named_for("test_wrong_loaders_fail_when_the_connection_breaks"))
def test_wrong_loaders_fail_when_the_connection_breaks(
    mutant: str, proxy: Proxy, pipelines: Callable[[], Pipeline]
) -> None:
    """Every one of these is right as long as nothing breaks, and the sweep finds a message where it is wrong."""
    for verdict in verdicts(mutant, proxy, pipelines, 3):
        if mutant == "offset_before_insert":
            noticed = bool(verdict.lost)
        elif mutant == "offset_after_insert":
            # The primary key hides what was stored again; the books show that it was tried.
            noticed = any("have a fate" in book for book in verdict.books)
        else:
            noticed = any("differ" in book for book in verdict.books)
        if noticed:
            return
    pytest.fail(f"{mutant} was not noticed")


def test_discarding_early_loses(proxy: Proxy, pipelines: Callable[[], Pipeline]) -> None:
    """Segments that are full, so that there is something to discard; the break comes before COMMIT."""
    for text in (b"COPY", b"COMMIT"):
        right, wrong = pipelines(), pipelines()
        for pipeline, mutant in ((right, None), (wrong, "discard_before_commit")):
            for batch in range(3):
                pipeline.acknowledge([f"{batch}-{number}" for number in range(40)])
                pipeline.journal.close()
                pipeline.open_journal()
            proxy.arm(text=text)
            with applied(mutant):
                pipeline.load(pipeline.loader(proxy.dsn))
            assert proxy.fired
        assert right.verdict() == KEPT
        assert wrong.verdict().lost


def test_a_loader_without_fence_stores_what_another_stored(pipelines: Callable[[], Pipeline]) -> None:
    """A loader that has been taken over, woken with what it believes."""
    for mutant in (None, "no_fence"):
        pipeline = pipelines()
        pipeline.some(batches=2)
        slow, quick = pipeline.loader(), pipeline.loader()
        slow.drain()
        pipeline.some("more", batches=2)
        quick.drain()
        quick.close()
        with applied(mutant):
            for source in list(slow._sources.values()):
                while slow._load_piece(source):
                    pass
        slow.close()
        pipeline.load()
        assert (pipeline.verdict() == KEPT) is (mutant is None), mutant


def test_without_keys_a_resend_is_stored_twice(pipeline: Pipeline) -> None:
    pipeline.acknowledge(["a", "b"])
    pipeline.acknowledge(["b", "a"])
    with applied("no_key_table"):
        pipeline.load()
    assert pipeline.verdict().doubled == ("a", "b")
