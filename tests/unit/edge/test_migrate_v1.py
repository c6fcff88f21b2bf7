"""Batch files of version 1: read in every spelling, converted once, put back whole."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.edge.batch import Batch, FailedBatch, decode_batch_file, decode_failed_file
from totalizer.edge.folder import Folders
from totalizer.edge.migrate_v1 import Outcome, migrate, rollback
from totalizer.edge.migrate_v1.document import convert_document
from totalizer.edge.migrate_v1.entry import convert_entry, milliseconds_of
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, OperationError, ValidationError
from totalizer.journal.disk import Disk

OLD_ENTRY = {"user_id": "user_1", "action": "code_edit", "timestamp": 1704067180, "meta": {"session_id": "s1"}}
NEW_ENTRY = {
    "userId": "user_1", "action": "code_edit", "timestamp": 1704067180000, "metadata": {"sessionId": "s1"},
}  # fmt: skip


def folders_in(path: Path) -> Folders:
    return Folders(path / "new" / "aggregated")


def put(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but those that are there for a lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def without_ids(batch: Batch) -> list[dict[str, Any]]:
    assert all(entry["id"] for entry in batch.entries)
    return [{name: value for name, value in entry.items() if name != "id"} for entry in batch.entries]


def converted(document: Any, name: str = "old.json", zone: str | None = None) -> Batch | FailedBatch:
    found = convert_document(json.dumps(document).encode(), name, ZoneInfo(zone) if zone else None)
    assert found is not None
    return found.batch


# -- entries


@pytest.mark.parametrize(
    "old",
    [
        OLD_ENTRY,
        {"userId": "user_1", "action": "code_edit", "timestamp": 1704067180000, "metadata": {"sessionId": "s1"}},
        {"user": "user_1", "event": "code_edit", "ts": "2024-01-01T00:59:40+01:00", "data": {"session_id": "s1"}},
        {"userId": "user_1", "action": "code_edit", "ts": "1704067180", "sessionId": "s1"},
        {"userId": "user_1", "user_id": "user_1", "action": "code_edit", "time": 1704067180.0, "session_id": "s1"},
        {"userId": "user_1", "action": "code_edit", "timestamp": "2023-12-31 23:59:40Z", "metadata": None,
         "meta": {"sessionId": "s1"}, "session_id": "s1"},
    ],
)  # fmt: skip
def test_an_entry_is_read_in_every_spelling(old: dict[str, Any]) -> None:
    before = json.dumps(old)
    assert convert_entry(old, None) == NEW_ENTRY
    assert json.dumps(old) == before


def test_what_has_no_place_of_its_own_is_kept_in_the_metadata() -> None:
    old = {**OLD_ENTRY, "project": "p", "duration_ms": 5, "tags": [1, 2]}
    assert convert_entry(old, None)["metadata"] == {"sessionId": "s1", "duration": 5, "project": "p", "tags": [1, 2]}


def test_an_id_is_kept_and_a_number_becomes_text() -> None:
    entry = convert_entry({**OLD_ENTRY, "entry_id": 7, "user_id": 42}, None)
    assert (entry["id"], entry["userId"]) == ("7", "42")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_id": None}, "userId"),
        ({"user_id": ""}, "userId"),
        ({"user_id": True}, "userId"),
        ({"action": ["a"]}, "action"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2024-01-01T00:00:00"}, "timestamp"),
        ({"timestamp": "2024-13-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1e18}, "timestamp"),
        ({"meta": [1]}, "metadata"),
        ({"userId": "another"}, "userId"),
        ({"session_id": "another"}, "metadata.sessionId"),
        ({"data": {"session_id": "another"}}, "metadata"),
    ],
)
def test_an_entry_that_cannot_be_read_for_certain_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        convert_entry({**OLD_ENTRY, **change}, None)
    assert caught.value.field == field


@given(st.integers(100_000_000_000, 253_402_300_799_999))
def test_milliseconds_stay_and_text_says_the_same(moment: int) -> None:
    from datetime import UTC, datetime, timedelta

    text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)).isoformat()
    assert milliseconds_of(moment, None) == milliseconds_of(str(moment), None) == milliseconds_of(text, None) == moment


@given(st.integers(0, 99_999_999_999))
def test_smaller_numbers_are_seconds(moment: int) -> None:
    assert milliseconds_of(moment, None) == moment * 1000


def test_a_time_without_a_zone_takes_the_one_that_is_named() -> None:
    assert milliseconds_of("2024-07-01T02:00:00", ZoneInfo("Europe/Berlin")) == 1719792000000
    assert milliseconds_of("1971-01-01T00:00:00Z", None) == 31536000000  # text says its unit


# -- documents


def test_an_array_and_an_object_of_it_give_the_same_batch() -> None:
    array, plain, versioned = (
        converted(document)
        for document in ([OLD_ENTRY], {"entries": [OLD_ENTRY]}, {"version": 1, "entries": [OLD_ENTRY]})
    )
    assert array == plain == versioned
    assert isinstance(array, Batch)
    assert array.timestamp == 1704067180000
    assert without_ids(array) == [NEW_ENTRY]


def test_equal_entries_stay_two() -> None:
    batch = converted([OLD_ENTRY, OLD_ENTRY])
    assert isinstance(batch, Batch)
    assert len({entry["id"] for entry in batch.entries}) == 2


def test_ids_follow_from_the_contents_alone() -> None:
    first, again = converted([OLD_ENTRY], "a.json"), converted([dict(reversed(OLD_ENTRY.items()))], "b.json")
    assert first == again
    assert first.batch_id != converted([{**OLD_ENTRY, "action": "other"}]).batch_id


@pytest.mark.parametrize("version", ["1", "1.0", "1.4.2", "v1", 1, 1.0, None])
def test_versions_1_are_converted(version: object) -> None:
    assert converted({"version": version, "entries": [OLD_ENTRY]}).batch_id == converted([OLD_ENTRY]).batch_id


def test_a_batch_keeps_its_own_id_and_time() -> None:
    batch = converted({"batch_id": "1704067200000_abc123", "created_at": 1704067200, "entries": [OLD_ENTRY]})
    assert (batch.batch_id, batch.file_name) == ("1704067200000_abc123", "batch_1704067200000_abc123.json")
    assert isinstance(batch, Batch)
    assert batch.timestamp == 1704067200000


def test_an_id_that_cannot_be_a_file_name_is_replaced_and_told() -> None:
    found = convert_document(json.dumps({"batchId": "../x", "entries": [OLD_ENTRY]}).encode(), "x.json", None)
    assert found is not None
    assert found.batch.batch_id == converted([OLD_ENTRY]).batch_id
    assert "'../x'" in found.notes[0]


def test_a_failed_batch_keeps_the_history_of_its_attempts() -> None:
    document = {"batchId": "b", "entries": [OLD_ENTRY], "retry_count": 3, "last_error": "disk", "failed_at": 1704067500}
    failed = converted(document)
    assert isinstance(failed, FailedBatch)
    assert (failed.retry_count, failed.last_error, failed.failed_at) == (3, "disk", 1704067500000)
    assert failed.file_name == "batch_b.failed.json"
    abandoned = converted([OLD_ENTRY], "x.abandoned.json")
    assert isinstance(abandoned, FailedBatch)
    assert abandoned.file_name.endswith(".abandoned.json")
    assert isinstance(converted([OLD_ENTRY], "x.failed.json"), FailedBatch)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "no JSON"),
        ('{"a": 1}', "neither an array"),
        ("7", "neither an array"),
        ("[]", "no entries"),
        ("[7]", "entry 0 is no object"),
        ('[{"user": "u"}]', "entry 0: action"),
        (json.dumps({"entries": [OLD_ENTRY], "count": 2}), "says it has 2 entries, but there are 1"),
        (json.dumps({"entries": [OLD_ENTRY], "retries": -1}), "retry count -1"),
        (json.dumps({"entries": [OLD_ENTRY], "timestamp": "then"}), "timestamp"),
        ('[{"user": "u", "event": "e", "ts": 1704067180, "data": {"n": 1e999}}]', "entry"),
        ('[{"user": "u", "event": "e", "ts": 1704067180, "data": {"n": NaN}}]', "NaN"),
        ('[{"user": "u", "event": "e", "ts": 1704067180, "user": "v"}]', "two members"),
        ('[{"user": "\\ud800", "event": "e", "ts": 1704067180}]', "entry"),
        ('[{"user": "\xff", "event": "e", "ts": 1704067180}]', "no JSON"),
        ('[{"user": "u", "event": "e", "ts": 1704067180, "data": {"n": 123456789012345678901234567890}}]', "entry"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_document_that_cannot_be_read_for_certain_is_refused(document: str, reason: str) -> None:
    with pytest.raises(BatchFileDamaged, match=reason):
        convert_document(document.encode("latin-1"), "x.json", None)


def test_present_and_later_versions() -> None:
    assert convert_document(b'{"version": "2.0.0", "entries": []}', "x.json", None) is None
    with pytest.raises(BatchVersionUnknown, match=r"'3\.0'"):
        convert_document(b'{"version": "3.0", "entries": [{}]}', "x.json", None)


# -- a whole folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    put(folder, "a.json", [OLD_ENTRY])
    put(folder, "b.json", {"batchId": "b", "entries": [{**OLD_ENTRY, "action": "b"}], "extra": 1})
    put(folder, "recovery/c.failed.json", {"batchId": "c", "entries": [{**OLD_ENTRY, "action": "c"}], "retryCount": 2})
    put(folder, "recovery/abandoned/d.abandoned.json", [{**OLD_ENTRY, "action": "d"}])
    put(folder, "broken.json", "{")
    put(folder, "current.json", Batch("e", 1704067200000, ({"id": "1", **NEW_ENTRY},)).encode().decode())
    return folder


def test_a_folder_is_migrated_and_put_back(source: Path, tmp_path: Path) -> None:
    before, folders = contents(source), folders_in(tmp_path)
    report = migrate(source, folders)
    assert {file.source: file.outcome for file in report.files} == {
        "a.json": Outcome.CONVERTED, "b.json": Outcome.CONVERTED, "recovery/c.failed.json": Outcome.CONVERTED,
        "recovery/abandoned/d.abandoned.json": Outcome.CONVERTED, "broken.json": Outcome.LEFT,
        "current.json": Outcome.CURRENT,
    }  # fmt: skip
    assert report.entries == 4
    assert [decode_batch_file(path.read_bytes(), path.name).entries[0]["action"] for path in folders.batch_files()] == [
        "code_edit", "b",
    ]  # fmt: skip
    [failed], [abandoned] = folders.failed_files(), folders.abandoned_files()
    assert decode_failed_file(failed.read_bytes(), str(failed)).retry_count == 2
    assert decode_failed_file(abandoned.read_bytes(), str(abandoned)).abandoned_at is not None
    backup = contents(source / "v1-backup")
    assert {name: backup[name] for name in backup if name != "manifest.json"} == {
        name: before[name] for name in before if name not in ("broken.json", "current.json")
    }
    assert {name for name in contents(source) if not name.startswith("v1-backup")} == {"broken.json", "current.json"}

    assert sorted(rollback(source)) == sorted(name for name in before if name not in ("broken.json", "current.json"))
    assert contents(source) == before
    assert not (source / "v1-backup").exists()
    assert [*folders.batch_files(), *folders.failed_files(), *folders.abandoned_files()] == []


def test_a_dry_run_writes_nothing_and_says_the_same(source: Path, tmp_path: Path) -> None:
    before, folders = contents(tmp_path), folders_in(tmp_path)
    told = migrate(source, folders, dry_run=True)
    assert contents(tmp_path) == before
    assert not folders.data.exists()
    assert told.files == migrate(source, folders).files


def test_a_second_migration_changes_nothing(source: Path, tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    migrate(source, folders)
    after = contents(tmp_path)
    assert migrate(source, folders).of(Outcome.CONVERTED) == []
    assert contents(tmp_path) == after


def test_in_place_the_original_goes_to_the_backup_first(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    original = put(folders.data, "batch_b.json", {"batchId": "b", "entries": [OLD_ENTRY]}).read_bytes()
    migrate(folders.data, folders)
    assert without_ids(decode_batch_file((folders.data / "batch_b.json").read_bytes(), "b")) == [NEW_ENTRY]
    assert (folders.data / "v1-backup/batch_b.json").read_bytes() == original
    rollback(folders.data)
    assert (folders.data / "batch_b.json").read_bytes() == original


def test_one_file_can_be_named(source: Path, tmp_path: Path) -> None:
    report = migrate(source / "a.json", folders_in(tmp_path))
    assert [file.source for file in report.files] == ["a.json"]
    assert (source / "v1-backup/a.json").exists()
    assert (source / "b.json").exists()


def test_copies_of_one_batch_become_one_and_are_put_back_as_two(tmp_path: Path) -> None:
    for name in ("a.json", "copy.json"):
        put(tmp_path / "old", name, [OLD_ENTRY])
    before, folders = contents(tmp_path / "old"), folders_in(tmp_path)
    report = migrate(tmp_path / "old", folders)
    assert len(folders.batch_files()) == 1
    assert "a.json" in report.files[1].notes[0]
    rollback(tmp_path / "old")
    assert contents(tmp_path / "old") == before


def test_two_batches_of_one_id_are_not_mixed(tmp_path: Path) -> None:
    put(tmp_path / "old", "a.json", {"batchId": "x", "entries": [OLD_ENTRY]})
    put(tmp_path / "old", "b.json", {"batchId": "x", "entries": [OLD_ENTRY, OLD_ENTRY]})
    report = migrate(tmp_path / "old", folders_in(tmp_path))
    assert [file.outcome for file in report.files] == [Outcome.CONVERTED, Outcome.LEFT]
    assert "a.json" in str(report.files[1].reason)
    assert (tmp_path / "old/b.json").exists()


def test_a_new_file_that_is_there_with_other_contents_is_not_overwritten(tmp_path: Path) -> None:
    put(tmp_path / "old", "a.json", {"batchId": "x", "entries": [OLD_ENTRY]})
    folders = folders_in(tmp_path)
    there = put(folders.data, "batch_x.json", "something else")
    [file] = migrate(tmp_path / "old", folders).files
    assert file.outcome is Outcome.LEFT
    assert there.read_text() == "something else"


def test_a_rollback_after_a_delivery_touches_nothing(source: Path, tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    migrate(source, folders)
    folders.failed_files()[0].unlink()  # as the recovery daemon does once it is delivered
    before = contents(tmp_path)
    with pytest.raises(OperationError, match="delivered"):
        rollback(source)
    assert contents(tmp_path) == before


def test_a_rollback_does_not_overwrite_a_new_file_of_the_old_name(source: Path, tmp_path: Path) -> None:
    migrate(source, folders_in(tmp_path))
    put(source, "a.json", [{**OLD_ENTRY, "action": "later"}])
    with pytest.raises(OperationError, match="there again"):
        rollback(source)


def test_a_file_of_the_old_name_with_new_contents_is_not_migrated_over_the_backup(source: Path, tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    migrate(source, folders)
    put(source, "a.json", [{**OLD_ENTRY, "action": "later"}])
    [file] = [file for file in migrate(source, folders).files if file.source == "a.json"]
    assert file.outcome is Outcome.LEFT
    assert "migrated before" in str(file.reason)


@pytest.mark.parametrize("name", ["none", "empty"])
def test_nothing_to_migrate_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OperationError, match=name):
        migrate(tmp_path / name, folders_in(tmp_path))
    with pytest.raises(OperationError, match="nothing was migrated"):
        rollback(tmp_path / "empty")


def test_links_are_left(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "a.json", [OLD_ENTRY])
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a.json").symlink_to(tmp_path / "elsewhere/a.json")
    [file] = migrate(tmp_path / "old", folders_in(tmp_path)).files
    assert (file.outcome, "link" in str(file.reason)) == (Outcome.LEFT, True)


class Failing(Disk):
    """A disk that refuses its n-th write, rename or removal, and everything after."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, "refused")

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._count()
        super().unlink(path)


@pytest.mark.parametrize("in_place", [False, True])
def test_stopped_at_any_call_it_goes_on_and_leads_back(source: Path, tmp_path: Path, in_place: bool) -> None:
    """A disk that fails from the n-th call on is what a crash there leaves."""
    before = contents(source)
    folders = Folders(source) if in_place else folders_in(tmp_path)
    stops = 0
    while True:
        try:
            migrate(source, folders, disk=Failing(stops))
        except OperationError:
            stops += 1
        else:
            break
        if stops % 2:
            rollback_whatever_happened(source, before)
    assert stops > 10
    batches = [decode_batch_file(path.read_bytes(), path.name) for path in folders.batch_files()]
    assert sorted(entry["action"] for batch in batches for entry in batch.entries) == ["b", "code_edit"]
    undone = 0
    while True:
        try:
            rollback(source, disk=Failing(undone))
        except OperationError:
            undone += 1
        else:
            break
    assert undone > 5
    assert {name: data for name, data in contents(source).items() if name in before} == before


def rollback_whatever_happened(source: Path, before: dict[str, bytes]) -> None:
    if (source / "v1-backup/manifest.json").exists():
        rollback(source)
    assert {name: data for name, data in contents(source).items() if name in before} == before
