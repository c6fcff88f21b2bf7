"""The recovery daemon ended, or refused, at each of its system calls: no entry is lost, none counts twice."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from crash.chances import Chances
from crash.recovering import AWAY, COULD_NOT
from crash.traced import Traced, call_set, child, finished_calls, require_strace, trace
from totalizer.edge.batch import Batch, Entry, FailedBatch, decode_batch_file, decode_failed_file
from totalizer.edge.daemon.scan import REASON_SUFFIX
from totalizer.edge.folder import DRAFT_SUFFIX, Folders, write_file

T0 = 1_704_067_200_000
#: Calls with which the daemon changes a disk. Starting the interpreter makes none of them.
CALLS = ("pwrite64", "fsync", "rename", "unlink", "flock", "write")
QUOTED = re.compile(r'"([^"]+)"')
#: Entries by batch; see `EntrySink` for what becomes of them.
BATCHES = {
    "a": ("good-1", "good-2"),
    "b": ("later-1", "later-2"),
    "c": ("good-3", "later-3", "bad-1"),
    "d": ("bad-2", "good-4"),
    "e": ("later-4",),
}
#: Attempts that batches have behind them, of five: "e" has one left, "c" two.
ATTEMPTS = {"c": 3, "e": 4}
ENTRIES = {name for names in BATCHES.values() for name in names}
BAD = {name for name in ENTRIES if name.startswith("bad")}


@pytest.fixture(autouse=True)
def _needs_strace() -> None:
    require_strace()


class Trial:
    """One folder of failed batches, and a target."""

    def __init__(self, place: Path, *, to_files: bool = False) -> None:
        self.place, self.folders, self.target = place, Folders(place / "aggregated"), place / "target"
        self.folders.make()
        self.to_files = to_files
        if not to_files:
            self.target.mkdir()
            (self.target / AWAY).touch()
        for name, ids in BATCHES.items():
            self._fail(name, ids, ATTEMPTS.get(name, 0))
        (self.folders.recovery / "batch_f.failed.json").write_text("nonsense")

    def _fail(self, name: str, ids: tuple[str, ...], retry_count: int) -> None:
        entries = tuple(entry_of(id) for id in ids)
        failed = FailedBatch(Batch(f"{T0}_{name}", T0, entries), retry_count, "the disk is full", T0)
        write_file(self.folders.recovery / failed.file_name, failed.encode())

    def run(self, inject: str | None = None) -> Traced:
        """Let the program run to its end, or to the injected one."""
        command = child("recovering", self.folders.data, self.target)
        return trace(command, self.place / "trace", calls=CALLS, inject=inject)

    def waiting(self) -> Counter[str]:
        """Entries in failed files, and in abandoned ones. Each file must be whole."""
        found: Counter[str] = Counter()
        for path in (*self.folders.failed_files(), *self.folders.abandoned_files()):
            if path.name != "batch_f.failed.json":
                found.update(ids_of(decode_failed_file(path.read_bytes(), path.name).batch))
        return found

    def delivered(self) -> Counter[str]:
        """Entries at the target, by how often they count there."""
        if self.to_files:
            batches = [decode_batch_file(path.read_bytes(), path.name) for path in self.folders.batch_files()]
            return Counter(name for batch in batches for name in ids_of(batch))
        return Counter(path.name for path in self.target.iterdir() if path.name != AWAY)

    def check_nothing_is_lost(self) -> None:
        """At any moment each entry is delivered, or lies in a file that can be read; and the damaged file is there."""
        delivered = self.delivered()
        assert set(delivered) | set(self.waiting()) == ENTRIES
        assert set(delivered.values()) <= {1}
        [damaged] = [
            path for folder in (self.folders.recovery, self.folders.errors) for path in folder.iterdir()
            if path.name.startswith("batch_f.failed.json") and not path.name.endswith(REASON_SUFFIX)
        ]  # fmt: skip
        assert damaged.read_text() == "nonsense"

    def check_all_comes_right(self) -> None:
        """When the target is back, another run brings everything to where it belongs, once."""
        (self.target / AWAY).unlink(missing_ok=True)
        done = self.run()
        assert done.code == 0, done.output
        refused = set() if self.to_files else BAD
        assert self.delivered() == Counter(ENTRIES - refused)
        assert self.waiting() == Counter(refused)
        assert self.folders.failed_files() == []
        assert (self.folders.errors / "batch_f.failed.json").read_text() == "nonsense"
        assert "malformed" in (self.folders.errors / f"batch_f.failed.json{REASON_SUFFIX}").read_text()
        assert list(self.place.rglob(f"*{DRAFT_SUFFIX}")) == [], "drafts of killed processes are swept"
        self._check_reasons()

    def _check_reasons(self) -> None:
        for path in self.folders.abandoned_files():
            abandoned = decode_failed_file(path.read_bytes(), path.name)
            told = {abandoned.batch.entries[one.index]["id"]: one.message for one in abandoned.refusals}
            assert told == {name: f"{name} is wrong" for name in ids_of(abandoned.batch)}


def entry_of(id: str) -> Entry:
    return {"id": id, "userId": "u", "action": "edit", "timestamp": T0}


def ids_of(batch: Batch) -> list[str]:
    for entry in batch.entries:
        assert entry == entry_of(entry["id"])
    return [entry["id"] for entry in batch.entries]


@pytest.mark.parametrize("to_files", [False, True], ids=["to a server", "to files"])
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_call(tmp_path: Path, call: str, to_files: bool, chances: Chances) -> None:
    kills = 0
    for nth in chances.moments(1, "daemon", call, to_files):
        trial = Trial(tmp_path / f"{nth}", to_files=to_files)
        done = trial.run(f"{call_set(call)}:signal=KILL:when={nth}")
        assert done.killed or done.code == 0, done.output
        trial.check_nothing_is_lost()
        trial.check_all_comes_right()
        if not done.killed:
            break
        kills += 1
    assert kills > 0, f"{call} was never met"


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fsync", "rename", "unlink"])
def test_refused_at_each_call(tmp_path: Path, call: str, error: str, chances: Chances) -> None:
    errors = 0
    for nth in chances.moments(1, "daemon", call, error):
        trial = Trial(tmp_path / f"{nth}")
        done = trial.run(f"{call_set(call)}:error={error}:when={nth}")
        assert done.code in (0, COULD_NOT), done.output
        assert done.code == 0 or done.injected, done.output
        assert "Traceback" not in done.output
        trial.check_nothing_is_lost()
        trial.check_all_comes_right()
        if not done.injected:
            break
        errors += 1
    assert errors > 0, f"{call} was never met"


def test_a_disk_that_stays_broken_loses_nothing(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "trial")
    done = trial.run(f"{call_set('fsync')}:error=EIO:when=1+")
    assert done.injected > 1
    trial.check_nothing_is_lost()
    trial.check_all_comes_right()


def test_each_step_would_survive_a_power_loss_before_the_next_is_made(tmp_path: Path) -> None:
    """A kill leaves the kernel's memory as it is; that a step is on the disk shows only in the order of the calls."""
    trial = Trial(tmp_path / "trial")
    done = trial.run()
    assert done.code == 0, done.output
    steps, unsynced = 0, set[str]()
    synced_files = set[str]()
    for call in finished_calls(done.log):
        if call.result:
            continue
        if call.name == "fsync":
            path = call.arguments.partition("<")[2].rstrip(">")
            unsynced.discard(path)
            synced_files.add(path)
        elif call.name.startswith(("rename", "unlink")):
            assert unsynced == set(), f"{call} comes before its predecessor is on the disk"
            paths = QUOTED.findall(call.arguments)
            unsynced = {str(Path(path).parent) for path in paths}
            assert not paths[0].endswith(DRAFT_SUFFIX) or paths[0] in synced_files, f"{call}: its data is not"
            steps += 1
    assert unsynced == set()
    assert steps > 12


def test_the_checks_notice_what_they_are_for(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "trial")
    trial.check_nothing_is_lost()
    path = trial.folders.recovery / f"batch_{T0}_a.failed.json"
    whole = decode_failed_file(path.read_bytes(), path.name)
    write_file(path, replace(whole, batch=whole.batch.only([0])).encode())
    with pytest.raises(AssertionError):
        trial.check_nothing_is_lost()
