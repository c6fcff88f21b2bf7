"""The page at `/ops`, written from what was gathered: its frame, and what is wrong."""

from __future__ import annotations

from totalizer.health.check import CheckResult
from totalizer.web.operator.door import MAKE_KEY, PATH
from totalizer.web.operator.facts import Shown
from totalizer.web.operator.markup import Child, Markup, document, h
from totalizer.web.operator.sections import Desk, alerts, changes, health, jobs, lag, quarantine, runs
from totalizer.web.operator.words import badge, prose

_TITLE = "Totalizer · operations"
_SECTIONS = (("lag", "Lag"), ("alerts", "Alerts"), ("health", "Health"), ("quarantine", "Quarantine"), ("jobs", "Jobs"))


def page(shown: Shown, desk: Desk, title: str, said: str | None) -> bytes:
    """The whole page.

    Args:
        shown: what there is.
        desk: what may be done, and the token of its forms.
        title: who is signed in.
        said: what became of the last thing that was done; None if nothing was.
    """
    out = h(
        "form", _token(desk.token), h("span", title, class_="who"), h("button", "Sign out", class_="plain"),
        method="post", action=f"{PATH}/sign-out",
    )  # fmt: skip
    sections = [*_SECTIONS, ("changes", "Changes")] if "audit_read" in desk.actions else _SECTIONS
    links = [h("a", name, href=f"#{anchor}") for anchor, name in sections]
    return _page(
        [
            h("header", h("h1", "Operations ", _state(shown)), h("nav", links, aria_label="Sections"), out),
            h(
                "main", h("p", said, class_="said", role="status") if said else None, _stale(), _troubles(shown),
                lag(shown), alerts(shown, desk), health(shown), quarantine(shown, desk), jobs(shown, desk), runs(shown),
                changes(shown, desk),
            ),
        ]
    )  # fmt: skip


def sign_in_page(token: str, refusal: str | None) -> bytes:
    """The page for those who are not signed in.

    Args:
        token: of the form.
        refusal: why it did not work the last time; None if it was not tried.
    """
    hint = (
        "The roles manager and admin may see this page, and API keys with the scope admin or quarantine. "
        f"{MAKE_KEY}. You stay signed in for an hour. While PostgreSQL is away nobody new can sign in: "
        "`totalizer status` and /health tell then what is wrong."
    )
    form = h(
        "form", _token(token),
        h("p", refusal, class_="refusal", role="alert") if refusal else None,
        h("label", "API key or token", for_="credential"),
        h("input", id="credential", name="credential", type="password", required=True, autofocus=True,
          autocomplete="current-password", spellcheck="false", aria_describedby="hint"),
        h("button", "Sign in"), h("p", prose(hint), id="hint", class_="hint"),
        method="post", action=f"{PATH}/sign-in", class_="sign-in",
    )  # fmt: skip
    return _page([h("main", h("h1", "Operations"), form)])


def refusal_page(status: int, detail: str) -> bytes:
    """The page for what cannot be done."""
    back = h("p", h("a", "Back to operations", href=PATH))
    return _page([h("main", h("h1", f"This was not done ({status})"), h("p", prose(detail), role="alert"), back)])


def _page(body: list[Markup]) -> bytes:
    head = [
        h("title", _TITLE), h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"), h("link", rel="icon", href="data:,"),
        h("link", rel="stylesheet", href=f"{PATH}/ops.css"), h("script", src=f"{PATH}/ops.js", defer=True),
    ]  # fmt: skip
    return document(head, body)


def _token(token: str) -> Markup:
    return h("input", type="hidden", name="token", value=token)


def _state(shown: Shown) -> Markup:
    return h("span", badge(shown.report.status), id="state", data_live=True)


def _stale() -> Markup:
    """Shown by the script when the page is no longer kept up to date."""
    return h("p", id="stale", class_="refusal", role="status", hidden=True)


def _troubles(shown: Shown) -> Markup:
    """What is wrong and what to do, first of all."""
    return h(
        "div", [_trouble(one) for one in shown.report.bad], id="troubles", data_live=True, role="region",
        aria_label="What is wrong", aria_live="polite",
    )  # fmt: skip


def _trouble(one: CheckResult) -> Markup:
    parts: list[Child] = [
        badge(one.status), h("strong", one.name.replace("_", " ").capitalize()), f": {one.message}.",
        h("br"), h("span", "What to do: ", class_="hint"), prose(one.remedy),
    ]  # fmt: skip
    return h("p", parts, class_=f"trouble {one.status}")
