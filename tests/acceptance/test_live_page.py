"""Live windows in a real browser: its own WebSocket and EventSource."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from playwright.sync_api import Browser, Page, sync_playwright

from support import Stack, unavailable

QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SUBSCRIBE = {"type": "subscribe", "id": "a", "window": "5m", "group_by": ["command_name"], "measures": ["executions"]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("TOTALIZER_TEST_BROWSER")
    if not path:
        unavailable("no Chromium on this machine; script/test installs it where it may")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


def send(stack: Stack) -> None:
    event = {"user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "plan", "execution_time_ms": 1,
             "status": "success"}  # fmt: skip
    answer = urllib3.request(
        "POST", stack.url + "/api/metrics/commands", body=json.dumps(event),
        headers={"authorization": f"Bearer {stack.key}", "content-type": "application/json"},
    )  # fmt: skip
    assert answer.status == 202, answer.data


def opened(browser: Browser, stack: Stack, **options: Any) -> Page:
    """A page of the service's own origin."""
    page = browser.new_context(**options).new_page()
    page.goto(stack.url + "/health/live")
    page.evaluate("() => { window.seen = [] }")
    return page


def wait_for(page: Page, kind: str, executions: int) -> None:
    page.wait_for_function(
        "([kind, n]) => seen.some(m => m.type === kind && m.data.some(row => row.executions === n))",
        arg=[kind, executions], timeout=30_000,
    )  # fmt: skip


def test_a_browsers_websocket_says_who_it_is_in_its_first_message(browser: Browser, stack: Stack) -> None:
    send(stack)
    page = opened(browser, stack)
    page.evaluate(
        """([key, subscribe]) => {
            const socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/metrics/live')
            socket.onopen = () => {
                socket.send(JSON.stringify({type: 'auth', token: key}))
                socket.send(JSON.stringify(subscribe))
            }
            socket.onmessage = event => seen.push(JSON.parse(event.data))
            window.socket = socket
        }""",
        [stack.key, SUBSCRIBE],
    )
    wait_for(page, "snapshot", 1)
    send(stack)
    wait_for(page, "delta", 2)
    page.evaluate("() => new Promise(done => { socket.onclose = done; socket.close() })")
    page.context.close()


def test_a_browsers_event_source_is_told_and_comes_back_by_itself(browser: Browser, stack: Stack) -> None:
    """The context adds the header, as a proxy would."""
    send(stack)
    page = opened(browser, stack, extra_http_headers={"authorization": f"Bearer {stack.key}"})
    page.evaluate(
        """() => {
            const question = 'window=5m&group_by=command_name&measures=executions'
            const events = new EventSource('/api/metrics/live/events?' + question)
            for (const kind of ['snapshot', 'delta'])
                events.addEventListener(kind, event => seen.push(JSON.parse(event.data)))
            window.events = events
        }"""
    )
    wait_for(page, "snapshot", 1)
    send(stack)
    wait_for(page, "delta", 2)
    page.evaluate("() => events.close()")
    page.context.close()
