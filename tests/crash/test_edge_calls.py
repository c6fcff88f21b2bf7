"""An aggregator's process ended, or refused, at each of its system calls in turn, by strace.

Calls are counted for each thread, so the N-th call met is that of whichever thread gets there first: the one that adds
makes the folders, the journal's writes and syncs records, the flusher makes batch files.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from crash.chances import Chances
from crash.edge_accounts import judge_folders
from crash.edge_sender import COULD_NOT
from crash.oracle import KEPT, Ledger
from crash.traced import Traced, call_set, child, require_strace, trace
from totalizer.edge.folder import Folders

COUNT = 40
#: Calls that change a disk and that an interpreter does not make for itself.
CALLS = ("pwrite64", "fdatasync", "fsync", "fallocate", "rename", "link", "unlink", "ftruncate", "mkdir")
ERRORS = {"fallocate": "ENOSPC", "mkdir": "ENOSPC", "link": "ENOSPC", "pwrite64": "ENOSPC"}
TOLD = "write"


@pytest.fixture(autouse=True)
def _needs_strace() -> None:
    require_strace()


class Trial:
    """One run of a sender under strace."""

    def __init__(self, place: Path, *, before: Path | None = None) -> None:
        self.place, self.folders = place, Folders(place / "aggregated")
        place.mkdir()
        if before is not None:
            shutil.copytree(before, place, dirs_exist_ok=True)
        self.ledger = Ledger(place / "ledger")

    def run(self, inject: str | None, *, name: str = "e", threads: int = 1) -> Traced:
        """Let the sender run to its end, or to the injected one."""
        command = child("edge_sender", self.folders.data, self.place / "ledger", name, COUNT, threads)
        paths = [self.place / "ledger"] if inject is not None and f"{call_set(TOLD)}:" in inject else []
        return trace(command, self.place / "trace", calls=[*CALLS, TOLD], paths=paths, inject=inject)

    def assert_kept(self, where: str) -> int:
        """Nothing acknowledged is lost, nothing is doubled; how many were acknowledged."""
        known = self.ledger.known()
        assert judge_folders(self.folders, known) == KEPT, where
        return len(known.acknowledged)


@pytest.mark.parametrize("call", [*CALLS, TOLD])
def test_killed_at_each_call(tmp_path: Path, call: str, chances: Chances) -> None:
    kills = 0
    for nth in chances.moments(1, "edge kill", call):
        trial = Trial(tmp_path / f"{nth}")
        done = trial.run(f"{call_set(call)}:signal=KILL:when={nth}")
        assert done.killed or done.code == 0, done.output
        acknowledged = trial.assert_kept(f"{call} {nth}")
        shutil.rmtree(trial.place)
        if not done.killed:
            assert acknowledged == COUNT
            break
        kills += 1
    assert kills > 0 or call == "ftruncate", f"{call} was never met"


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "fsync", "link", "unlink", "rename", "ftruncate"])
def test_killed_again_while_it_takes_up_what_a_killed_one_left(tmp_path: Path, call: str, chances: Chances) -> None:
    unfinished = Trial(tmp_path / "unfinished")
    assert unfinished.run(f"{call_set('link')}:signal=KILL:when=4").killed
    kills = 0
    for nth in chances.moments(1, "edge again", call):
        trial = Trial(tmp_path / f"{nth}", before=unfinished.place)
        done = trial.run(f"{call_set(call)}:signal=KILL:when={nth}", name="second")
        assert done.killed or done.code == 0, done.output
        trial.assert_kept(f"{call} {nth}")
        shutil.rmtree(trial.place)
        if not done.killed:
            break
        kills += 1
    assert kills > 0, f"{call} was never met"


@pytest.mark.parametrize("call", [call for call in CALLS if call != "mkdir"])
def test_refused_at_each_call(tmp_path: Path, call: str, chances: Chances) -> None:
    """One error: what it hits is tried again, and nothing shows in the end."""
    errors = 0
    for nth in chances.moments(1, "edge error", call):
        trial = Trial(tmp_path / f"{nth}")
        done = trial.run(f"{call_set(call)}:error={ERRORS.get(call, 'EIO')}:when={nth}")
        # At the very start it says that the folders or the journal cannot be made.
        assert done.code in (0, COULD_NOT) or (done.code == 1 and "cannot be used" in done.output), done.output
        assert trial.assert_kept(f"{call} {nth}") == COUNT or done.code
        shutil.rmtree(trial.place)
        if not done.injected:
            break
        errors += 1
    assert errors > 0 or call == "ftruncate", f"{call} was never met"


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "pwrite64", "link"])
def test_a_disk_that_stays_broken_takes_nothing_more_and_loses_nothing(tmp_path: Path, call: str) -> None:
    trial = Trial(tmp_path / "trial")
    done = trial.run(f"{call_set(call)}:error=EIO:when=12+")
    assert done.code in (0, COULD_NOT), done.output
    assert done.injected > 1
    assert trial.assert_kept(call) > 0


def test_killed_while_many_threads_add(tmp_path: Path, chances: Chances) -> None:
    kills = 0
    for nth in chances.moments(1, "edge threads", "fdatasync"):
        trial = Trial(tmp_path / f"{nth}")
        done = trial.run(f"{call_set('fdatasync')}:signal=KILL:when={nth}", threads=4)
        trial.assert_kept(f"fdatasync {nth}")
        shutil.rmtree(trial.place)
        if done.code != -signal.SIGKILL and not done.killed:
            break
        kills += 1
    assert kills > 0
