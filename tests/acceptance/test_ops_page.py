"""The operator's page in a real browser, on a running stack."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import urllib3
from playwright.sync_api import Browser, Page, expect, sync_playwright

from integration.test_quarantine import Strict, command, slow
from support import RunningStack, Stack, new_organization, unavailable, wait_until
from tokens import SECRET
from totalizer.store.keys import create_key

HTTP = urllib3.PoolManager(retries=False, timeout=30)
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 30_000


class Operator:
    """Somebody with a key, and a page of their own; whatever its console says against it fails the test."""

    def __init__(self, browser: Browser, stack: Stack, key: str, **context: Any) -> None:
        self.stack, self.key = stack, key
        self.context = browser.new_context(**context)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None
        )

    def sign_in(self, key: str | None = None) -> None:
        self.page.goto(f"{self.stack.url}/ops")
        self.page.get_by_label("API key or token").fill(key or self.key)
        self.page.get_by_role("button", name="Sign in").click()

    def api(self, path: str) -> Any:
        answer = HTTP.request("GET", self.stack.url + path, headers={"authorization": f"Bearer {self.key}"})
        return answer.json()

    def row(self, table: str, text: str | re.Pattern[str]) -> Any:
        return self.page.locator(f"#{table} tbody tr").filter(has_text=text)

    def close(self) -> None:
        self.context.close()
        assert [one for one in self.errors if "status of 40" not in one] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("TOTALIZER_TEST_BROWSER")
    if not path:
        unavailable("no Chromium on this machine; script/test installs it where it may")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def signing_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack that takes tokens."""
    running = RunningStack(tmp_path_factory.mktemp("operated") / "home", TOTALIZER_JWT_SECRET=SECRET)
    try:
        yield running
    finally:
        assert running.stop() == 0


@pytest.fixture
def shop(signing_stack: RunningStack) -> Stack:
    """An organisation of the test's own."""
    return new_organization(signing_stack)


@pytest.fixture
def operator(browser: Browser, shop: Stack) -> Iterator[Operator]:
    with shop.running.connect(None) as connection:
        key = create_key(connection, shop.organization_id, "operator", scopes=("admin",))
    operator = Operator(browser, shop, key, viewport={"width": 1180, "height": 900})
    yield operator
    operator.close()


@pytest.fixture
def strict(shop: Stack) -> Iterator[Strict]:
    strict = Strict(shop)
    yield strict
    strict.lift()


def token(stack: Stack, role: str) -> str:
    claims = {"organization_id": stack.organization_id, "role": role, "sub": "ada", "exp": 4_000_000_000}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def test_what_is_shown_is_what_the_api_answers(operator: Operator) -> None:
    operator.sign_in("tz_wrong")
    expect(operator.page.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
    operator.sign_in()
    checks = {one["name"]: one for one in operator.api("/health")["checks"]}
    expect(operator.page.locator("#checks tbody tr")).to_have_count(len(checks))
    for name in ("partitions", "jobs_failed", "journal_damage", "ledger"):
        row = operator.row("checks", re.compile(rf"^\w+{name}"))
        expect(row).to_contain_text(checks[name]["status"])
        expect(row).to_contain_text(checks[name]["message"])
    listed = operator.api("/api/jobs")["jobs"]
    assert operator.page.locator("#scheduled tbody th").all_inner_texts() == [job["name"] for job in listed]
    for job in listed:
        if job["schedule"]:
            expect(operator.page.locator(f"#job-{job['name']}")).to_contain_text(job["schedule"])
    assert operator.key not in operator.page.content()


def test_a_number_moves_after_an_event_is_sent_and_the_chart_is_drawn(operator: Operator, tmp_path: Path) -> None:
    operator.sign_in()
    figure = operator.page.locator("#figure-loaded")
    before = int(figure.inner_text().replace(",", ""))
    Strict(operator.stack).send(command(), command(), command())
    expect(figure).to_have_text(f"{before + 3:,}", timeout=PATIENCE_MS)
    expect(operator.page.locator("#chart canvas")).to_be_visible(timeout=120_000)
    shots(operator.page, tmp_path)


def shots(page: Page, folder: Path) -> None:
    """For people to look at; wider than the page is nothing on any of them."""
    for name, scheme, width in (("light", "light", 1180), ("dark", "dark", 1180), ("phone", "light", 390)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.locator("#chart canvas")).to_be_visible(timeout=PATIENCE_MS)
        page.wait_for_timeout(1000)  # it is drawn anew
        page.screenshot(path=str(folder / f"{name}.png"), full_page=width > 640)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for anchor in ("health", "jobs"):
        page.locator(f"#{anchor}").evaluate("section => section.scrollIntoView()")
        page.screenshot(path=str(folder / f"phone-{anchor}.png"))


def test_a_dead_letter_is_retried_and_another_dropped(operator: Operator, strict: Strict, tmp_path: Path) -> None:
    kept, dropped = (item["quarantine_id"] for item in strict.refuse(slow(id="a"), slow(id="b")))
    operator.sign_in()
    letters = operator.api("/api/metrics/quarantine")["data"]
    assert operator.page.locator("#letters tbody tr").count() == len(letters) == 2
    expect(operator.page.locator(f"#letter-{kept}")).to_contain_text(f"23514: {letters[0]['message'][:20]}")
    operator.page.get_by_role("button", name=f"Retry {kept}").click()
    expect(operator.page.get_by_text(f"Event {kept} was refused again")).to_be_visible()
    operator.page.screenshot(path=str(tmp_path / "quarantine.png"), full_page=True)
    strict.lift()
    operator.page.get_by_role("button", name=f"Retry {kept}").click()
    expect(operator.page.get_by_text(f"Event {kept} is stored.")).to_be_visible()
    expect(operator.page.locator(f"#letter-{kept}")).to_have_count(0)
    operator.page.locator(f"#letter-{dropped}").get_by_text("Drop…").click()
    operator.page.get_by_role("button", name=f"Drop {dropped} for good").click()
    expect(operator.page.get_by_text(f"Event {dropped} is dropped for good.")).to_be_visible()
    assert operator.api("/api/metrics/quarantine")["data"] == []


def test_a_job_is_run_and_its_history_shown(operator: Operator) -> None:
    operator.sign_in()
    operator.page.get_by_role("link", name="forget_fates").click()
    runs = operator.page.locator("#history tbody tr")
    expect(operator.page.get_by_role("heading", name="Runs of forget_fates")).to_be_visible()
    before = runs.count()
    operator.page.get_by_role("button", name="Run forget_fates now").click()
    expect(operator.page.get_by_text("A run of forget_fates is asked for")).to_be_visible()
    asked = "/api/jobs/forget_fates/runs"
    wait_until(lambda: any(run["requested_at"] for run in operator.api(asked)["runs"]), "the run is recorded")
    wait_until(lambda: operator.api(asked)["runs"][0]["state"] == "done", "the run")
    operator.page.get_by_role("link", name="forget_fates").click()
    expect(runs).to_have_count(before + 1)
    expect(runs.first).to_contain_text("asked for")
    expect(runs.first).to_contain_text("done")


@pytest.mark.parametrize("role", ["viewer", "developer"])
def test_viewers_and_developers_are_refused(operator: Operator, role: str) -> None:
    operator.sign_in(token(operator.stack, role))
    expect(operator.page.get_by_role("alert")).to_contain_text(f"The role {role} may not")
    expect(operator.page.locator("#cards")).to_have_count(0)
    operator.page.goto(f"{operator.stack.url}/ops")
    expect(operator.page.get_by_label("API key or token")).to_be_visible()


def test_a_manager_sees_everything_and_changes_nothing(operator: Operator, strict: Strict) -> None:
    strict.refuse(slow(id="a"))
    operator.sign_in(token(operator.stack, "manager"))
    expect(operator.page.locator("#letters tbody tr")).to_have_count(1)
    expect(operator.page.get_by_text("ada (manager)")).to_be_visible()
    buttons = operator.page.get_by_role("button").all_inner_texts()
    assert buttons == ["Sign out"]
    operator.page.get_by_role("button", name="Sign out").click()
    expect(operator.page.get_by_label("API key or token")).to_be_visible()
    assert not [cookie for cookie in operator.context.cookies() if cookie["name"] == "totalizer_ops"]


def test_without_a_script_everything_works(browser: Browser, operator: Operator, strict: Strict) -> None:
    [item] = strict.refuse(slow(id="a"))
    strict.lift()
    plain = Operator(browser, operator.stack, operator.key, java_script_enabled=False)
    plain.sign_in()
    expect(plain.page.locator("#figure-load")).to_be_visible()
    plain.page.get_by_role("button", name=f"Retry {item['quarantine_id']}").click()
    expect(plain.page.get_by_text(f"Event {item['quarantine_id']} is stored.")).to_be_visible()
    plain.close()


def test_a_key_that_is_revoked_ends_its_session(operator: Operator) -> None:
    operator.sign_in()
    expect(operator.page.locator("#cards")).to_be_visible()
    with operator.stack.running.connect(None) as connection:
        connection.execute(
            "UPDATE totalizer.api_keys SET revoked_at = now() WHERE organization_id = %s",
            [operator.stack.organization_id],
        )
    expect(operator.page.locator("#stale")).to_contain_text("You are signed out", timeout=PATIENCE_MS)
    operator.page.reload()
    expect(operator.page.get_by_label("API key or token")).to_be_visible()


def test_texts_are_never_markup(operator: Operator, strict: Strict) -> None:
    nasty = "<img src=x onerror=\"document.title='pwned'\">"
    operator.sign_in()
    operator.page.goto(f"{operator.stack.url}/ops?said=dropped&of={nasty}")
    expect(operator.page.locator(".said")).to_contain_text("<img src=x")
    assert operator.page.title() == "Totalizer · operations"
