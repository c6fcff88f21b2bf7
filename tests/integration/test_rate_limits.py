"""Limits over HTTP: shared by two API processes, apart by kind and organisation, through windows and without Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from serving import second_api
from support import RunningStack, Stack, new_organization, wait_until

HTTP = urllib3.PoolManager(maxsize=8, retries=False, timeout=30)
COMMAND = {
    "user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "plan", "execution_time_ms": 15,
    "status": "success",
}  # fmt: skip
#: A day: no window ends during a test, but at midnight UTC.
LIMITS = {
    "RATE_LIMIT_MAX_REQUESTS": "40", "TOTALIZER_RATE_LIMIT_BATCHES": "60", "TOTALIZER_RATE_LIMIT_READS": "20",
    "RATE_LIMIT_WINDOW_MS": "86400000", "TOTALIZER_KEY_CACHE_MS": "100",
}  # fmt: skip
SINGLE, BATCH, READ = "/api/metrics/commands", "/api/metrics/batch", "/api/metrics/aggregated"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    running = RunningStack(tmp_path_factory.mktemp("limited") / "home", **LIMITS)
    try:
        yield running
    finally:
        assert running.stop() == 0


@pytest.fixture(scope="module")
def other_api(limited: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with second_api(limited, tmp_path_factory.mktemp("second"), **LIMITS) as url:
        yield url


@pytest.fixture
def mine(limited: RunningStack) -> Stack:
    return new_organization(limited)


def send(url: str, path: str, key: str, body: Any = None) -> Any:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    if path == READ:
        return HTTP.request("GET", url + path, headers=headers)
    body = body or (COMMAND if path == SINGLE else {"command_executions": [COMMAND]})
    return HTTP.request("POST", url + path, body=json.dumps(body).encode(), headers=headers)


def statuses(url: str, path: str, key: str, count: int) -> list[int]:
    return [send(url, path, key).status for _ in range(count)]


def taken(url: str, path: str, key: str, count: int) -> int:
    found = statuses(url, path, key, count)
    assert set(found) <= {200, 202, 429}
    return len(found) - found.count(429)


def test_two_processes_share_a_limit(mine: Stack, other_api: str) -> None:
    """Many at once at both: never more than the limit, and no less than what may lie with one of them."""
    with ThreadPoolExecutor(8) as pool:
        counts = [pool.submit(taken, url, SINGLE, mine.key, 20) for url in (mine.url, other_api) * 4]
        total = sum(count.result() for count in counts)
    assert 34 <= total <= 40
    assert total + taken(mine.url, SINGLE, mine.key, 10) + taken(other_api, SINGLE, mine.key, 10) == 40


def test_singles_batches_reads_and_organisations_are_apart(mine: Stack, limited: RunningStack) -> None:
    assert taken(mine.url, SINGLE, mine.key, 45) == 40
    assert taken(mine.url, READ, mine.key, 25) == 20
    assert taken(mine.url, BATCH, mine.key, 65) == 60
    other = new_organization(limited)
    assert [send(mine.url, path, other.key).status for path in (SINGLE, BATCH, READ)] == [202, 202, 200]


def test_answers_tell_of_the_limit(mine: Stack) -> None:
    for path, kind, limit, good in ((SINGLE, "requests", 40, 202), (READ, "reads", 20, 200)):
        answer = send(mine.url, path, mine.key)
        assert answer.status == good
        headers = answer.headers
        assert headers["ratelimit-policy"] == f'"{kind}";q={limit};w=86400'
        assert headers["ratelimit"].startswith(f'"{kind}";r={limit - 1};t=')
        assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == (str(limit), str(limit - 1))
        assert int(headers["x-ratelimit-reset"]) % 86_400 == 0
    bad = send(mine.url, SINGLE, mine.key, {"nothing": 1})
    assert (bad.status, bad.headers["x-ratelimit-limit"]) == (422, "40"), "a refused request counts, and tells"
    assert int(bad.headers["x-ratelimit-remaining"]) in (38, 39), "to within a twentieth"
    bad = HTTP.request("GET", mine.url + READ + "?limit=0", headers={"authorization": f"Bearer {mine.key}"})
    assert (bad.status, bad.headers["x-ratelimit-limit"]) == (422, "20")
    behind = send(mine.url, SINGLE + "/", mine.key, COMMAND)
    assert (behind.status, behind.headers["x-ratelimit-limit"]) == (202, "40"), "the API behind the hot path tells too"
    for unlimited in (HTTP.request("GET", mine.url + "/health"), send(mine.url, SINGLE, "tz_wrong")):
        assert "x-ratelimit-limit" not in unlimited.headers


def test_session_updates_count_as_requests(mine: Stack) -> None:
    headers = {"authorization": f"Bearer {mine.key}", "content-type": "application/json"}
    body = json.dumps({"user_id": COMMAND["user_id"]}).encode()
    found = []
    for _ in range(42):
        path = "/api/metrics/sessions/7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c12"
        answer = HTTP.request("PUT", mine.url + path, body=body, headers=headers)
        assert answer.headers["ratelimit-policy"].startswith('"requests";q=40')
        found.append(answer.status)
    assert found == [202] * 40 + [429] * 2


def test_a_refusal_says_when_to_come_back(mine: Stack) -> None:
    for path, count in ((SINGLE, 40), (READ, 20)):
        taken(mine.url, path, mine.key, count)
        answer = send(mine.url, path, mine.key)
        problem = answer.json()
        assert (answer.status, problem["code"], problem["status"]) == (429, "rate_limited", 429)
        assert answer.headers["content-type"] == "application/problem+json"
        assert 1 <= int(answer.headers["retry-after"]) <= 86_400
        assert answer.headers["x-ratelimit-remaining"] == "0"
        assert [name.lower() for name in answer.headers].count("ratelimit") == 1


def test_what_was_refused_is_not_stored(mine: Stack) -> None:
    assert taken(mine.url, SINGLE, mine.key, 50) == 40
    mine.drain()
    rows = mine.sql("SELECT count(*) FROM events.command_executions WHERE organization_id = %s", mine.organization_id)
    assert rows == [(40,)]


def limits(stack: Stack, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", "limits", *arguments, "--home", str(stack.home)],
        capture_output=True, text=True, check=False, env={**os.environ, **LIMITS, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def name_of(stack: Stack) -> str:
    with stack.running.connect(None) as connection:
        row = connection.execute(
            "SELECT name FROM totalizer.organizations WHERE id = %s", [stack.organization_id]
        ).fetchone()
    assert row is not None
    return str(row[0])


def test_an_organisation_s_own_limits(mine: Stack, limited: RunningStack) -> None:
    other = new_organization(limited)
    assert taken(mine.url, SINGLE, mine.key, 45) == 40
    shown = limits(mine, "set", name_of(mine), "--requests", "50", "--reads", "none", "--bytes", "1000")
    assert all(word in shown for word in ("50 *", "none *", "1000 *", " 60 "))

    def raised() -> bool:
        return bool(send(mine.url, SINGLE, mine.key).status == 202)

    # Until the key's cache has run out.
    wait_until(raised, "the new limit", 10)
    assert taken(mine.url, SINGLE, mine.key, 20) <= 9
    assert taken(mine.url, READ, mine.key, 30) == 30
    large = send(mine.url, BATCH, mine.key, {"command_executions": [COMMAND] * 20})
    assert (large.status, large.json()["code"], "1000" in large.json()["detail"]) == (413, "body_too_large", True)
    assert taken(other.url, READ, other.key, 25) == 20, "nobody else's limits have changed"
    assert limits(mine, "set", name_of(mine), "--reads", "usual").count("*") == 2 + 1  # two of its own, and the legend
    assert name_of(other) in limits(mine, "show")


def test_bytes_are_limited_over_all_processes(mine: Stack, other_api: str) -> None:
    limits(mine, "set", name_of(mine), "--bytes", "1000", "--requests", "none")
    body = {**COMMAND, "command_name": "x" * 100}
    size = len(json.dumps(body))
    found = [send(url, SINGLE, mine.key, body).status for _ in range(5) for url in (mine.url, other_api)]
    assert found.count(202) <= 1000 // size
    assert found.count(202) >= 1000 // size - 1
    assert set(found) == {202, 429}


def test_a_new_window_begins_for_all(mine: Stack, limited: RunningStack, tmp_path: Path) -> None:
    with second_api(limited, tmp_path, **{**LIMITS, "RATE_LIMIT_WINDOW_MS": "2000"}) as url:
        wait_until(lambda: send(url, SINGLE, mine.key).status == 429, "the limit's end")
        wait_until(lambda: send(url, SINGLE, mine.key).status == 202, "the next window")


def test_redis_away_and_back(mine: Stack, limited: RunningStack) -> None:
    """It is killed, and comes back by itself; at no moment is a request lost or let through without count."""
    assert taken(mine.url, SINGLE, mine.key, 20) == 20
    pid = json.loads((limited.home / "run" / "state.json").read_text())["pids"]["valkey"]
    os.kill(pid, signal.SIGKILL)
    assert taken(mine.url, SINGLE, mine.key, 60) == 20, "one process, whose share is the limit"

    def back() -> bool:
        return bool(HTTP.request("GET", mine.url + "/health").json()["redis"] == "ok")

    wait_until(back, "Redis' return")
    assert taken(mine.url, SINGLE, mine.key, 10) == 0
    other = new_organization(limited)
    assert taken(mine.url, SINGLE, other.key, 45) == 40
