"""`totalizer report`: its numbers are the query engine's, its files are whole, and what cannot be is told plainly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

from integration.conftest import USER, Feed
from integration.query.conftest import Asker
from support import SECRET, unavailable
from totalizer.errors import OperationError, Refused
from totalizer.ops.commands.report import report
from totalizer.ops.report.files import FORMS
from totalizer.ops.report.gather import Figures, gather
from totalizer.settings import load_settings

#: A month with a clock change in it.
ZONE, MARCH = "Europe/Berlin", date(2025, 3, 12)
HUGE = "名" * 120 + "<b>&"
NAMES = ["plan", "plan", "plan", "build", HUGE[:100], "<script>alert(1)</script>"]

#: The colours that something is drawn in.
LOOK = "each => [getComputedStyle(each).color, getComputedStyle(each).fill].join()"


class World(NamedTuple):
    """A database with organisations, and a report of one in files."""

    feed: Feed
    home: Path
    environment: dict[str, str]
    acme: str

    def figures(self, organization: str, kind: str, day: date | None = MARCH, zone: str | None = None) -> Figures:
        settings = load_settings(**self.environment)
        return gather(settings, organization, kind, day, zone)


@pytest.fixture(scope="module")
def world(cluster: Any, catalog: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("report")
    with cluster.database() as database:
        feed = Feed(database, home / "journal", catalog)
        acme, other = (feed.organization(name, ZONE) for name in ("acme", "other"))
        for name in ("quiet", "one", "now", HUGE):
            feed.organization(name, "UTC")
        command = {"user_id": USER, "execution_time_ms": 100, "status": "success"}
        # The first is still February in UTC, the last April in Berlin.
        times = ["2025-02-28T23:10:00Z", "2025-03-30T00:30:00Z", "2025-03-30T01:30:00Z", "2025-03-12T10:00:00Z"]
        times += ["2025-03-12T11:00:00Z", "2025-03-31T22:00:00Z"]
        events = [
            command | {"command_name": name, "executed_at": time} for name, time in zip(NAMES, times, strict=True)
        ]
        before = [command | {"command_name": "old", "executed_at": "2025-02-03T10:00:00Z"}] * 2
        feed.send(acme, command_executions=[*events, *before])
        feed.send(other, command_executions=[command | {"command_name": "secret", "executed_at": times[3]}] * 7)
        only = {"merchant_id": "m", "metric_type": "queries", "amount": 9007199254740992, "at": "2025-03-12T00:00:00Z"}
        feed.send(feed.organization("one"), usage_records=[only])
        today = datetime.now(UTC).isoformat()
        feed.send(feed.organization("now"), command_executions=[command | {"command_name": "a", "executed_at": today}])
        feed.send(
            feed.organization(HUGE), command_executions=[command | {"command_name": HUGE, "executed_at": times[3]}]
        )  # fmt: skip
        feed.load()
        feed.refresh()
        environment = {"DATABASE_URL": database.url, "TOTALIZER_SECRET": SECRET, "TOTALIZER_HOME": str(home)}
        yield World(feed, home, environment, acme)
        feed.close()


@pytest.fixture(scope="module")
def written(world: World) -> Path:
    """Where a report of `acme` was written, as people do it."""
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", "report", "--organization", "acme", "--date", str(MARCH),
         "--html", "r.html", "--pdf", "r.pdf", "--png", "r.png"],
        cwd=world.home, env={**os.environ, **world.environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.count("March 2025 of acme, in r.") == 3
    return world.home


def test_the_numbers_are_those_of_queries(world: World, cluster: Any, catalog: Any) -> None:
    figures = world.figures("acme", "month")
    answer = figures.answer
    ask = Asker(world.feed, world.feed.database, catalog)
    range_ = {"start_date": "2025-03-01", "end_date": "2025-03-31", "time_zone": ZONE}
    [total] = ask.post(world.acme, **range_, aggregation_window="total", compare="previous")["data"]
    section = answer["data"]["command_executions"]
    assert list(answer["data"]) == ["command_executions"]
    assert section["totals"] | {"execution_time_ms_quantiles": 0} == {
        name: 0 if name == "execution_time_ms_quantiles" else value for name, value in total.items()
        if name in section["totals"]
    }  # fmt: skip
    assert (section["totals"]["executions"], section["previous"]["executions"]) == (5, 2)
    assert (answer["exact"], answer["complete"], figures.over) == (True, True, True)
    days = {row["window_start"][:10]: row["executions"] for row in section["series"] if row["executions"]}
    assert days == {"2025-03-01": 1, "2025-03-12": 2, "2025-03-30": 2}
    assert len(section["series"]) == 31
    assert sum(row["previous"]["executions"] or 0 for row in section["series"]) == 2
    tops = {each["dimension"]: each["rows"] for each in section["top"]}
    assert list(tops) == ["user_id", "team_id", "command_name", "status"]
    assert [(row["command_name"], row["executions"]) for row in tops["command_name"]] == [
        ("plan", 3), ("build", 1), (HUGE[:100], 1),
    ]  # fmt: skip
    assert answer["query"]["compare"] == {
        "start_date": "2025-02-01T00:00:00+01:00", "end_date": "2025-03-01T00:00:00+01:00",
    }  # fmt: skip


def test_days_weeks_and_zones(world: World) -> None:
    day = world.figures("acme", "day", date(2025, 3, 30)).answer
    series = day["data"]["command_executions"]["series"]
    assert len(series) == 23, "the hour that the clock skips is none"
    assert [row["window_start"][11:16] for row in series if row["executions"]] == ["01:00", "03:00"]
    assert world.figures("acme", "week", date(2025, 3, 31)).answer["query"]["start_date"] == "2025-03-31T00:00:00+02:00"
    utc = world.figures("acme", "month", zone="UTC").answer["data"]["command_executions"]["totals"]["executions"]
    assert utc == 5, "one comes from April in Berlin, one goes to February"


def test_what_is_behind_is_counted_and_what_waits_is_told(world: World, catalog: Any) -> None:
    organization = world.feed.organization("busy")
    event = {"user_id": USER, "command_name": "a", "execution_time_ms": 1, "status": "error"}
    world.feed.send(organization, command_executions=[event | {"executed_at": "2025-03-05T10:00:00Z"}])
    world.feed.load()
    world.feed.send(organization, command_executions=[event | {"executed_at": "2025-03-06T10:00:00Z"}])
    answer = world.figures("busy", "month").answer
    assert (answer["data"]["command_executions"]["totals"]["executions"], answer["exact"]) == (1, True)
    assert "events" in answer["source"]
    assert not answer["complete"]
    assert b"make the report again" in FORMS["html"](world.figures("busy", "month"))
    world.feed.load()
    world.feed.refresh()
    assert world.figures("busy", "month").answer["complete"]


def test_nothing_one_and_a_month_that_goes_on(world: World) -> None:
    for organization, kind in (("quiet", "month"), ("acme", "day")):
        figures = world.figures(organization, kind, date(2024, 2, 29))
        assert b"There are no events in this period." in FORMS["html"](figures)
        assert FORMS["pdf"](figures).count(b"/Type /Page\n") == 1
        assert FORMS["png"](figures).startswith(b"\x89PNG")
    assert b"No events in this period: Command executions." in FORMS["html"](
        world.figures("acme", "day", date(2024, 2, 29))
    )
    one = FORMS["html"](world.figures("one", "day")).decode()
    assert "9,007,199,254,740,992" in one
    assert "new, before: 0" in one
    now = world.figures("now", "month", datetime.now(UTC).date())
    assert (now.over, now.answer["data"]["command_executions"]["totals"]["executions"]) == (False, 1)
    assert b"The period is not over" in FORMS["html"](now)
    assert world.figures("quiet", "week", date(1900, 1, 1)).period.before.first == date(1899, 12, 25)
    last = world.figures("now", "day", None)
    assert (last.over, last.period.first) == (True, datetime.now(UTC).date() - timedelta(days=1))


def test_names_of_any_length_and_letters(world: World) -> None:
    figures = world.figures(HUGE, "month")
    html = FORMS["html"](figures).decode()
    assert "&lt;b&gt;&amp;" in html
    assert "<b>" not in html
    assert FORMS["pdf"](figures).count(b"/Type /Page\n") == 1
    assert FORMS["png"](figures).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"organization": "nobody"}, OperationError, "no organisation 'nobody'"),
        ({"zone": "Mars/Base"}, OperationError, "--zone: unknown time zone 'Mars/Base'"),
        ({"day": "2025-02-30"}, Refused, "--date=2025-02-30: must be a date"),
        ({"day": "2900-01-01"}, OperationError, "--date 2900-01-01: the month that holds it begins on 2900-01-01"),
        ({"html": Path("no/such/folder/r.html")}, OperationError, "--html no/such/folder/r.html: cannot be written"),
        ({"html": Path(".")}, OperationError, "--html .: cannot be written"),
        ({"html": None}, typer.BadParameter, "--html FILE, --pdf FILE, --png FILE"),
    ],
)
def test_what_cannot_be_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.home)
    there = set(world.home.iterdir())
    with pytest.raises(error, match=re.escape(told)):
        report(**{"organization": "acme", "html": Path("x.html"), **options})
    assert set(world.home.iterdir()) == there


def test_the_document_is_whole(written: Path) -> None:
    assert (written / "r.png").read_bytes().startswith(b"\x89PNG")
    pages = PdfReader(written / "r.pdf", strict=True).pages
    assert [(page.mediabox.width, page.mediabox.height) for page in pages] == [(595, 842)] * 2
    first, second = (page.extract_text() for page in pages)
    assert all(words in first for words in ("acme", "Command executions", "1 of 2"))
    assert "2 of 2" in second


def test_a_page_that_needs_nothing_else(written: Path) -> None:
    path = os.environ.get("TOTALIZER_TEST_BROWSER")
    if not path:
        unavailable("no Chromium on this machine; script/test installs it where it may")
    html = (written / "r.html").read_text("utf-8")
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|@import|url\(", html)
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        looks = {}
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 380, "height": 800})  # type: ignore[arg-type]
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto((written / "r.html").as_uri())
            assert [url for url in asked if not url.startswith("data:")] == [(written / "r.html").as_uri()]
            looks[scheme] = [
                page.locator(each).first.evaluate(LOOK) for each in ("body", 'svg path[fill="var(--bar)"]')
            ]
            assert page.evaluate("document.documentElement.scrollWidth") <= 380, "nothing is wider than a telephone"
        tree = page.locator("body").aria_snapshot()
        browser.close()
    assert all(light != dark for light, dark in zip(*looks.values(), strict=True)), looks
    for part in (
        'heading "acme" [level=1]',
        'heading "Command executions" [level=2]',
        'table "Command name"',
        'rowheader "plan"',
        "These numbers are exact.",
    ):
        assert part in tree, tree
