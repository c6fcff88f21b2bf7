"""Requests sent again with their key while the processes that took them are killed: nothing is stored twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3

from acceptance.test_faults import pids
from support import RunningStack, Stack, kill_tree, new_organization, wait_until

USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
EVENT = {"user_id": USER, "command_name": "plan", "execution_time_ms": 5, "status": "success"}
SENDERS, REQUESTS, EVENTS = 8, 30, 3


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    running = RunningStack(tmp_path / "home", TOTALIZER_WORKERS="2")
    try:
        yield new_organization(running)
    finally:
        assert running.stop() == 0


def body(number: int) -> bytes:
    """Events without ids and times: nothing but the request's key tells a repeat from a second request."""
    events = [{**EVENT, "context": {"request": number, "event": place}} for place in range(EVENTS)]
    return json.dumps({"command_executions": events}).encode()


class Senders:
    """Send the same requests, all at the same time, until each has had an answer."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.answers: dict[int, set[str]] = {number: set() for number in range(REQUESTS)}
        self._lock = threading.Lock()

    def send(self, number: int) -> None:
        http = urllib3.PoolManager(retries=False, timeout=30)
        headers = {
            "authorization": f"Bearer {self._stack.key}", "content-type": "application/json",
            "idempotency-key": f"request {number}",
        }  # fmt: skip

        def taken() -> bool:
            try:
                answer = http.request(
                    "POST", f"{self._stack.url}/api/metrics/batch", body=body(number), headers=headers
                )
            except urllib3.exceptions.HTTPError:
                return False
            assert answer.status in (202, 409, 503), answer.data
            if answer.status == 202:
                with self._lock:
                    self.answers[number].add(json.loads(answer.data)["receipt"])
            return answer.status == 202

        wait_until(taken, f"an answer to request {number}")

    def run(self) -> None:
        with ThreadPoolExecutor(SENDERS) as pool:
            for done in [pool.submit(self.send, number) for number in range(REQUESTS) for _ in range(3)]:
                done.result()


def stored(stack: Stack) -> list[tuple[Any, ...]]:
    return stack.sql(
        "SELECT (context->>'request')::int, count(*)::int, count(DISTINCT context)::int FROM events.command_executions "
        "WHERE organization_id = %s GROUP BY 1 ORDER BY 1",
        stack.organization_id,
    )


def test_two_processes_share_the_answers(stack: Stack) -> None:
    senders = Senders(stack)
    senders.run()
    stack.drain()
    assert stored(stack) == [(number, EVENTS, EVENTS) for number in range(REQUESTS)]
    assert {len(receipts) for receipts in senders.answers.values()} == {1}, "each repeat had the first one's answer"
    [ledger] = stack.sql(
        "SELECT sum(loaded)::int, sum(duplicate)::int FROM totalizer.ledger WHERE organization_id = %s",
        stack.organization_id,
    )
    assert ledger == (REQUESTS * EVENTS, 0)


def test_killed_processes_and_a_redis_that_has_forgotten_everything_store_nothing_twice(stack: Stack) -> None:
    done = threading.Event()

    def harass() -> None:
        for _ in range(3):
            victim = pids(stack)["api"]
            kill_tree(victim)
            redis_url = json.loads((stack.home / "run" / "state.json").read_text())["redis_url"]
            redis.Redis.from_url(redis_url).flushall()
            wait_until(lambda victim=victim: pids(stack).get("api") not in (None, victim), "a restart")  # type: ignore[misc]
        done.set()

    Senders(stack).run()
    thread = threading.Thread(target=harass)
    thread.start()
    while not done.is_set():
        Senders(stack).run()
    thread.join()
    Senders(stack).run()
    stack.drain()
    assert stored(stack) == [(number, EVENTS, EVENTS) for number in range(REQUESTS)]
    [(duplicate,)] = stack.sql(
        "SELECT sum(duplicate)::int FROM totalizer.ledger WHERE organization_id = %s", stack.organization_id
    )
    assert duplicate >= REQUESTS * EVENTS, "the requests were forgotten and taken again"
