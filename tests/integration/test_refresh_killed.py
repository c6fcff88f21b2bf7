"""A refresh killed at any statement leaves no wrong number: what it had taken is marked as before, and done anew."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from totalizer import failpoint
from totalizer.failpoint import VARIABLE, Failpoint
from totalizer.rollup.verify import verify
from totalizer.store.roles import Role

PLACES = [point for point in Failpoint if point.value.startswith("rollup.")]
REFRESH = """
import sys, psycopg
from totalizer import failpoint
from totalizer.rollup.refresh import refresh
failpoint.arm(sys.argv[2])
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    print(refresh(connection).buckets)
"""


def refresh_in_a_child(dsn: str, plan: str) -> int:
    """The exit code of a process that refreshes until a failpoint ends it."""
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run([sys.executable, "-c", REFRESH, dsn, plan], env=clean, capture_output=True).returncode


@pytest.mark.parametrize("point", PLACES, ids=lambda point: point.value)
@pytest.mark.parametrize("nth", [1, 3])
def test_a_refresh_killed_at_each_place(feed: Any, command: Any, point: Failpoint, nth: int) -> None:
    organizations = [feed.organization(f"o{number}", zone) for number, zone in enumerate(("UTC", "Asia/Kathmandu"))]
    for organization in organizations:
        feed.send(organization, command_executions=[
            command(executed_at=f"2025-03-{day:02d}T{hour:02d}:10:00Z") for day in (1, 2, 31) for hour in (0, 1, 23)
        ])  # fmt: skip
    feed.load()
    feed.refresh()
    # Every number is to change: a refresh that ends half way would leave old ones beside new ones.
    feed.administrator.execute("UPDATE events.command_executions SET execution_time_ms = execution_time_ms + 1")
    feed.send(organizations[0], command_executions=[command(executed_at="2025-03-02T01:11:00Z")])
    feed.load()
    marks = feed.one("SELECT count(*) FROM totalizer.dirty_marks")
    code = refresh_in_a_child(feed.database.dsn(Role.REFRESHER), f"{point.value}=kill:{nth}")
    assert code in (0, -9)
    if code == -9 and point is not Failpoint.SHARD_COMMITTED and nth == 1:
        feed.administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'totalizer_refresher' AND datname = current_database() AND pid <> %s",
            [feed.reader.info.backend_pid],
        )
        assert feed.one("SELECT count(*) FROM totalizer.dirty_marks") == marks, "marks were taken and nothing was done"
    assert all(not balance.mismatches for balance in verify(feed.reader))
    while feed.refresh():
        pass
    assert [(balance.exact, balance.dirty_buckets, balance.events) for balance in verify(feed.reader)] == [
        (True, 0, 10), (True, 0, 9),
    ]  # fmt: skip
    for grain in ("15m", "1h", "1d", "1w", "1mo"):
        total = feed.one(f"SELECT sum(execution_time_ms_sum) FROM analytics.command_usage_{grain}")
        assert total == 18 * 101 + 100, grain


def test_a_refresh_that_fails_half_way_leaves_everything_as_it_was(feed: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    failpoint.arm(f"{Failpoint.LEVEL_INSERTED.value}=raise:3")
    try:
        with pytest.raises(OSError, match=r"rollup\.level\.inserted"):
            feed.refresh()
    finally:
        failpoint.arm("")
    assert feed.one("SELECT count(*) FROM analytics.command_usage_15m") == 0
    assert feed.one("SELECT count(*) FROM totalizer.dirty_marks") == 1
    assert feed.refresh() == 1
