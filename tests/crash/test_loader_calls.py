"""A loader killed at each of its calls on the database's socket, by strace; COMMIT sent and its reply never read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crash import tally
from crash.chances import Chances
from crash.oracle import KEPT
from crash.pipeline import ROWS_MAX, Pipeline
from crash.traced import call_set, child, require_strace, trace
from totalizer.store.roles import Role


@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
def test_killed_at_each_call_on_the_socket(
    call: str, pipelines: Callable[[], Pipeline], tmp_path: Path, chances: Chances
) -> None:
    """Before what it sends has left, and before it has read the answer to what it sent."""
    require_strace()
    kills = 0
    for nth in chances.moments(1, "loader", call):
        pipeline = pipelines()
        pipeline.some()
        done = trace(
            child("loading", pipeline.database.dsn(Role.WRITER), pipeline.spool, ROWS_MAX), tmp_path / "trace",
            calls=[call], inject=f"{call_set(call)}:signal=KILL:when={nth}",
        )  # fmt: skip
        assert done.killed or done.code == 0, done.output
        assert pipeline.load() == 0
        assert pipeline.verdict() == KEPT, f"{call} {nth}"
        pipeline.acknowledge(["fresh"])
        pipeline.load()
        assert pipeline.verdict() == KEPT, f"{call} {nth}"
        pipeline.close()
        if not done.killed:
            break
        kills += 1
        tally.count("kill")
    assert kills > 3, f"{call} was met {kills} times only"


@pytest.mark.parametrize("call", ["unlink", "ftruncate", "fsync"])
def test_killed_while_putting_in_order_and_discarding(
    call: str, pipelines: Callable[[], Pipeline], tmp_path: Path
) -> None:
    """A loader recovers journals whose process is gone, and deletes segments once they are loaded."""
    require_strace()
    kills = 0
    while True:
        pipeline = pipelines()
        for batch in range(4):
            pipeline.acknowledge([f"{batch}-{number}" for number in range(3)])
            pipeline.journal.close()
            if batch < 3:
                pipeline.open_journal()
        done = trace(
            child("loading", pipeline.database.dsn(Role.WRITER), pipeline.spool, ROWS_MAX), tmp_path / "trace",
            calls=[call], inject=f"{call_set(call)}:signal=KILL:when={kills + 1}",
        )  # fmt: skip
        assert done.killed or done.code == 0, done.output
        assert pipeline.load() == 0
        assert pipeline.verdict() == KEPT, f"{call} {kills + 1}"
        if not done.killed:
            break
        kills += 1
        tally.count("kill")
    assert kills > 0 or call == "ftruncate"
