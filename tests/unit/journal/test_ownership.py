"""One writer a folder: locks, forks, folders that are not ours."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from totalizer.errors import JournalBusy, JournalFailed
from totalizer.journal import Journal, JournalReader, claim, recover_idle
from totalizer.journal.folder import FolderLock

from .conftest import QUOTA_BYTES, SEGMENT_BYTES, FaultyDisk, payloads_in, wait_until

Opener = Callable[..., Journal]
SIZES = {"segment_bytes": SEGMENT_BYTES, "quota_bytes": QUOTA_BYTES}


def test_a_second_owner_is_told_who_the_first_is(open_journal: Opener, folder: Path) -> None:
    open_journal()
    with pytest.raises(JournalBusy, match=str(os.getpid())):
        Journal.open(folder, **SIZES)
    assert recover_idle(folder) is False


def test_a_second_process_is_told_who_the_first_is(open_journal: Opener, folder: Path) -> None:
    open_journal()
    script = f"""
        from pathlib import Path
        from totalizer.errors import JournalBusy
        from totalizer.journal import Journal
        try:
            Journal.open(Path({str(folder)!r}), segment_bytes={SEGMENT_BYTES}, quota_bytes={QUOTA_BYTES})
        except JournalBusy as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert f"process {os.getpid()}" in done.stdout


def test_a_writer_waits_for_one_that_only_recovers(folder: Path, open_journal: Opener) -> None:
    open_journal().close()
    lock = FolderLock(folder)
    assert lock.acquire("recovering")
    opened = threading.Thread(target=open_journal)
    opened.start()
    assert opened.is_alive()
    lock.release()
    opened.join(30)
    assert not opened.is_alive()
    assert recover_idle(folder) is False


def test_claim_takes_the_first_free_folder_and_adopts_what_a_dead_process_left(tmp_path: Path) -> None:
    first, second = claim(tmp_path, "api", **SIZES), claim(tmp_path, "api", **SIZES)
    assert [first.folder.name, second.folder.name] == ["api-0", "api-1"]
    first.append_and_wait(b"left behind")
    first.close()
    third = claim(tmp_path, "api", **SIZES)
    assert (third.folder, third.id) == (first.folder, first.id)
    assert payloads_in(third.folder) == [b"left behind"]
    second.close()
    third.close()


def test_recover_idle_makes_what_a_killed_writer_left_readable(folder: Path) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from totalizer.journal import Journal
        journal = Journal.open(Path({str(folder)!r}), segment_bytes={SEGMENT_BYTES}, quota_bytes={QUOTA_BYTES})
        journal.append_and_wait(b"acknowledged")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    # After a power loss the watermark may be anything.
    (folder / "durable").write_bytes(os.urandom(128))
    reader = JournalReader(folder)
    assert reader.read(reader.durable_end(), records_max=9, bytes_max=999) == []
    assert recover_idle(folder) is True
    assert payloads_in(folder) == [b"acknowledged"]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}
    assert recover_idle(folder) is True
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"} == before
    reader.close()


def test_a_forked_child_can_neither_write_nor_free_the_parents_journal(open_journal: Opener, folder: Path) -> None:
    journal = open_journal()
    journal.append_and_wait(b"parent before")
    answer, question = os.pipe()
    child = os.fork()
    if child == 0:
        told = "nothing"
        try:
            journal.append(b"child", None)
        except JournalFailed as error:
            told = str(error)
        journal.close()
        os.write(question, told.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(question)
    assert b"before fork" in os.read(answer, 1000)
    os.close(answer)
    journal.append_and_wait(b"parent after")
    with pytest.raises(JournalBusy):
        Journal.open(folder, **SIZES)
    journal.close()
    assert payloads_in(folder) == [b"parent before", b"parent after"]


def test_a_forked_child_that_lives_on_does_not_keep_a_dead_parents_folder(folder: Path) -> None:
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from totalizer.journal import Journal
        journal = Journal.open(Path({str(folder)!r}), segment_bytes={SEGMENT_BYTES}, quota_bytes={QUOTA_BYTES})
        child = os.fork()
        if child == 0:
            os.close(1)
            signal.pause()
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, check=False
    )
    child = int(done.stdout)
    try:
        Journal.open(folder, **SIZES).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_fork_while_appending_leaves_both_sides_working(open_journal: Opener, folder: Path) -> None:
    journal = open_journal(quota_bytes=64 << 20)
    stop = threading.Event()
    written = []

    def produce() -> None:
        while not stop.is_set():
            journal.append_and_wait(b"%d" % len(written))
            written.append(len(written))

    thread = threading.Thread(target=produce)
    thread.start()
    for number in range(20):
        wait_until(lambda least=number * 5: len(written) > least)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                journal.append(b"child", None)
            except JournalFailed:
                mine = Journal.open(folder.with_name(f"child-{number}"), **SIZES)
                mine.append_and_wait(b"own")
                mine.close()
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    thread.join()
    assert payloads_in(folder) == [b"%d" % number for number in written]


def test_a_new_folder_and_its_ancestors_are_private_and_synced(tmp_path: Path, disk: FaultyDisk) -> None:
    folder = tmp_path / "new" / "newer" / "newest"
    with Journal.open(folder, disk=disk, **SIZES):
        for path in (folder, folder.parent, folder.parent.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for path in folder.glob("*.segment"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert disk.calls[:6] == ["sync_folder", "fsync"] * 3


def test_symbolic_links_and_other_things_are_refused(tmp_path: Path, open_journal: Opener) -> None:
    open_journal(tmp_path / "real").close()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name, reason in (("link", "symbolic link"), ("file", "not a folder")):
        with pytest.raises(JournalFailed, match=reason):
            Journal.open(tmp_path / name, **SIZES)
        with pytest.raises(JournalFailed, match=reason):
            JournalReader(tmp_path / name)
        with pytest.raises(JournalFailed, match=reason):
            recover_idle(tmp_path / name)
    with pytest.raises(JournalFailed, match="does not exist"):
        JournalReader(tmp_path / "nowhere")
    with pytest.raises(JournalFailed, match="holds no journal"):
        JournalReader(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(folder: Path, open_journal: Opener) -> None:
    open_journal().close()
    os.chown(folder, 65534, 65534)
    with pytest.raises(JournalFailed, match="belongs to user 65534"):
        Journal.open(folder, **SIZES)


def test_a_later_format_is_left_alone(folder: Path, open_journal: Opener) -> None:
    open_journal().close()
    identity = json.loads((folder / "journal.json").read_text())
    (folder / "journal.json").write_text(json.dumps({**identity, "version": 2}))
    before = sorted(folder.iterdir())
    with pytest.raises(JournalFailed, match="upgrade"):
        Journal.open(folder, **SIZES)
    with pytest.raises(JournalFailed, match="upgrade"):
        JournalReader(folder)
    assert sorted(folder.iterdir()) == before
