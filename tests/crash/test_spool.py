"""Spools with strangers in them: nothing of it hangs or stops a start, and the journals beside are loaded."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from crash import loading, tally
from crash.chances import Chances
from crash.forked import Forked
from crash.oracle import KEPT, Ledger, judge_journal
from crash.pipeline import QUOTA_BYTES, ROWS_MAX, SEGMENT_BYTES, Pipeline
from crash.writer import main as write
from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Journal, JournalReader, journals_in, recover_idle
from totalizer.store.roles import Role

SIZES = {"segment_bytes": SEGMENT_BYTES, "quota_bytes": QUOTA_BYTES}
#: What a process that is held to few descriptors may have open.
DESCRIPTORS = 32


def a_link(path: Path) -> None:
    """To something that is not there."""
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    """Opening it fails."""
    path.symlink_to(path.name)


def a_pipe(path: Path) -> None:
    """Opening it waits for the other end."""
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    """Opening it fails. A socket's path is short, so it is moved there."""
    here = Path(os.getcwd())
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path.name)
    finally:
        os.chdir(here)


def a_folder(path: Path) -> None:
    """With something in it."""
    path.mkdir()
    (path / "file").touch()


STRANGERS: list[Callable[[Path], None]] = [a_link, a_link_to_itself, a_pipe, a_socket, a_folder]
#: Names that mean something in a journal's folder, and the next ones its writer will want.
NAMES = [f"{number:016x}.segment" for number in (1, 2, 3, 9)] + [f"{3:016x}.segment.new", "left.new", "quarantine"]
#: Without these a journal is none; in their place a stranger is told of.
NEEDED = ["journal.json", "lock", "durable"]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_by_a_name_of_the_journals_does_not_stop_it(
    stranger: Callable[[Path], None], tmp_path: Path
) -> None:
    for name in NAMES:
        folder = tmp_path / name / "journal"
        ledger = Ledger(tmp_path / f"{name}.ledger")
        assert write(folder, ledger, "first", 2) == 0
        if not os.path.lexists(folder / name):
            stranger(folder / name)
        tally.count("hostile file")
        assert recover_idle(folder)
        assert write(folder, ledger, "second", 20) == 0
        assert len(ledger.known().acknowledged) == 22
        assert judge_journal(folder, ledger.known()) == KEPT
        ledger.close()


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_in_place_of_a_needed_file_is_told_and_loads_again_once_it_is_gone(
    name: str, stranger: Callable[[Path], None], pipelines: Callable[[], Pipeline]
) -> None:
    """The other journals of the spool are loaded meanwhile."""
    pipeline = pipelines()
    pipeline.acknowledge(["hidden"])
    first = pipeline.journal
    pipeline.open_journal()
    pipeline.acknowledge(["seen"])
    first.close()
    (first.folder / name).rename(first.folder / "aside")
    stranger(first.folder / name)
    tally.count("hostile file")
    if name != "lock" or stranger is not a_pipe:
        with pytest.raises(JournalFailed):
            Journal.open(first.folder, **SIZES)
    pipeline.load()
    if stranger is a_folder:
        shutil.rmtree(first.folder / name)
    else:
        (first.folder / name).unlink()
    (first.folder / "aside").rename(first.folder / name)
    pipeline.load()
    assert pipeline.fates() == (2, 0, 0, 0)
    assert pipeline.verdict() == KEPT


def test_strangers_beside_journals_do_not_stop_the_loader(pipeline: Pipeline, chances: Chances) -> None:
    """A hundred thousand files in the long run, links, pipes, another user's journal, and a link to a journal."""
    files = 100_000 if chances.stride == 1 else 10_000
    pipeline.acknowledge(["a", "b"])
    for stranger in STRANGERS:
        stranger(pipeline.spool / stranger.__name__)
    for folder in (pipeline.spool, pipeline.journal.folder):
        for number in range(files):
            (folder / f"file-{number}").touch()
    other = Journal.open(pipeline.spool / "other-0", **SIZES)
    other.close()
    (pipeline.spool / "linked").symlink_to(other.folder)
    if os.geteuid() == 0:
        os.chown(other.folder, 65534, 65534)
    tally.count("hostile file", len(STRANGERS) + 2)  # the crowd of files counts as none
    assert pipeline.spool / "linked" not in journals_in(pipeline.spool)
    pipeline.load()
    assert pipeline.verdict() == KEPT
    pipeline.journal.close()
    pipeline.open_journal()
    pipeline.acknowledge(["c"])
    pipeline.load()
    assert pipeline.verdict() == KEPT


def test_a_folder_that_cannot_be_listed_is_passed_over(tmp_path: Path) -> None:
    """As an ordinary user, for whom there are such folders."""
    with tempfile.TemporaryDirectory() as name:  # another user cannot come into `tmp_path`
        spool = Path(name) / "spool"
        Journal.open(spool / "mine", **SIZES).close()
        (spool / "theirs").mkdir(0o000)
        for path in (Path(name), spool):
            path.chmod(0o755)

        def look() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)
            refused: list[Path] = []
            journals_in(spool, lambda path, error: refused.append(path))
            assert spool / "theirs" in refused
            with pytest.raises(JournalFailed, match="cannot be listed"):
                journals_in(spool)

        done = Forked(look, log=tmp_path / "log")
        assert done.code == 0, done.log.read_text()
        (spool / "theirs").chmod(0o700)


def limited(work: Callable[[], object]) -> Callable[[], object]:
    """The same with DESCRIPTORS only, and none of the test's own."""

    def held() -> object:
        os.closerange(3, 4096)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        return work()

    return held


def test_a_writer_with_few_descriptors_goes_over_many_segments(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    done = Forked(limited(lambda: write(tmp_path / "journal", Ledger(ledger), "w", 200)), log=tmp_path / "log")
    assert done.code == 0, done.log.read_text()
    known = Ledger(ledger).known()
    assert len(known.acknowledged) == 200
    assert judge_journal(tmp_path / "journal", known) == KEPT


def test_a_loader_with_fewer_descriptors_than_journals_loads_them_all(pipeline: Pipeline) -> None:
    """A refusal for want of a descriptor has the others give theirs back."""
    for number in range(2 * DESCRIPTORS):
        pipeline.acknowledge([f"{number}"])
        pipeline.journal.close()
        pipeline.journal = Journal.open(pipeline.spool / f"more-{number}", **SIZES)
    arguments = [pipeline.database.dsn(Role.WRITER), str(pipeline.spool), str(ROWS_MAX)]
    done = Forked(limited(lambda: loading.main(arguments)), log=pipeline.spool.parent / "log")
    assert done.code == 0, done.log.read_text()
    loaded = pipeline.fates()[0]
    assert loaded == 2 * DESCRIPTORS
    assert pipeline.verdict() == KEPT


def test_a_reader_of_a_journal_whose_files_are_gone_says_so(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal", **SIZES) as journal:
        journal.append_and_wait(b"x")
    with JournalReader(tmp_path / "journal") as reader:
        assert reader.read(BEGINNING, records_max=1, bytes_max=1)
        shutil.rmtree(tmp_path / "journal")
        with pytest.raises(JournalFailed, match="cannot be read"):
            reader.read(BEGINNING, records_max=1, bytes_max=1)
    with pytest.raises(JournalFailed, match="does not exist"):
        recover_idle(tmp_path / "journal")
