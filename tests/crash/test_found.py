"""What the tests of this folder have found, each at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.pipeline import Pipeline
from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Journal, JournalReader
from totalizer.store import loading
from totalizer.store.roles import Role


def test_a_watermark_that_cannot_be_opened_is_told_as_a_journals_failure(tmp_path: Path) -> None:
    """It was a bare OSError, which nobody expects of a reader. A link to itself stands for a disk that refuses."""
    folder = tmp_path / "journal"
    with Journal.open(folder, segment_bytes=64 << 10, quota_bytes=1 << 20) as journal:
        journal.append_and_wait(b"x")
    (folder / "durable").rename(folder / "aside")
    (folder / "durable").symlink_to("durable")
    with JournalReader(folder) as reader:
        with pytest.raises(JournalFailed, match="cannot be read"):
            reader.read(BEGINNING, records_max=1, bytes_max=1)
        with pytest.raises(JournalFailed, match="cannot be read"):
            reader.durable_end()
        (folder / "aside").rename(folder / "durable")
        assert [record.payload for record in reader.read(BEGINNING, records_max=1, bytes_max=1)] == [b"x"]


@pytest.mark.parametrize(("set_up", "expected"), [("off", "on"), ("remote_apply", "remote_apply"), ("local", "local")])
def test_the_loaders_transaction_waits_for_the_disk_at_least(pipeline: Pipeline, set_up: str, expected: str) -> None:
    """With `off`, a crash of the server took back commits whose journal was discarded."""
    with pipeline.database_as(Role.WRITER) as connection:
        connection.execute(f"SET synchronous_commit = {set_up}")
        offset = loading.take_over(connection, "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11")
        with connection.transaction():
            assert loading.fence(connection, "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", offset.epoch) == offset
            assert connection.execute("SHOW synchronous_commit").fetchone() == (expected,)
        assert connection.execute("SHOW synchronous_commit").fetchone() == (set_up,)
