"""From a sender's disk to the server's total, exactly: senders killed, answers lost, the server started again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from crash.chances import Chances
from lossy_proxy import lossy_proxy
from support import RunningStack, Stack, new_organization, wait_until
from totalizer.edge import FlushError, HttpSink, SmartBatchAggregator
from totalizer.edge.adopt import adopt
from totalizer.edge.batch import decode_failed_file

KILL_SENDER = Path(__file__).parents[2] / "examples" / "edge" / "kill_sender.py"
#: Senders killed in the normal run, and with `--long`.
KILLS, KILLS_LONG = 20, 200
NOW_MS = 1_757_066_400_000


def kills(request: pytest.FixtureRequest) -> int:
    return KILLS_LONG if request.config.getoption("--long", default=False) else KILLS


def run_kill_sender(url: str, key: str, folder: Path, count: int) -> None:
    environment = os.environ | {"TOTALIZER_URL": url, "TOTALIZER_API_KEY": key}
    command = [sys.executable, str(KILL_SENDER), str(count)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=1000)
    shown = re.search(rf"{count} kills, (\d+) entries acknowledged, (\d+) counted", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown, done.stdout + done.stderr
    assert shown[1] == shown[2]
    assert int(shown[1]) > count, "hardly anything was sent between the kills"


def rows(stack: Stack) -> tuple[int, int]:
    """Rows at the server, and ids among them."""
    stack.drain()
    [row] = stack.sql(
        "SELECT count(*), count(DISTINCT id) FROM events.time_entries WHERE organization_id = %s",
        stack.organization_id,
    )
    return int(row[0]), int(row[1])


def test_a_sender_killed_again_and_again(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run_kill_sender(stack.url, stack.key, tmp_path, kills(request))


def test_a_sender_killed_again_and_again_over_a_line_that_loses(
    stack: Stack, tmp_path: Path, chances: Chances, request: pytest.FixtureRequest
) -> None:
    """Lost answers among it: the server has the batch and its sender does not know, and is killed in doubt."""
    there, back = chances.of("request"), chances.of("answer")
    lost = 0

    def answer() -> str:
        nonlocal lost
        fate = back.choice(["pass"] * 6 + ["lose", "cut"])
        lost += fate != "pass"
        return fate

    with lossy_proxy(stack.url, lambda: there.choice(["pass"] * 15 + ["cut"]), answer) as proxy:
        run_kill_sender(proxy.url, stack.key, tmp_path, kills(request))
    assert lost > 3, "no answer was lost, so the test proves nothing"
    stored, ids = rows(stack)
    assert stored == ids
    duplicates = stack.sql(
        "SELECT sum(duplicate)::int, sum(conflict)::int FROM totalizer.load_ledger WHERE organization_id = %s",
        stack.organization_id,
    )
    assert duplicates[0][0] > 0, "nothing came twice, so the test proves nothing"
    assert duplicates[0][1] == 0


def test_a_server_that_is_killed_and_started_again_while_entries_come(tmp_path: Path) -> None:
    """Batches fail meanwhile and go to the recovery folder; in the end each entry is counted once."""
    running = RunningStack(tmp_path / "home")
    stack = new_organization(running)
    added, stop = 0, threading.Event()
    with lossy_proxy(stack.url) as proxy:
        sink = HttpSink(proxy.url, stack.key, timeout_s=10)
        aggregator = SmartBatchAggregator(sink=sink, data_path=tmp_path / "aggregated", batch_size=20, max_age_ms=50)

        def add() -> None:
            nonlocal added
            while not stop.wait(0.01):
                aggregator.add({"id": f"e{added}", "userId": "u", "action": "a", "timestamp": NOW_MS + added})
                added += 1

        thread = threading.Thread(target=add)
        thread.start()
        try:
            for number in range(2):
                reached = added + 50
                wait_until(lambda reached=reached: added >= reached, "entries", 60)
                running.process.kill() if number == 0 else running.stop()
                running.process.wait(60)
                running = RunningStack(tmp_path / "home")
                proxy.retarget(running.url)
        finally:
            stop.set()
            thread.join()
        with suppress(FlushError):  # what failed is looked for in its folder
            aggregator.shutdown()
        failed = aggregator.folders.failed_files()
        assert failed, "no batch failed, so the test proves nothing"
        sink = HttpSink(running.url, stack.key)
        for path in failed:
            batch = decode_failed_file(path.read_bytes(), str(path)).batch
            assert sink.deliver(batch).accepted == len(batch.entries)
        assert adopt(aggregator.folders, sink).waiting == 0
        sink.close()
    try:
        assert rows(Stack(running, stack.organization_id, stack.key)) == (added, added)
    finally:
        running.stop()
