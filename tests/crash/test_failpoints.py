"""Writer and loader killed, refused or stopped at each of the places that the program itself names."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from crash import loading, tally, writer
from crash.chances import Chances
from crash.forked import Forked
from crash.oracle import KEPT, Ledger, Verdict, judge, judge_journal, payload_of
from crash.pipeline import ROWS_MAX, Pipeline
from crash.traced import child, environment
from totalizer import failpoint
from totalizer.errors import ConfigurationError
from totalizer.failpoint import CANNOT_RAISE, VARIABLE, Action, Failpoint
from totalizer.journal import Journal, recover_idle
from totalizer.store.roles import Role

PAGE = Path(__file__).parents[2] / "docs/reference/durability.md"
COUNT = 18
SIZES = {"segment_bytes": writer.SEGMENT_BYTES, "quota_bytes": writer.QUOTA_BYTES}
JOURNAL = [point for point in Failpoint if point.value.startswith("journal.")]
LOAD = [point for point in Failpoint if point.value.startswith("load.")]
DISCARD = [point for point in JOURNAL if ".discard." in point.value]


def opened_and_left(folder: Path) -> None:
    """A writer that dies before its first record."""
    Journal.open(folder, **SIZES)
    os.kill(os.getpid(), signal.SIGKILL)


class Life:
    """A journal and the writers that come and go in it, with a ledger beside."""

    def __init__(self, place: Path, before: Path | None = None) -> None:
        self.place, self.folder = place, place / "journal"
        place.mkdir()
        if before is not None:
            shutil.copytree(before, place, dirs_exist_ok=True)
        self.ledger = Ledger(place / "ledger")

    def write(self, failpoints: str, name: str = "w", count: int = COUNT) -> Forked:
        """One writer."""
        work = partial(writer.main, self.folder, self.ledger, name, count)
        return Forked(work, failpoints=failpoints, log=self.place / "log")

    def verdict(self) -> Verdict:
        """What is found by one who recovers it."""
        if not (self.folder / "journal.json").exists():
            return judge(self.ledger.known(), [], payload_of)
        assert recover_idle(self.folder)
        return judge_journal(self.folder, self.ledger.known())

    def close(self) -> None:
        """Nobody wants it any more."""
        self.ledger.close()
        shutil.rmtree(self.place)


@pytest.fixture(scope="module")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> list[Path | None]:
    """What a writer may find: nothing; a group half written, a draft and a stranger; a start without work."""
    place = tmp_path_factory.mktemp("beginnings")
    torn, empty = Life(place / "torn"), Life(place / "empty")
    assert torn.write("journal.group.written=kill:7", "before").killed
    (torn.folder / "left.new").write_bytes(b"a draft")
    (torn.folder / f"{99:016x}.segment").write_bytes(b"a stranger")
    assert empty.write("", "before", 2).code == 0
    assert Forked(lambda: opened_and_left(empty.folder), log=empty.place / "log").killed
    for life in (torn, empty):
        life.ledger.close()
    return [None, torn.place, empty.place]


@pytest.mark.parametrize("point", JOURNAL, ids=lambda point: point.value)
def test_a_writer_killed_at_each_place(
    point: Failpoint, beginnings: list[Path | None], tmp_path: Path, chances: Chances
) -> None:
    kills = 0
    for number, before in enumerate(beginnings):
        for nth in chances.moments(1, point.value, number):
            life = Life(tmp_path / f"{number}-{nth}", before)
            done = life.write(f"{point.value}=kill:{nth}")
            assert done.killed or done.code == 0, done.log.read_text()
            kills += done.killed
            tally.count("kill", done.killed)
            assert life.verdict() == KEPT, f"{point.value} {nth}"
            assert life.write("", "fresh", 2).code == 0
            assert life.verdict() == KEPT, f"{point.value} {nth}"
            life.close()
            if not done.killed:
                break
    assert kills > 0, f"{point.value} was never met"


@pytest.mark.parametrize("point", [point for point in JOURNAL if point not in CANNOT_RAISE], ids=lambda p: p.value)
def test_a_writer_refused_at_each_place(
    point: Failpoint, beginnings: list[Path | None], tmp_path: Path, chances: Chances
) -> None:
    """As by a system call that fails there: at the start it says that it cannot, later it goes on."""
    refusals = 0
    for number, before in enumerate(beginnings):
        for nth in chances.moments(1, "raise", point.value, number):
            life = Life(tmp_path / f"{number}-{nth}", before)
            done = life.write(f"{point.value}=raise:{nth}")
            refused = "failpoint" in done.log.read_text() if done.code else point in DISCARD
            assert done.code == 0 or (done.code == writer.COULD_NOT and refused), done.log.read_text()
            assert life.verdict() == KEPT, f"{point.value} {nth}"
            refusals += nth == 1
            tally.count("refused call", nth == 1)
            if done.code == 0:
                assert len(set(life.ledger.known().acknowledged)) >= COUNT
            assert life.write("", "fresh", 2).code == 0
            assert life.verdict() == KEPT, f"{point.value} {nth}"
            life.close()
            if nth > COUNT:
                break
    assert refusals


@pytest.mark.parametrize("point", JOURNAL, ids=lambda point: point.value)
def test_a_writer_stopped_at_each_place_can_be_read_and_goes_on(
    point: Failpoint, beginnings: list[Path | None], tmp_path: Path
) -> None:
    stops = 0
    for number, before in enumerate(beginnings):
        life = Life(tmp_path / f"{number}", before)
        done = life.write(f"{point.value}=stop:1")
        try:
            if done.wait_until_stopped():
                stops += 1
                tally.count("stop")
                known = life.ledger.known()
                if known.acknowledged and point not in DISCARD and not point.value.startswith("journal.recovery"):
                    assert judge_journal(life.folder, known) == KEPT, "what is acknowledged can be read meanwhile"
                done.send(signal.SIGCONT)
            assert done.code == 0, done.log.read_text()
        finally:
            done.end()
        assert life.verdict() == KEPT
        life.close()
    assert stops > 0, f"{point.value} was never met"


def ready_to_load(pipeline: Pipeline, prefix: str = "") -> None:
    """Several segments, keyed and not, with resends, and rows that the table refuses."""
    for batch in range(3):
        names = [f"{prefix}{batch}-{number}" for number in range(3)]
        pipeline.acknowledge(names, keyed=batch != 1, day=batch + 1)
        if batch == 2:
            pipeline.acknowledge([f"{prefix}{name}" for name in ("new", "0-0", "bad", "good")], day=9)
        pipeline.journal.close()
        pipeline.open_journal()


def load_in_a_child(pipeline: Pipeline, failpoints: str) -> Forked:
    """The loader's program, which ends when all is loaded."""
    arguments = [pipeline.database.dsn(Role.WRITER), str(pipeline.spool), str(ROWS_MAX)]
    return Forked(lambda: loading.main(arguments), failpoints=failpoints, log=pipeline.spool.parent / "log")


@pytest.mark.parametrize("point", LOAD, ids=lambda point: point.value)
def test_a_loader_killed_at_each_place(point: Failpoint, pipelines: Callable[[], Pipeline], chances: Chances) -> None:
    kills = 0
    for nth in chances.moments(1, point.value):
        pipeline = pipelines()
        pipeline.refuse_bad_rows()
        ready_to_load(pipeline)
        done = load_in_a_child(pipeline, f"{point.value}=kill:{nth}")
        assert done.killed or done.code == 0, done.log.read_text()
        kills += done.killed
        tally.count("kill", done.killed)
        pipeline.load()
        assert pipeline.verdict() == KEPT, f"{point.value} {nth}"
        assert pipeline.fates() == (11, 1, 0, 1), f"{point.value} {nth}"
        pipeline.close()
        if not done.killed:
            break
    assert kills > 0, f"{point.value} was never met"


def test_a_loader_refused_or_stopped_at_each_place(pipelines: Callable[[], Pipeline]) -> None:
    """An error nobody expects ends it, as a bug would; a stop holds it up."""
    pipeline = pipelines()
    pipeline.refuse_bad_rows()
    for point in LOAD:
        for action in ("raise", "stop"):
            ready_to_load(pipeline, f"{point.value}-{action}-")
            done = load_in_a_child(pipeline, f"{point.value}={action}")
            try:
                if action == "stop":
                    assert done.wait_until_stopped(), f"{point.value} was never met"
                    tally.count("stop")
                    done.send(signal.SIGCONT)
                else:
                    tally.count("refused call")
                assert (done.code == 0) is (action == "stop"), done.log.read_text()
            finally:
                done.end()
            pipeline.load()
    assert pipeline.verdict() == KEPT


def test_writers_killed_at_random_places(tmp_path: Path, chances: Chances) -> None:
    """One journal after the other, each with a life of several writers, and now and then one that ends well."""
    places = [point.value for point in JOURNAL]
    left, number = chances.share("writer killed"), 0
    while left > 0:
        chance, number = chances.of("writer killed", number), number + 1
        life = Life(tmp_path / f"{number}")
        for run in range(8):
            done = life.write(f"{chance.choice(places)}=kill:{chance.randrange(1, 12)}", f"w{run}")
            assert done.killed or done.code == 0, done.log.read_text()
            left -= done.killed
            tally.count("kill", done.killed)
            assert life.verdict() == KEPT, f"seed {chances.seed}, life {number}, run {run}"
        life.close()


def test_writers_refused_at_random_places(tmp_path: Path, chances: Chances) -> None:
    """Up to three refusals in one run, so that the way out of the first meets the second."""
    places = [point.value for point in JOURNAL if point not in CANNOT_RAISE]
    left, number = chances.share("writer refused"), 0
    while left > 0:
        chance, number = chances.of("writer refused", number), number + 1
        life = Life(tmp_path / f"{number}")
        for run in range(8):
            some = chance.sample(places, k=chance.randrange(1, 4))
            done = life.write(";".join(f"{place}=raise:{chance.randrange(1, 10)}" for place in some), f"w{run}")
            assert done.code in (0, writer.COULD_NOT), done.log.read_text()
            left -= len(some)
            tally.count("refused call", len(some))
            assert life.verdict() == KEPT, f"seed {chances.seed}, life {number}, run {run}"
        life.close()


def test_loaders_killed_at_random_places(pipelines: Callable[[], Pipeline], chances: Chances) -> None:
    """Each time another one goes on, and is killed too, until one comes through."""
    places = [point.value for point in LOAD]
    left, number = chances.share("loader killed"), 0
    while left > 0:
        chance, number = chances.of("loader killed", number), number + 1
        pipeline = pipelines()
        pipeline.refuse_bad_rows()
        for run in range(4):
            ready_to_load(pipeline, f"{run}-")
            done = load_in_a_child(pipeline, f"{chance.choice(places)}=kill:{chance.randrange(1, 6)}")
            assert done.killed or done.code == 0, done.log.read_text()
            left -= done.killed
            tally.count("kill", done.killed)
        pipeline.load()
        assert pipeline.verdict() == KEPT, f"seed {chances.seed}, life {number}"
        pipeline.close()


def test_the_variable_is_read_when_a_program_starts(tmp_path: Path) -> None:
    """Everything else here arms a forked process; this is the way from outside."""
    command = child("writer", tmp_path / "journal", tmp_path / "ledger", "w", 10)
    armed = {**environment(), VARIABLE: "journal.group.synced=kill:3"}
    done = subprocess.run(command, env=armed, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert recover_idle(tmp_path / "journal")
    known = Ledger(tmp_path / "ledger").known()
    assert 0 < len(known.acknowledged) < 10
    assert judge_journal(tmp_path / "journal", known) == KEPT


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("journal.group.sunk=kill", "there is no place 'journal.group.sunk'"),
        ("journal.group.synced=melt:3", "asks for 'melt'"),
        ("journal.group.synced", "asks for ''"),
        ("journal.group.synced=kill:0", "no number of a hit"),
        ("journal.group.synced=kill:x", "no number of a hit"),
        ("journal.group.published=raise", "nothing can be refused there"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_start(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        failpoint.arm(text)
    assert not failpoint.ARMED


def test_a_service_told_nonsense_does_not_start(tmp_path: Path) -> None:
    told = {**environment(), VARIABLE: "load.committed=pause", "DATABASE_URL": "postgresql:///nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", "load", "--home", tmp_path], env=told, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "TOTALIZER_FAILPOINTS: there is no place 'load.committed'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_place_and_action_is_documented() -> None:
    text = PAGE.read_text("utf-8")
    assert set(re.findall(r"`((?:journal|load|rollup|retention|late|repair)\.[a-z_]+\.[a-z_]+)`", text)) == {
        point.value for point in Failpoint
    }
    assert [action.value for action in Action if f"`{action.value}`" not in text] == []
