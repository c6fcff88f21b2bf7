"""Retention and late events, killed at each of the places that the program itself names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crash.forked import Forked
from totalizer.catalog.retention import complete
from totalizer.failpoint import Failpoint
from totalizer.load import Loader
from totalizer.rollup.late import apply_late
from totalizer.rollup.retention import cleanup_old_data
from totalizer.rollup.verify import verify
from totalizer.store import retention
from totalizer.store.connect import connect
from totalizer.store.roles import Role

TODAY = date(2026, 6, 15)
POINTS = [point for point in Failpoint if point.value.split(".")[0] in ("retention", "late")]
#: Hits of one place that are tried, at most.
HITS_MAX = 3


class Scene:
    """Two organisations, of which one keeps less; events of all ages, some of them late."""

    def __init__(self, feed: Any, command: Any) -> None:
        self.feed, self.command = feed, command
        self.usual, self.short = feed.organization("usual"), feed.organization("short")
        retention.set_retention(feed.administrator, "command_executions", "short", complete(10))
        self.count = 0
        self.send(300, 200, 150, 100, 50, 20, 1)
        feed.load()
        feed.refresh()
        cleanup_old_data(feed.reader, today=TODAY - timedelta(days=60))
        self.send(160, 155, 80)
        feed.load()
        apply_late(feed.reader)
        feed.refresh()
        feed.administrator.execute("UPDATE totalizer.late_events SET applied_at = now() - interval '200 days'")
        self.send(151, 158, 81)

    def send(self, *ages: int) -> None:
        noon = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
        for organization in (self.usual, self.short):
            events = [
                self.command(id=f"{self.count} {age}", executed_at=(noon - timedelta(days=age)).isoformat())
                for age in ages
            ]
            self.feed.send(organization, command_executions=events)
            self.count += len(ages)

    def work(self) -> None:
        """Load, clean up and add what is late: what the child does, and the parent after it."""
        loader = Loader(self.feed.database.dsn(Role.WRITER), self.feed.spool, rows_max=20_000)
        loader.drain()
        loader.close()
        with connect(self.feed.database.dsn(Role.REFRESHER), autocommit=True) as connection:
            connection.execute("UPDATE totalizer.late_events SET state = 'late' WHERE state = 'held'")
            apply_late(connection)
            self.feed.refresh()
            cleanup_old_data(connection, today=TODAY)

    def child(self) -> None:
        """The same on connections of its own."""
        self.feed.reader = connect(self.feed.database.dsn(Role.REFRESHER), autocommit=True)
        self.work()

    def check(self) -> None:
        for grain in ("1d", "1w", "1mo"):
            assert self.feed.one(f"SELECT sum(executions)::int FROM analytics.command_usage_{grain}") == self.count
        assert [balance for balance in verify(self.feed.reader) if not balance.exact] == []


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.value)
def test_killed_at_each_place(point: Failpoint, feed: Any, command: Any, tmp_path: Path) -> None:
    scene = Scene(feed, command)
    kills = 0
    for nth in range(1, HITS_MAX + 1):
        done = Forked(scene.child, failpoints=f"{point.value}=kill:{nth}", log=tmp_path / "log")
        assert done.killed or done.code == 0, done.log.read_text()
        kills += done.killed
        if not done.killed:
            break
    assert kills > 0, f"{point.value} was never met"
    scene.work()
    scene.check()
    scene.work()
    scene.check()
