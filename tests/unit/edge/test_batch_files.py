"""Batch files: their documented form, reading what others wrote, and getting a file into its folder whole."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.edge import Batch, BatchFileDamaged, BatchVersionUnknown, FailedBatch
from totalizer.edge.batch import RefusedEntry, decode_batch_file, decode_failed_file, identified, new_batch_id
from totalizer.edge.folder import Folders, move_file, remove_file, sweep_drafts, write_file
from totalizer.journal.disk import Disk
from unit.edge.parts import entry

BATCH = Batch("1704067200000_abc123", 1_704_067_200_000, (entry(1, id="a"), entry(2, id="b")))
FAILED = FailedBatch(BATCH, 3, "File system write error", 1_704_067_500_000, 1_704_067_800_000, 1_704_067_900_000)


def test_a_batch_file_has_the_documented_members() -> None:
    document = json.loads(BATCH.encode())
    assert document == {
        "batchId": "1704067200000_abc123", "timestamp": 1_704_067_200_000, "version": "2.0.0",
        "entries": list(BATCH.entries), "entryCount": 2, "recovered": False,
    }  # fmt: skip
    assert BATCH.file_name == "batch_1704067200000_abc123.json"


def test_a_failed_file_has_the_documented_members() -> None:
    document = json.loads(FAILED.encode())
    assert document == {
        "batchId": "1704067200000_abc123", "timestamp": 1_704_067_200_000, "version": "2.0.0",
        "entries": list(BATCH.entries), "entryCount": 2, "retryCount": 3, "lastRetryAt": 1_704_067_800_000,
        "lastError": "File system write error", "failedAt": 1_704_067_500_000, "nextRetryAt": 1_704_067_900_000,
    }  # fmt: skip
    assert FAILED.file_name == "batch_1704067200000_abc123.failed.json"


def test_every_form_is_read_back() -> None:
    given_up = replace(FAILED, abandoned_at=7, refusals=(RefusedEntry(1, "invalid", "it is bad"),))
    assert decode_batch_file(BATCH.encode(), "x") == BATCH
    assert decode_batch_file(FAILED.encode(), "x") == BATCH
    assert decode_failed_file(FAILED.encode(), "x") == replace(FAILED, file_path="x")
    assert decode_failed_file(given_up.encode(), "x") == replace(given_up, file_path="x")
    assert given_up.file_name == "batch_1704067200000_abc123.abandoned.json"


def test_the_file_of_the_documents_is_read() -> None:
    data = """{"batchId": "1704067200000_abc123", "timestamp": 1704067200000, "version": "2.0.0", "entries": [
        {"userId": "user_123", "action": "code_edit", "timestamp": 1704067180000,
         "metadata": {"sessionId": "session_456", "taskId": "task_789", "duration": 1800000}}],
        "entryCount": 1, "recovered": false}"""
    batch = decode_batch_file(data.encode(), "x")
    assert batch.entries[0]["metadata"]["duration"] == 1_800_000
    assert len(batch.entries[0]["id"]) == 32


def test_entries_without_an_id_always_get_the_same() -> None:
    bare = [{"userId": "u", "action": "a", "timestamp": 1}, {"timestamp": 1, "action": "a", "userId": "u"}]
    once, again = identified("b", bare), identified("b", [dict(reversed(each.items())) for each in bare])
    assert [each["id"] for each in once] == [each["id"] for each in again]
    ids = {each["id"] for batch_id in ("b", "c") for each in identified(batch_id, bare)}
    assert len(ids) == 4


def changed(**members: Any) -> bytes:
    return json.dumps({**json.loads(BATCH.encode()), **members}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{", b"\xff", b"null", BATCH.encode()[:-5], b"[" * 100_000, changed(entryCount=3),
        changed(entries=[]), changed(entries=[1]), changed(entries={}), changed(batchId="../x"), changed(batchId=""),
        changed(batchId=7),
        changed(timestamp="x"), changed(version=2), changed(entries=None), changed(batchId="a" * 201),
    ],
)  # fmt: skip
def test_what_is_no_batch_file_is_told_with_its_name(data: bytes) -> None:
    with pytest.raises(BatchFileDamaged, match="the name"):
        decode_batch_file(data, "the name")
    with pytest.raises(BatchFileDamaged, match="the name"):
        decode_failed_file(data, "the name")


@pytest.mark.parametrize(
    ("version", "way_out"),
    [("3.0.0", "upgrade totalizer"), ("x", "upgrade totalizer"), ("", "upgrade"), ("1.4.0", "migrate-v1")],
)
def test_another_version_is_told_with_the_way_out(version: str, way_out: str) -> None:
    with pytest.raises(BatchVersionUnknown, match=way_out):
        decode_batch_file(b'{"version": "%s", "anything": "else"}' % version.encode(), "x")


def test_a_later_minor_version_with_more_members_is_read() -> None:
    assert decode_batch_file(changed(version="2.7.1", more=[1]), "x") == BATCH


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_told(data: bytes) -> None:
    for decode in (decode_batch_file, decode_failed_file):
        with pytest.raises((BatchFileDamaged, BatchVersionUnknown)):
            decode(data, "x")


def test_batch_ids_have_the_documented_form_and_differ() -> None:
    ids = {new_batch_id(1_704_067_200_000_000_000) for _ in range(50)}
    assert len(ids) == 50
    assert all(len(each) == 20 and each.startswith("1704067200000_") for each in ids)


def test_folders_are_made_private(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "a" / "aggregated")
    folders.make()
    made = [folders.data, folders.recovery, folders.abandoned, folders.errors, folders.health, folders.logs]
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in made)
    assert (folders.health, folders.logs) == (tmp_path / "a" / "health", tmp_path / "a" / "logs")


@pytest.mark.parametrize("atomic", [True, False])
def test_a_file_replaces_the_one_before(tmp_path: Path, atomic: bool) -> None:
    path = tmp_path / "x"
    for content in (b"one, long", b"two"):
        write_file(path, content, atomic=atomic)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_file_that_must_not_replace_another_does_not(tmp_path: Path, atomic: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"there")
    with pytest.raises(FileExistsError):
        write_file(path, b"new", atomic=atomic, exclusive=True)
    assert path.read_bytes() == b"there"
    assert os.listdir(tmp_path) == ["x"]


class FullDisk(Disk):
    def fsync(self, descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, exclusive: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"there")
    with pytest.raises(OSError, match="full"):
        write_file(path, b"new", exclusive=exclusive, disk=FullDisk())
    assert path.read_bytes() == b"there"
    assert os.listdir(tmp_path) == ["x"]


def test_files_are_moved_and_removed(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "x").write_bytes(b"content")
    move_file(tmp_path / "x", tmp_path / "to" / "y")
    assert (tmp_path / "to" / "y").read_bytes() == b"content"
    remove_file(tmp_path / "to" / "y")
    remove_file(tmp_path / "to" / "y")
    assert os.listdir(tmp_path / "to") == []


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_left(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getpid(), 0, 99_999_999_999_999):
        (tmp_path / f".batch_x.json.{pid}.abcd.tmp").write_bytes(b"")
    old = tmp_path / f".batch_old.json.{os.getpid()}.abcd.tmp"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    (tmp_path / "batch_x.json").write_bytes(b"")
    sweep_drafts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f".batch_x.json.{os.getpid()}.abcd.tmp", "batch_x.json"]
