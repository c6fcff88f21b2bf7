"""The recovery daemon and the running server: an outage, a refusal, and a batch that is sent again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Stack, free_port, wait_until
from totalizer.edge import CronRecoveryDaemon, FlushError, HttpSink, SmartBatchAggregator
from totalizer.edge.batch import Batch, FailedBatch, decode_failed_file
from totalizer.edge.folder import Folders, write_file

NOW_MS = 1_757_066_400_000


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "aggregated")
    made.make()
    return made


@pytest.fixture
def sink(stack: Stack) -> Iterator[HttpSink]:
    sink = HttpSink(stack.url, stack.key)
    yield sink
    sink.close()


def stored(stack: Stack) -> list[tuple[str, int]]:
    """How often each entry counts at the server."""
    stack.drain()
    return [
        (str(name), int(count))
        for name, count in stack.sql(
            "SELECT external_id, count(*) FROM events.time_entries WHERE organization_id = %s GROUP BY 1 ORDER BY 1",
            stack.organization_id,
        )
    ]


def entry(number: int) -> dict[str, object]:
    return {"id": f"e{number}", "userId": "u", "action": "a", "timestamp": NOW_MS + number}


def test_what_an_outage_held_up_arrives_once(stack: Stack, sink: HttpSink, folders: Folders) -> None:
    away = HttpSink(f"http://127.0.0.1:{free_port()}", stack.key)
    with SmartBatchAggregator(data_path=folders.data, sink=away) as aggregator:
        for number in range(5):
            aggregator.add(entry(number))
        with pytest.raises(FlushError):
            aggregator.flush()
    [path] = folders.failed_files()
    kept = path.read_bytes()
    with CronRecoveryDaemon(data_path=folders.data, sink=sink, schedule_interval_ms=100) as daemon:
        wait_until(lambda: not folders.failed_files(), "delivery")
        write_file(path, kept)  # as a crash between the delivery and its settlement leaves it
        wait_until(lambda: not folders.failed_files(), "the second delivery")
    assert daemon.get_recovery_metrics().successful_recoveries == 2
    assert stored(stack) == [(f"e{number}", 1) for number in range(5)]


def test_what_the_server_refuses_is_given_up_with_its_reason_and_the_rest_arrives(
    stack: Stack, sink: HttpSink, folders: Folders
) -> None:
    entries = (entry(0), {**entry(1), "action": 5}, entry(2))
    failed = FailedBatch(Batch(f"{NOW_MS}_abc123", NOW_MS, entries), 0, "connection refused", NOW_MS)
    write_file(folders.recovery / failed.file_name, failed.encode())
    daemon = CronRecoveryDaemon(data_path=folders.data, sink=sink)
    [found] = daemon.scan_for_failed_batches()
    result = daemon.reprocess_batch(found)
    assert (result.success, result.abandoned, result.entries_delivered) == (False, True, 2)
    assert stored(stack) == [("e0", 1), ("e2", 1)]
    [path] = folders.abandoned_files()
    abandoned = decode_failed_file(path.read_bytes(), path.name)
    assert [one["id"] for one in abandoned.batch.entries] == ["e1"]
    assert "action" in abandoned.refusals[0].message


def test_a_revoked_key_keeps_the_batch(stack: Stack, folders: Folders) -> None:
    failed = FailedBatch(Batch(f"{NOW_MS}_abc123", NOW_MS, (entry(0),)), 0, "connection refused", NOW_MS)
    write_file(folders.recovery / failed.file_name, failed.encode())
    sink = HttpSink(stack.url, "tk_not_a_key")
    result = CronRecoveryDaemon(data_path=folders.data, sink=sink).reprocess_failed_batches()
    sink.close()
    assert (result.failed, result.abandoned) == (1, 0)
    assert len(folders.failed_files()) == 1
    assert stored(stack) == []
