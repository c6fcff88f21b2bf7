"""PostgreSQL stops under a running stack: everybody who looks is told, and what to do; and that it is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support import RunningStack, Stack, new_organization, unavailable, wait_until
from totalizer.ops.embedded import EmbeddedPostgres
from totalizer.store.keys import create_key
from webhook import webhook

HTTP = urllib3.PoolManager(retries=False, timeout=30)
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Within which everybody is told. The stack looks every five seconds, as shipped.
TOLD_S = 60.0
COMMAND = {
    "user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "plan", "execution_time_ms": 15,
    "status": "success",
}  # fmt: skip


@pytest.fixture
def browser() -> Iterator[Browser]:
    path = os.environ.get("TOTALIZER_TEST_BROWSER")
    if not path:
        unavailable("no Chromium on this machine; script/test installs it where it may")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


def send(stack: Stack) -> int:
    return HTTP.request(
        "POST", stack.url + "/api/metrics/commands", body=json.dumps(COMMAND).encode(),
        headers={"authorization": f"Bearer {stack.key}", "content-type": "application/json"},
    ).status  # fmt: skip


def command(stack: Stack, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", *arguments, "--home", str(stack.home)],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def signed_in(browser: Browser, stack: Stack) -> Page:
    with stack.running.connect(None) as connection:
        key = create_key(connection, stack.organization_id, "operator", scopes=("admin",))
    page = browser.new_page()
    page.goto(f"{stack.url}/ops")
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#state")).to_have_text("healthy", timeout=TOLD_S * 1000)
    return page


def test_postgresql_stops_everybody_is_told_and_after_the_restart_the_books_are_exact(
    browser: Browser, tmp_path: Path
) -> None:
    secret = "a secret of this test"
    with EmbeddedPostgres(tmp_path / "database", secret) as server, webhook() as hook:
        url = server.dsn("postgres", "totalizer")
        given = {"DATABASE_URL": url, "TOTALIZER_SECRET": secret, "TOTALIZER_ALERT_URLS": hook.url}
        running = RunningStack(tmp_path / "home", outside_database=url, **given)
        try:
            stack = new_organization(running)
            assert send(stack) == 202
            stack.drain()
            page = signed_in(browser, stack)
            server.stop()
            assert send(stack) == 202, "events are taken while the database is away"
            told(page, tmp_path)
            wait_until(lambda: bool(hook.told("[critical]", "what to do: Start PostgreSQL")), "the alert", TOLD_S)
            health = HTTP.request("GET", stack.url + "/health")
            [check] = [one for one in health.json()["checks"] if one["name"] == "database"]
            assert (health.status, check["status"], check["remedy"][:16]) == (503, "critical", "Start PostgreSQL")
            code, text = command(stack, given, "status")
            assert all(word in text for word in ("not ready (503)", "critical database:", "→ Start PostgreSQL")), text
            assert code == 0, "what runs goes on"
            wait_until(lambda: measured(stack)["totalizer_load_failures_total"] > 0, "the outage in /metrics", TOLD_S)
            for process in ("api", "loader", "scheduler"):
                assert measured(stack)[f'totalizer_processes{{component="{process}"}}'] == 1, process
            server.start()
            wait_until(lambda: bool(hook.told("resolved", "database")), "the word that it is over", TOLD_S)
            expect(page.locator("#troubles")).not_to_contain_text("Start PostgreSQL", timeout=TOLD_S * 1000)
            expect(page.locator("#job-verify")).to_be_visible(timeout=TOLD_S * 1000)
            stack.drain()
            code, text = command(stack, given, "verify")
            assert (code, "it balances" in text) == (0, True), text
        finally:
            assert running.stop() == 0


def measured(stack: Stack) -> dict[str, float]:
    """The numbers of `/metrics`, by name and labels."""
    answer = HTTP.request("GET", stack.url + "/metrics")
    assert answer.status == 200, answer.data
    lines = [line for line in answer.data.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def told(page: Page, folder: Path) -> None:
    """The page says it by itself, and when it is loaded anew by somebody who is signed in."""
    for again in (False, True):
        if again:
            page.reload()
        trouble = page.locator("#troubles")
        expect(trouble).to_contain_text("Database: ", timeout=TOLD_S * 1000)
        expect(trouble).to_contain_text("What to do: Start PostgreSQL")
        expect(page.locator("#state")).to_have_text("unhealthy")
        expect(page.locator("#scheduled")).to_have_text("Not known while the database is away.")
    page.screenshot(path=str(folder / "outage.png"), full_page=True)
