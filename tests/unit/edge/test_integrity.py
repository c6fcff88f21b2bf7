"""What `totalizer validate` finds, and what it must not complain about."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from totalizer.edge.batch import Batch, Entry, FailedBatch
from totalizer.edge.folder import Folders, write_file
from totalizer.edge.integrity import Level, Verdict, verdicts
from totalizer.edge.records import Done, Seal, done_payload, entry_payload, seal_payload
from totalizer.errors import EdgeError
from totalizer.journal import Journal

NOW_MS = 1_704_067_200_000


def entry(number: int, action: str = "edit") -> Entry:
    return {"id": f"entry-{number}", "userId": "u", "action": action, "timestamp": NOW_MS + number}


def batch(name: str, *numbers: int, action: str = "edit") -> Batch:
    return Batch(name, NOW_MS, tuple(entry(number, action) for number in numbers))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "aggregated")
    made.make()
    return made


def put(folder: Path, what: Batch | FailedBatch) -> Path:
    write_file(folder / what.file_name, what.encode())
    return folder / what.file_name


def failed(what: Batch) -> FailedBatch:
    return FailedBatch(what, 1, "the network is away", NOW_MS)


def found(folders: Folders, *, full: bool = False) -> dict[str, tuple[Level, str]]:
    """Findings by the name of the file; every file has one at most in these tests."""
    result = {}
    for verdict in verdicts(folders, full=full):
        assert len(verdict.findings) <= 1, verdict
        for finding in verdict.findings:
            result[verdict.path.name] = (finding.level, finding.text)
    return result


def write_journal(folders: Folders, *payloads: bytes) -> Path:
    with Journal.open(folders.journal / "edge-0", segment_bytes=1 << 20, quota_bytes=1 << 22) as journal:
        for payload in payloads:
            journal.append_and_wait(payload)
    return folders.journal / "edge-0"


def waiting(*numbers: int) -> list[bytes]:
    return [entry_payload(msgspec.json.encode(entry(number)), NOW_MS) for number in numbers]


def test_what_is_whole_has_no_findings(folders: Folders) -> None:
    put(folders.data, batch("a", 1, 2))
    put(folders.recovery, failed(batch("b", 3)))
    write_file(folders.health / "health-1.json", b'{"timestamp": 1, "status": "healthy"}')
    write_file(folders.logs / "aggregation.log", b"")
    write_journal(folders)
    all_of_them = list(verdicts(folders, full=True))
    assert [verdict for verdict in all_of_them if verdict.findings] == []
    kinds = {verdict.path.name: (verdict.kind, verdict.entries) for verdict in all_of_them}
    assert kinds["batch_a.json"] == ("batch", 2)
    assert kinds["batch_b.failed.json"] == ("failed", 1)
    assert kinds["edge-0"] == ("journal", 0)
    assert kinds["recovery"] == ("folder", 0)


def test_no_data_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="does not exist"):
        list(verdicts(Folders(tmp_path / "none")))


def spoil_count(folders: Folders) -> Path:
    path = put(folders.data, batch("a", 1))
    path.write_bytes(path.read_bytes().replace(b'"entryCount": 1', b'"entryCount": 2'))
    return path


def cut(folders: Folders) -> Path:
    path = put(folders.recovery, failed(batch("a", 1)))
    os.truncate(path, 40)
    return path


def other_version(folders: Folders) -> Path:
    path = put(folders.data, batch("a", 1))
    path.write_bytes(path.read_bytes().replace(b"2.0.0", b"1.2.0"))
    return path


def open_to_others(folders: Folders) -> Path:
    path = put(folders.data, batch("a", 1))
    path.chmod(0o640)
    return path


def open_folder(folders: Folders) -> Path:
    folders.abandoned.chmod(0o755)
    return folders.abandoned


def link(folders: Folders) -> Path:
    path = folders.data / "batch_a.json"
    path.symlink_to(put(folders.logs, batch("a", 1)))
    return path


def fifo(folders: Folders) -> Path:
    path = folders.recovery / "batch_a.failed.json"
    os.mkfifo(path, 0o600)
    return path


def broken_health(folders: Folders) -> Path:
    path = folders.health / "health-1.json"
    write_file(path, b'{"status": "healthy"}')
    return path


def set_aside(folders: Folders) -> Path:
    path = folders.errors / "batch_a.failed.json"
    write_file(path, b"{")
    write_file(path.with_name(path.name + ".reason"), b"2024-01-01 it is cut off\n")
    return path


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_count, "entryCount is 2"),
        (cut, "truncated"),
        (other_version, "migrate-v1"),
        (open_to_others, "mode 0640"),
        (open_folder, "chmod 700"),
        (link, "no ordinary file"),
        (fifo, "no ordinary file"),
        (broken_health, "timestamp"),
        (set_aside, "it is cut off"),
    ],
)
def test_each_kind_of_damage_is_found(folders: Folders, spoil: Callable[[Folders], Path], text: str) -> None:
    path = spoil(folders)
    put(folders.data, batch("z", 99))
    [(name, (level, message))] = found(folders).items()
    assert (name, level) == (path.name, Level.PROBLEM)
    assert text in message


def test_one_entry_with_two_contents_is_found(folders: Folders) -> None:
    put(folders.data, batch("a", 1, 2))
    put(folders.data, batch("b", 2, 3, action="other"))
    [(name, (level, text))] = found(folders).items()
    assert (name, level) == ("batch_b.json", Level.PROBLEM)
    assert "1 entry is in" in text
    assert "batch_a.json too, with other contents" in text
    assert "entry-2" in text


def test_entries_that_were_delivered_twice_are_found(folders: Folders) -> None:
    put(folders.data, batch("a", *range(10)))
    put(folders.data, batch("b", *range(10)))
    [(name, (level, text))] = found(folders).items()
    assert (name, level) == ("batch_b.json", Level.PROBLEM)
    assert "10 entries are in" in text
    assert "(entry-0, entry-1, entry-2, …)" in text


def test_an_entry_twice_in_one_batch_is_found(folders: Folders) -> None:
    put(folders.data, batch("a", 1, 1))
    assert "1 entry is in it, more than once" in found(folders)["batch_a.json"][1]


def test_a_delivery_that_was_interrupted_is_only_a_note(folders: Folders) -> None:
    put(folders.data, batch("a", 1, 2))
    put(folders.recovery, failed(batch("a", 1, 2)))
    write_journal(folders, *waiting(1, 2), seal_payload(Seal("a", NOW_MS, 2, 2)))
    levels = {name: level for name, (level, _) in found(folders, full=True).items()}
    assert levels == dict.fromkeys(("edge-0", "batch_a.json", "batch_a.failed.json"), Level.NOTE)


def test_what_is_done_in_a_journal_does_not_wait(folders: Folders) -> None:
    folder = write_journal(folders, *waiting(1, 2, 3), done_payload(Done("a", 2, 1, 8192)))
    put(folders.data, batch("a", 1, 2))
    assert found(folders, full=True) == {folder.name: (Level.NOTE, "1 entries wait in it")}


def test_damage_in_a_journal_is_found(folders: Folders) -> None:
    folder = write_journal(folders, *waiting(1, 2, 3))
    [segment] = folder.glob("*.segment")
    data = bytearray(segment.read_bytes())
    at = bytes(data).index(b"entry-2")
    data[at] ^= 0xFF
    segment.write_bytes(bytes(data))
    [verdict] = [verdict for verdict in verdicts(folders, full=True) if verdict.kind == "journal"]
    assert not verdict.sound
    assert any("1 records are lost" in finding.text for finding in verdict.findings)
    again = [verdict for verdict in verdicts(folders) if verdict.kind == "journal"]
    assert [len(verdict.findings) for verdict in again] == [2], "one damage, one note of what waits"


def test_a_folder_that_is_no_journal_any_more_is_found(folders: Folders) -> None:
    folder = write_journal(folders, *waiting(1))
    (folder / "journal.json").write_text("{")
    [verdict] = [verdict for verdict in verdicts(folders) if verdict.kind == "journal"]
    assert not verdict.sound
    assert "journal.json" in verdict.findings[0].text


@pytest.mark.parametrize(
    ("change", "text"),
    [({"userId": None}, "entry 0: userId"), ({"timestamp": 1704067200}, "seconds"), ({"extra": 1}, "unknown member")],
)
def test_full_also_looks_at_every_entry(folders: Folders, change: dict[str, Any], text: str) -> None:
    put(folders.data, Batch("a", NOW_MS, ({**entry(1), **change},)))
    assert found(folders) == {}
    assert text in found(folders, full=True)["batch_a.json"][1]


def test_only_some_wrong_entries_are_named(folders: Folders) -> None:
    put(folders.data, Batch("a", NOW_MS, tuple({**entry(number), "action": ""} for number in range(8))))
    [verdict] = [verdict for verdict in verdicts(folders, full=True) if verdict.findings]
    assert len(verdict.findings) == 6
    assert verdict.findings[-1].text.startswith("… and 3 more")


def test_drafts_of_the_dead_are_noted_and_of_the_living_are_not(folders: Folders) -> None:
    (folders.data / f".batch_a.json.{os.getpid()}.abcd.tmp").touch(0o600)
    (folders.data / ".batch_b.json.4194304.abcd.tmp").touch(0o600)
    assert list(found(folders)) == [".batch_b.json.4194304.abcd.tmp"]


def test_a_file_that_was_given_up_is_noted(folders: Folders) -> None:
    put(folders.abandoned, replace(failed(batch("a", 1)), abandoned_at=NOW_MS))
    level, text = found(folders)["batch_a.abandoned.json"]
    assert level is Level.NOTE
    assert "the network is away" in text


def test_a_verdict_says_the_same_as_json(tmp_path: Path) -> None:
    assert Verdict(tmp_path, "folder").to_document() == {
        "path": str(tmp_path), "kind": "folder", "entries": 0, "sound": True, "findings": [],
    }  # fmt: skip
