"""The page in a real browser."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support import new_organization, unavailable

USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
#: Keeps the browser from looking anything up by itself.
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("TOTALIZER_TEST_BROWSER")
    if not path:
        unavailable("no Chromium on this machine; script/test installs it where it may")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; any error in its console fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert [error for error in errors if "401" not in error] == []


def commit(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": str(number), "repository": "r", "commit_hash": f"{number:040x}", "author": ("Ada", "Grace")[number % 2],
        "is_merge": False, "files_changed": 1, "lines_added": number, "lines_removed": 0, **fields,
    }  # fmt: skip


def send(stack: Any, commits: list[dict[str, Any]]) -> None:
    answer = urllib3.request(
        "POST",
        stack.url + "/api/metrics/batch",
        body=json.dumps({"commits": commits}),
        headers={"authorization": f"Bearer {stack.key}", "content-type": "application/json"},
    )
    assert answer.status == 202


def test_totals_are_shown_and_move(running_stack: Any, page: Page, tmp_path: Path) -> None:
    stack = new_organization(running_stack)
    send(stack, [commit(number) for number in range(7)])
    stack.drain()
    page.goto(stack.url)
    page.get_by_label("API key").fill("tz_wrong")
    page.get_by_role("button", name="Show totals").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
    page.get_by_label("API key").fill(stack.key)
    page.get_by_role("button", name="Show totals").click()
    page.get_by_label("Rollup").select_option("commit_activity")
    expect(page.get_by_role("status")).to_contain_text("exact, complete")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="Ada")).to_contain_text("4")
    expect(rows.filter(has_text="Grace")).to_contain_text("3")
    expect(page.locator("#chart rect")).to_have_count(1)
    # Live: a number moves without a click.
    send(stack, [commit(100, author="Ada")])
    expect(rows.filter(has_text="Ada")).to_contain_text("5", timeout=15_000)
    page.get_by_label("Measure").select_option("lines_added")
    expect(rows.filter(has_text="Ada")).to_contain_text("112")
    page.screenshot(path=str(tmp_path / "page.png"))
    assert stack.key not in page.content()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_texts_are_never_markup(running_stack: Any, page: Page) -> None:
    stack = new_organization(running_stack)
    nasty = "<img src=x onerror=\"document.title='pwned'\">"
    send(stack, [commit(1, author=nasty)])
    stack.drain()
    page.goto(f"{stack.url}/#key={stack.key}")
    page.get_by_label("Rollup").select_option("commit_activity")
    expect(page.locator("tbody tr")).to_contain_text("<img src=x")
    assert page.title() == "Totalizer"
    assert "key=" not in page.url
