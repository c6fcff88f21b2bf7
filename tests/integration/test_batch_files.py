"""`totalizer import batch-files`: what a batch file holds is counted once, by whichever way and how often it comes."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support import Stack
from totalizer.edge.batch import Batch, FailedBatch, RefusedEntry
from totalizer.edge.sinks.http import HttpSink

#: 2001: what is old is taken all the same.
OLD_MS = 1_000_000_000_000


def batch(name: str, count: int, **more: Any) -> Batch:
    entries = tuple(
        {"id": f"{name}-{n}", "userId": f"u{n % 3}", "action": "a", "timestamp": OLD_MS + n,
         "metadata": {"duration": 10, **more}}
        for n in range(count)
    )  # fmt: skip
    return Batch(f"{OLD_MS}_{name}", OLD_MS, entries)


def failed(made: Batch, *, abandoned: bool = False, refusals: tuple[RefusedEntry, ...] = ()) -> FailedBatch:
    return FailedBatch(made, 3, "no answer", OLD_MS, abandoned_at=OLD_MS if abandoned else None, refusals=refusals)


def write(folder: Path, *files: Batch | FailedBatch) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.file_name).write_bytes(file.encode())


class Command:
    """Runs the import against the stack."""

    def __init__(self, stack: Stack, home: Path) -> None:
        self.stack, self.home = stack, home
        self._environment = os.environ | {
            "TOTALIZER_URL": stack.url, "TOTALIZER_API_KEY": stack.key, "TOTALIZER_HOME": str(home), "COLUMNS": "200",
        }  # fmt: skip

    def run(self, *arguments: object, expect: int = 0) -> str:
        """Import, wait until all of it is loaded, and return what was shown."""
        command = [sys.executable, "-m", "totalizer", "import", "batch-files", *map(str, arguments)]
        done = subprocess.run(command, env=self._environment, text=True, capture_output=True, timeout=100)
        shown = done.stdout + done.stderr
        assert done.returncode == expect, shown
        self.stack.drain()
        return shown

    def quarantined(self) -> list[dict[str, Any]]:
        """Lines that were not counted."""
        files = sorted((self.home / "quarantine").glob("*.ndjson"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def stored(self) -> tuple[int, int]:
        """Rows and their sum of durations."""
        [row] = self.stack.sql(
            "SELECT count(*), coalesce(sum(duration_ms), 0) FROM events.time_entries WHERE organization_id = %s",
            self.stack.organization_id,
        )
        return int(row[0]), int(row[1])


@pytest.fixture
def command(stack: Stack, tmp_path: Path) -> Command:
    return Command(stack, tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree as the batching library leaves it: 5 delivered batches, one that failed, one that was given up."""
    data = tmp_path / "aggregated"
    write(data, *(batch(f"aaaaa{number}", 50) for number in range(5)))
    write(data / "recovery", failed(batch("bbbbbb", 7)))
    write(data / "recovery" / "abandoned", failed(batch("cccccc", 3), abandoned=True))
    (data / "notes.json").write_text("{}")
    (data / ".batch_1.json.99.tmp").write_text("{")
    os.mkfifo(data / "batch_fifo.json")
    return data


def test_a_folder_is_imported_whole_and_once(command: Command, folder: Path) -> None:
    shown = command.run(folder)
    assert "records read" in shown
    assert "260" in shown
    assert command.stored() == (260, 2600)

    assert "260" in command.run(folder)
    command.run(folder, "--restart")
    command.run(folder / f"batch_{OLD_MS}_aaaaa1.json", folder)
    assert command.stored() == (260, 2600)
    stored = command.stack.sql(
        "SELECT DISTINCT occurred_at::date::text FROM events.time_entries WHERE organization_id = %s",
        command.stack.organization_id,
    )
    assert stored == [("2001-09-09",)]


def test_new_files_are_added(command: Command, folder: Path) -> None:
    command.run(folder)
    write(folder, batch("dddddd", 11))
    shown = command.run(folder)
    assert command.stored() == (271, 2710)
    assert re.search(r"skipped, done before\W+260\b", shown), shown


def test_a_batch_that_also_came_over_http_is_counted_once(command: Command, tmp_path: Path, stack: Stack) -> None:
    made = batch("eeeeee", 40, sessionId="s", text='zwölf "quoted"\n\t\\')
    sink = HttpSink(stack.url, stack.key)
    sink.deliver(made.only(range(25)))
    write(tmp_path / "files", failed(made))
    command.run(tmp_path / "files")
    sink.deliver(made)
    sink.close()
    stack.drain()

    assert command.stored() == (40, 400)
    counted = stack.sql(
        "SELECT sum(duplicate)::int, sum(conflict)::int FROM totalizer.load_ledger WHERE organization_id = %s",
        stack.organization_id,
    )
    assert counted == [(25 + 40, 0)], "the same entry differs by the way it came"


def test_files_of_before_there_were_ids_count_once(command: Command, tmp_path: Path) -> None:
    entry = {"userId": "u", "action": "a", "timestamp": OLD_MS, "metadata": {"duration": 10}}
    document = {
        "batchId": f"{OLD_MS}_ffffff", "timestamp": OLD_MS, "version": "2.0.0", "entries": [entry, entry],
        "entryCount": 2, "recovered": False,
    }  # fmt: skip
    file = tmp_path / "any name"
    file.write_text(json.dumps(document))
    command.run(file)
    file.write_text(json.dumps(document, indent=4))
    command.run(file, "--restart")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(file.read_bytes()))
    command.run(tmp_path / "packed.gz")
    assert command.stored() == (2, 20)


def test_damaged_files_are_named_and_left_and_the_rest_is_imported(command: Command, folder: Path) -> None:
    whole = (folder / f"batch_{OLD_MS}_aaaaa0.json").read_bytes()
    later = json.loads(whole) | {"version": "3.0.0"}
    older = json.loads(whole) | {"version": "1.2.0"}
    wrong = {
        "batch_1_cut.json": whole[:500], "batch_1_empty.json": b"",
        "batch_1_count.json": whole.replace(b": 50", b": 51"),
        "batch_1_later.json": json.dumps(later).encode(), "batch_1_older.json": json.dumps(older).encode(),
        "batch_1_packed.json": gzip.compress(whole)[:-20], "batch_1_text.json": b"\xff\xfe",
    }  # fmt: skip
    for name, content in wrong.items():
        (folder / name).write_bytes(content)

    shown = command.run(folder, expect=1)

    assert command.stored() == (260, 2600)
    for name, content in wrong.items():
        assert f"{name}: " in shown, name
        assert (folder / name).read_bytes() == content
    assert f"{len(wrong)} of {len(wrong) + 7} files were not read, and are left" in shown
    assert "upgrade totalizer" in shown
    assert "totalizer migrate-v1" in shown
    reasons = [line["reason"] for line in command.quarantined()]
    assert len(reasons) == len(wrong)
    assert any("entryCount is 51" in reason for reason in reasons)


def test_an_entry_the_server_refuses_is_set_aside(command: Command, tmp_path: Path) -> None:
    made = batch("gggggg", 4)
    made.entries[2]["timestamp"] = 1_000_000_000
    write(tmp_path / "files", failed(made, abandoned=True, refusals=(RefusedEntry(2, "invalid_time", "seconds"),)))
    command.run(tmp_path / "files", expect=1)

    assert command.stored() == (3, 30)
    [line] = command.quarantined()
    assert "seconds" in line["reason"]
    assert msgspec.json.decode(line["text"])["id"] == "gggggg-2"


def test_a_folder_without_batches_and_a_path_that_is_none(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "nothing to import" in command.run(tmp_path / "empty")
    assert "does not exist" in command.run(tmp_path / "nowhere", expect=2)
    command.run(expect=2)
