"""Asking: answers from rollups beside the same from events, with marks and without, each route found anew and kept."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, timedelta
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlencode

from psycopg import Connection

from benchmarks.progress import note
from benchmarks.query_data import EVENT_TYPE, FIRST_DAYS_AGO, fill, mark, organizations, settle
from benchmarks.result import Result, less_is_better
from benchmarks.stack import Stack, fresh_stack
from totalizer.app import administrator_connection, dsn_of
from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.errors import OperationError
from totalizer.store.connect import connect
from totalizer.store.keys import create_key
from totalizer.store.roles import Role

BENCH = "query"
#: Organisations that ask.
ASKING = 20
DIRTY_BUCKETS = 300
#: Milliseconds that 95 of 100 answers shall take: from rollups; with dirty buckets; by a documented route; kept.
ROLLUP_MS, DIRTY_MS, ROUTE_MS, KEPT_MS = 10.0, 50.0, 50.0, 5.0


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        events: stored.
        organizations: that they are of.
        requests: of each case.
    """

    events: int
    organizations: int
    requests: int


FULL = Size(events=10_000_000, organizations=1000, requests=300)
QUICK = Size(events=200_000, organizations=100, requests=60)

_SUMS = "executions,execution_time_ms_sum,execution_time_ms_min,execution_time_ms_max,execution_time_ms_avg"
#: Case → path, parameters, body.
ROUTES: dict[str, tuple[str, dict[str, str], dict[str, Any] | None]] = {
    "aggregated by day": ("/api/metrics/aggregated", {"aggregation_window": "1d", "measures": _SUMS}, None),
    "aggregated by day, unique and quantiles": (
        "/api/metrics/aggregated", {"aggregation_window": "1d", "measures": "users,execution_time_ms_quantiles"}, None,
    ),
    "aggregated by hour and command": (
        "/api/metrics/aggregated", {"aggregation_window": "1h", "group_by": "command_name", "measures": _SUMS}, None,
    ),
    "commands": ("/api/metrics/commands", {"status": "success"}, None),
    "agents": ("/api/metrics/agents", {}, None),
    "dashboard of a day": ("/api/metrics/dashboard", {"time_range": "1d"}, None),
    "dashboard of 30 days": ("/api/metrics/dashboard", {"time_range": "30d"}, None),
    "query": (
        "/api/metrics/query", {},
        {"aggregation_window": "1w", "group_by": ["command_name"], "metrics": ["executions", "error_rate"],
         "order": ["-executions"], "compare": "previous"},
    ),
}  # fmt: skip


class Client:
    """One connection that asks as several organisations.

    Args:
        stack: that is asked.
        keys: of the organisations.
    """

    def __init__(self, stack: Stack, keys: list[str]) -> None:
        self._connection, self._keys = HTTPConnection("127.0.0.1", stack.port, timeout=120), keys
        self._asked = 0
        now = utc_datetime(SYSTEM_CLOCK.now_ns()).astimezone(UTC).date()
        self._range = {
            "start_date": (now - timedelta(days=FIRST_DAYS_AGO)).isoformat(),
            "end_date": (now - timedelta(days=1)).isoformat(),
        }

    def times(self, case: str, count: int, *, kept: bool) -> tuple[list[float], dict[str, Any]]:
        """Milliseconds of so many answers, and the last of them.

        Args:
            case: of ROUTES.
            count: how many.
            kept: True to ask what was answered before; else no two questions are the same.
        """
        times, content = [], b""
        for number in range(-ASKING if kept else 0, count):
            self._asked += 1
            limit = 900 if kept else 1000 + self._asked % 9000
            started = SYSTEM_CLOCK.monotonic()
            content = self._ask(case, self._keys[number % len(self._keys)], limit)
            if number >= 0:
                times.append(1000 * (SYSTEM_CLOCK.monotonic() - started))
        answer: dict[str, Any] = json.loads(content)
        return times, answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, case: str, key: str, limit: int) -> bytes:
        path, parameters, body = ROUTES[case]
        # The dashboard has no limit: time zones make its questions differ.
        dashboard = path.endswith("dashboard")
        more: dict[str, Any] = {} if dashboard else {**self._range, "limit": limit}
        if path.endswith(("commands", "agents")):
            # Pages of the usual size, of ranges that differ by a millisecond.
            more |= {"limit": 100, "start_date": f"{self._range['start_date']}T00:00:00.{limit % 1000:03d}Z"}
        if dashboard:
            more = {"time_zone": _ZONES[(limit // ASKING) % len(_ZONES)]}
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if body is None:
            self._connection.request("GET", f"{path}?{urlencode({**parameters, **more})}", headers=headers)
        else:
            self._connection.request("POST", path, json.dumps({**body, **more}), headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise OperationError(f"{path} was answered {response.status}: {content.decode()[:500]}")
        return content


_ZONES = [f"Etc/GMT{sign}{hour}" for sign in "+-" for hour in range(1, 12)]


def run(quick: bool) -> Iterator[Result]:
    """Measure.

    Args:
        quick: True for a small database.
    """
    size = QUICK if quick else FULL
    with fresh_stack() as stack, administrator_connection(stack.settings()) as admin:
        started = SYSTEM_CLOCK.monotonic()
        names = organizations(admin, size.organizations)
        fill(admin, size.events)
        settle(admin)
        note(f"{size.events} events stored and rolled up in {SYSTEM_CLOCK.monotonic() - started:.0f} s")
        asking = random.Random(1).sample(names, ASKING)
        keys = [create_key(admin, organization_id, "bench", ("query",)) for organization_id in asking]
        with closing(Client(stack, keys)) as client:
            yield from _beside_events(stack, client, asking, size)
            yield from _routes(client, size)
            with _held_back(admin):
                mark(admin, asking, DIRTY_BUCKETS)
                yield from _dirty(stack, client, asking, size)


def _beside_events(stack: Stack, client: Client, asking: list[str], size: Size) -> Iterator[Result]:
    times, answer = client.times("aggregated by day", size.requests, kept=False)
    note(f"30 days by day from {answer['source']}")
    raw = _raw_times(stack, asking, size.requests // 4)
    yield from _percentiles("30 days by day, from rollups", times, "the same from events, SQL alone", raw)
    yield less_is_better(
        BENCH, "30 days by day, from rollups, p95", "ms", [_at(times, 95)], f"goal of {ROLLUP_MS:.0f} ms", [ROLLUP_MS]
    )


def _dirty(stack: Stack, client: Client, asking: list[str], size: Size) -> Iterator[Result]:
    times, answer = client.times("aggregated by day", size.requests, kept=False)
    if not answer["exact"] or answer["dirty_buckets"] < DIRTY_BUCKETS // 2:
        raise OperationError(f"not what was to be measured: {answer['dirty_buckets']} dirty buckets")
    note(f"{answer['dirty_buckets']} dirty buckets, read from {answer['source']}")
    case = f"30 days by day, {answer['dirty_buckets']} dirty buckets, exact"
    yield from _percentiles(case, times, "from events, SQL alone", _raw_times(stack, asking, size.requests // 4))
    yield less_is_better(BENCH, f"{case}, p95", "ms", [_at(times, 95)], f"goal of {DIRTY_MS:.0f} ms", [DIRTY_MS])


def _routes(client: Client, size: Size) -> Iterator[Result]:
    for case in ROUTES:
        for kept, goal in ((False, ROUTE_MS), (True, KEPT_MS)):
            times, _ = client.times(case, size.requests, kept=kept)
            name = f"{case}, {'kept' if kept else 'found anew'}"
            note(f"{name}: p50 {_at(times, 50):.1f} ms, p95 {_at(times, 95):.1f} ms, p99 {_at(times, 99):.1f} ms")
            yield less_is_better(BENCH, f"{name}, p95", "ms", [_at(times, 95)], f"goal of {goal:.0f} ms", [goal])


def _percentiles(case: str, times: list[float], baseline: str, others: list[float]) -> Iterator[Result]:
    for percent in (50, 95):
        yield less_is_better(
            BENCH, f"{case}, p{percent}", "ms", [_at(times, percent)], f"{baseline}, p{percent}", [_at(others, percent)]
        )


def _at(times: list[float], percent: int) -> float:
    return sorted(times)[min(len(times) * percent // 100, len(times) - 1)]


def _raw_times(stack: Stack, asking: list[str], count: int) -> list[float]:
    """Milliseconds of the same question to the events, under row security."""
    times = []
    with closing(connect(dsn_of(stack.settings(), Role.APP), autocommit=True)) as connection:
        for number in range(count):
            organization_id = asking[number % len(asking)]
            connection.execute("SELECT set_config('app.current_org_id', %s, false)", [organization_id])
            started = SYSTEM_CLOCK.monotonic()
            connection.execute(
                "SELECT date_trunc('day', executed_at, 'UTC'), count(*), sum(execution_time_ms), "
                f"min(execution_time_ms), max(execution_time_ms), avg(execution_time_ms) FROM events.{EVENT_TYPE} "
                "WHERE organization_id = %s::uuid AND executed_at >= now() - interval '30 days' GROUP BY 1 ORDER BY 1",
                [organization_id],
            ).fetchall()
            times.append(1000 * (SYSTEM_CLOCK.monotonic() - started))
    return times


@contextmanager
def _held_back(admin: Connection[Any]) -> Iterator[None]:
    """Keep every refresh from taking marks, as a backlog would: it passes over shards that are locked."""
    held = [EVENT_TYPE, list(range(16))]
    admin.execute("SELECT pg_advisory_lock(hashtext('rollup ' || %s), shard) FROM unnest(%s::int[]) AS shard", held)
    try:
        yield
    finally:
        admin.execute("SELECT pg_advisory_unlock_all()")
