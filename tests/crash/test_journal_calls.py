"""A journal's writer ended, or refused, at each of its system calls in turn, by strace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crash import tally
from crash.chances import Chances
from crash.oracle import KEPT, Known, Ledger, Verdict, judge, judge_journal, payload_of
from crash.traced import (
    DISK_CALLS,
    Traced,
    call_set,
    child,
    journal_paths,
    require_strace,
    trace,
    unsynced_acknowledgements,
)
from crash.writer import COULD_NOT
from totalizer.journal import Journal, recover_idle

COUNT = 24
SIZES = {"segment_bytes": 24 << 10, "quota_bytes": 4 << 20}
#: An error of the hardware, or a full disk, where that can be met.
ERRORS = {"fallocate": "ENOSPC"}
#: The call with which the writer tells the ledger.
TOLD = "write"


@pytest.fixture(autouse=True)
def _needs_strace() -> None:
    require_strace()


class Trial:
    """One run of a writer on a journal, under strace."""

    def __init__(self, place: Path, *, before: Path | None = None) -> None:
        self.place, self.folder = place, place / "journal"
        place.mkdir()
        if before is not None:
            shutil.copytree(before, place, dirs_exist_ok=True)
        self.ledger = Ledger(place / "ledger")

    def run(self, inject: str | None, *, name: str = "w", mutant: str = "") -> Traced:
        """Let the writer run to its end, or to the injected one."""
        arguments = [self.folder, self.place / "ledger", name, COUNT, *filter(None, [mutant])]
        # The ledger is opened like any file; that call is not to be met.
        told = [] if inject is not None and "openat" in inject else [self.place / "ledger"]
        paths = [*journal_paths(self.folder), *told]
        return trace(
            child("writer", *arguments), self.place / "trace", calls=[*DISK_CALLS, TOLD], paths=paths, inject=inject
        )

    def known(self) -> Known:
        """The ledger's statements."""
        return self.ledger.known()

    def judged(self) -> Verdict:
        """What is in the journal after recovery; then a fresh record must go through."""
        if self.folder.exists():
            assert recover_idle(self.folder)
            verdict = judge_journal(self.folder, self.known())
        else:
            verdict = judge(self.known(), [], payload_of)
        if verdict == KEPT:
            self._fresh_record_goes_through()
        return verdict

    def _fresh_record_goes_through(self) -> None:
        with Journal.open(self.folder, **SIZES) as journal:
            self.ledger.sent("fresh")
            journal.append_and_wait(payload_of("fresh"), timeout_s=60)
            self.ledger.acknowledged("fresh")
        assert judge_journal(self.folder, self.known()) == KEPT
        self.ledger.close()


@pytest.mark.parametrize("call", [*DISK_CALLS, TOLD])
def test_killed_at_each_call(tmp_path: Path, call: str, chances: Chances) -> None:
    """Killed while telling, the record is durable and nobody knows."""
    kills = 0
    for nth in chances.moments(1, "kill", call):
        trial = Trial(tmp_path / f"{nth}")
        done = trial.run(f"{call_set(call)}:signal=KILL:when={nth}")
        assert done.killed or done.code == 0, done.output
        acknowledged = len(trial.known().acknowledged)
        assert trial.judged() == KEPT, f"{call} {nth}"
        if not done.killed:
            assert acknowledged == COUNT
            break
        kills += 1
        tally.count("kill")
    assert kills > 0, f"{call} was never met"


@pytest.mark.parametrize("call", DISK_CALLS)
def test_killed_again_at_each_call_of_the_recovery(tmp_path: Path, call: str, chances: Chances) -> None:
    """The next writer finds an unfinished journal and is itself killed at each call, from its first on."""
    unfinished = Trial(tmp_path / "unfinished")
    assert unfinished.run(f"{call_set('fdatasync')}:signal=KILL:when=9").killed
    (tmp_path / "unfinished" / "journal" / "left.new").write_bytes(b"a draft")
    for nth in chances.moments(1, "recovery", call):
        trial = Trial(tmp_path / f"{nth}", before=unfinished.place)
        done = trial.run(f"{call_set(call)}:signal=KILL:when={nth}", name="second")
        assert done.killed or done.code == 0, done.output
        assert trial.judged() == KEPT, f"{call} {nth}"
        tally.count("kill", done.killed)
        if not done.killed:
            return


@pytest.mark.parametrize("call", DISK_CALLS)
def test_refused_at_each_call(tmp_path: Path, call: str, chances: Chances) -> None:
    """One error: what is acknowledged is there once, even if it was refused first; nothing is synced again."""
    errors = 0
    for nth in chances.moments(1, "error", call):
        trial = Trial(tmp_path / f"{nth}")
        done = trial.run(f"{call_set(call)}:error={ERRORS.get(call, 'EIO')}:when={nth}")
        # At the very start it says that the journal cannot be opened.
        assert done.code == 0 or (done.code == COULD_NOT and done.injected), done.output
        assert unsynced_acknowledgements(done.log) == [], f"{call} {nth}"
        assert trial.judged() == KEPT, f"{call} {nth}"
        if not done.injected:
            break
        errors += 1
        tally.count("refused call", done.injected)
    assert errors > 0, f"{call} was never met"


def test_a_disk_that_stays_broken_acknowledges_nothing_more(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "trial")
    done = trial.run(f"{call_set('fdatasync')}:error=EIO:when=7+")
    assert done.code in (0, COULD_NOT)
    assert done.injected > 1
    tally.count("refused call", done.injected)
    assert 0 < len(trial.known().acknowledged) < COUNT
    assert unsynced_acknowledgements(done.log) == []
    assert trial.judged() == KEPT


def test_no_acknowledgement_is_told_before_its_sync_has_ended(tmp_path: Path) -> None:
    """The order of the calls themselves; a killed process cannot show it, since the kernel keeps its pages."""
    trial = Trial(tmp_path / "trial")
    done = trial.run(None)
    assert done.code == 0, done.output
    assert len(trial.known().acknowledged) == COUNT
    assert done.log.count('"acknowledged ') >= COUNT // 3
    assert unsynced_acknowledgements(done.log) == []
    assert trial.judged() == KEPT


def test_the_order_is_read_rightly_from_a_record() -> None:
    write, sync = '1 pwrite64(5</j/1.segment>, "x", 1, 0) = 1', "1 fdatasync(5</j/1.segment>) = 0"
    told = '1 write(6</l>, "acknowledged a b\\n", 17) = 17'
    failed = "1 fdatasync(5</j/1.segment>) = -1 EIO (Input/output error) (INJECTED)"
    begun, ended = "1 fdatasync(5</j/1.segment> <unfinished ...>", "1 <... fdatasync resumed>) = 0"
    other = '2 write(6</l>, "acknowledged a b\\n", 17) = 17'
    assert unsynced_acknowledgements("\n".join([write, sync, told])) == []
    assert unsynced_acknowledgements("\n".join([write, begun, ended, other])) == []
    assert unsynced_acknowledgements("\n".join([write, told, sync])) == ["a", "b"]
    assert unsynced_acknowledgements("\n".join([write, begun, other, ended])) == ["a", "b"]
    assert unsynced_acknowledgements("\n".join([sync, write, told])) == ["a", "b"]
    assert unsynced_acknowledgements("\n".join([write, failed, told])) == ["a", "b"]
    assert unsynced_acknowledgements("\n".join([write, failed, sync, told])) == ["5</j/1.segment> was synced again"]
