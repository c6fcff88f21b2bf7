"""Other people's clients, unmodified, against a whole stack: what they send counts once, though the server is killed
after it has made their events durable and before they hear of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import segment.analytics.client
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from lossy_proxy import lossy_proxy
from support import RunningStack, Stack, kill_tree, new_organization, unavailable, wait_until


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose API may be killed."""
    running = RunningStack(tmp_path_factory.mktemp("clients") / "home")
    try:
        yield new_organization(running)
    finally:
        running.stop()


def kill_api(stack: Stack) -> None:
    """SIGKILL the API and its workers; returns when another is started in its place."""
    before = api_of(stack)
    assert before is not None
    kill_tree(before)
    wait_until(lambda: api_of(stack) not in (None, before), "a restart of the API")


def api_of(stack: Stack) -> int | None:
    """Its process id."""
    try:
        found: int = json.loads((stack.home / "run" / "state.json").read_text())["pids"]["api"]
    except (FileNotFoundError, KeyError):
        return None
    return found


def killed_at_first_answer(stack: Stack) -> Callable[[], str]:
    """Fate of answers: the server is killed as the first one leaves it, and the client gets none of it."""
    answers: list[str] = []

    def fate() -> str:
        answers.append("lose" if not answers else "pass")
        if len(answers) == 1:
            kill_api(stack)
        return answers[-1]

    return fate


def until_accepted(send: Callable[[], requests.Response]) -> requests.Response:
    """Send until there is an answer that is no outage, as HTTP clients do."""
    answer: list[requests.Response] = []

    def accepted() -> bool:
        try:
            answer.append(send())
        except requests.exceptions.ConnectionError:
            return False
        return answer[-1].status_code < 500

    wait_until(accepted, "an answer")
    return answer[-1]


@pytest.mark.parametrize("mode", [to_structured_event, to_binary_event])
def test_cloudevents_client(own_stack: Stack, mode: Callable[..., Any]) -> None:
    stack = new_organization(own_stack.running)
    events = [
        CloudEvent({"type": "com.example.order.paid", "source": "/shop", "subject": f"Müller {n}", "tenant": "t1"},
                   {"amount": n, "note": "Zürich ✓"})
        for n in range(3)
    ]  # fmt: skip
    with lossy_proxy(stack.url, answer=killed_at_first_answer(own_stack)) as proxy:
        for event in events:
            message = mode(event, JSONFormat())
            answer = until_accepted(
                lambda message=message: requests.post(  # type: ignore[misc]
                    proxy.url + "/api/v1/events", data=message.body, timeout=30,
                    headers={**message.headers, "authorization": f"Bearer {stack.key}"},
                )
            )  # fmt: skip
            assert (answer.status_code, answer.content) == (204, b"")
    stack.drain()
    rows = stack.sql(
        "SELECT type, subject, source, data, extensions FROM events.events WHERE organization_id = %s ORDER BY 2",
        stack.organization_id,
    )
    assert rows == [
        ("com.example.order.paid", f"Müller {n}", "/shop", {"amount": n, "note": "Zürich ✓"}, {"tenant": "t1"})
        for n in range(3)
    ]


def test_analytics_client(own_stack: Stack) -> None:
    stack = new_organization(own_stack.running)
    with lossy_proxy(stack.url, answer=killed_at_first_answer(own_stack)) as proxy:
        failed: list[Any] = []
        client = segment.analytics.client.Client(
            stack.key, host=proxy.url, gzip=True, on_error=lambda error, batch: failed.append(error), upload_size=20,
            max_retries=30, max_total_backoff_duration=60,
        )  # fmt: skip
        client.identify("user-1", {"plan": "pro"})
        for n in range(50):
            client.track("user-1", "Order Paid", {"amount": n})
        client.page("user-1", "Docs", "Home")
        client.group("user-1", "acme", {"seats": 3})
        client.alias("anonymous-1", "user-1")
        client.shutdown()
        assert failed == []
    stack.drain()
    rows = stack.sql(
        "SELECT type, count(*)::int, count(DISTINCT properties->>'amount')::int FROM events.tracks"
        " WHERE organization_id = %s GROUP BY 1 ORDER BY 1", stack.organization_id,
    )  # fmt: skip
    assert rows == [("alias", 1, 0), ("group", 1, 0), ("identify", 1, 0), ("page", 1, 0), ("track", 50, 50)]
    [(total,)] = stack.sql(
        "SELECT sum(events)::int FROM analytics.tracked_1d WHERE organization_id = %s AND event = 'Order Paid'",
        stack.organization_id,
    )
    assert total == 50


def test_a_wrong_write_key_is_told_to_the_client(own_stack: Stack) -> None:
    failed: list[Any] = []
    client = segment.analytics.client.Client(
        "tz_nobody", host=own_stack.url, on_error=lambda error, batch: failed.append(error), max_retries=1
    )
    client.track("user-1", "Order Paid")
    client.shutdown()
    assert [error.status for error in failed] == [401]


def test_a_stream_goes_on_where_it_was_broken_off(own_stack: Stack, tmp_path: Path) -> None:
    """Sent again as a whole after the server was killed in it, each line counts once."""
    stack = new_organization(own_stack.running)
    lines = [json.dumps({"id": str(n), "userId": "u", "action": "a"}).encode() + b"\n" for n in range(20_000)]
    killed: list[bool] = []

    def body() -> Iterator[bytes]:
        for start in range(0, len(lines), 500):
            if start == 10_000 and not killed:
                killed.append(True)
                kill_api(own_stack)
            yield b"".join(lines[start : start + 500])

    answer = until_accepted(
        lambda: requests.post(
            stack.url + "/api/metrics/stream/time_entries", data=body(), timeout=60,
            headers={"authorization": f"Bearer {stack.key}", "content-type": "application/x-ndjson"},
        )
    )  # fmt: skip
    assert killed
    told = answer.json()
    blocks = told.pop("receipts")
    assert told == {"accepted": 20_000, "rejected": 0, "lines": 20_000, "items": []}
    stack.drain()
    fates = [
        requests.get(
            f"{stack.url}/api/metrics/receipts/{block['receipt']}", headers={"authorization": f"Bearer {stack.key}"},
            timeout=30,
        ).json()
        for block in blocks
    ]  # fmt: skip
    assert {fate["status"] for fate in fates} == {"done"}
    assert sum(fate["loaded"] + fate["duplicate"] for fate in fates) == 20_000
    assert sum(fate["duplicate"] for fate in fates) <= 10_000, "what was taken before it was killed"
    [(stored, ids)] = stack.sql(
        "SELECT count(*)::int, count(DISTINCT external_id)::int FROM events.time_entries WHERE organization_id = %s",
        stack.organization_id,
    )
    assert (stored, ids) == (20_000, 20_000)


def test_the_guide_to_cloudevents(own_stack: Stack, tmp_path: Path) -> None:
    """What docs/howto/send-cloudevents.md shows is run as it stands there."""
    stack = new_organization(own_stack.running)
    guide = (Path(__file__).parents[2] / "docs/howto/send-cloudevents.md").read_text("utf-8")
    blocks = re.findall(r"(?ms)^```(sh|python)\n(.*?)^```$", guide)
    assert [kind for kind, _ in blocks] == ["sh"] * 5 + ["python"]
    if shutil.which("curl") is None:
        unavailable("curl")
    answers = []
    for kind, text in blocks:
        if "aggregated" in text:
            stack.drain()
        command = ["bash", "-ec", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, env={**os.environ, "URL": stack.url, "KEY": stack.key}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        answers.append(done.stdout)
    assert '"events":3' in answers[4]
    assert answers[1:4] == ["", "", ""]
