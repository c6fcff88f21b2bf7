"""The sections of the page. What has `data-live` is replaced by the script when it changes; each has a heading."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

from totalizer.health.check import CheckResult
from totalizer.health.trend import sample_of
from totalizer.store.audit_words import what, who
from totalizer.web.operator.door import PATH
from totalizer.web.operator.facts import CHANGES_MAX, HISTORY_MAX, LETTERS_MAX, Shown
from totalizer.web.operator.markup import Child, Markup, h
from totalizer.web.operator.words import badge, duration, moment, number, prose, size

#: How long alerts are silenced for: seconds, and in words.
SILENCES_S = (("3600", "1 hour"), ("14400", "4 hours"), ("86400", "1 day"), ("604800", "7 days"))
_AWAY = "Not known while the database is away."


class Desk(NamedTuple):
    """What may be done by whom the page is for.

    Attributes:
        token: of the forms.
        actions: of permissions.ACTIONS.
    """

    token: str
    actions: frozenset[str]

    def form(self, path: str, *children: Child, class_: str = "row") -> Markup:
        """A form that does something."""
        token = h("input", type="hidden", name="token", value=self.token)
        return h("form", token, children, method="post", action=PATH + path, class_=class_)


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        cells: as many as the table has heads.
        name: its id; the first cell is its heading then.
    """

    cells: list[Child]
    name: str | None

    def markup(self, heads: tuple[str, ...]) -> Markup:
        """The row; each cell knows its head, for where a row is shown as a list."""
        cells = [
            h("th", cell, scope="row", role="rowheader", data_head=head) if self.name and not place else
            h("td", cell, role="cell", data_head=head)
            for place, (cell, head) in enumerate(zip(self.cells, heads, strict=True))
        ]  # fmt: skip
        return h("tr", cells, id=self.name, role="row")


def lag(shown: Shown) -> Markup:
    """What waits: in the journals, before the database, before the rollups."""
    report, sample = shown.report, sample_of(shown.report)
    facts = report.facts.database.facts
    quota = report.result("journal_quota").value
    cards = [
        _card("journal", "Journals hold", size(sample.journal_bytes), f"the fullest is at {number(quota, 'part')}"),
        _card("load", "Oldest event not loaded", duration(sample.load_s), report.result("loader_lag").message),
        _card("rollup", "Oldest bucket not rolled up", duration(sample.rollup_s), report.result("rollup_lag").message),
        _card("loaded", "Loaded in the last hour", number(None if facts is None else facts.accepted_hour),
              "" if facts is None else f"{facts.accepted_minute:,} in the last minute"),
    ]  # fmt: skip
    chart = h(
        "figure", h("figcaption", "Seconds that the oldest waited, over the last hour"),
        h("div", id="chart", data_src=f"{PATH}/lag.json", data_script=f"{PATH}/vega.js"), hidden=True,
    )  # fmt: skip
    return _section("lag", "Lag", h("dl", cards, class_="cards", id="cards", data_live=True), chart)


def alerts(shown: Shown, desk: Desk) -> Markup:
    """Alerts that stand, silences, and what was."""
    stored, may = shown.stored, "alerts_silence" in desk.actions
    standing = [
        _row(badge(one["severity"]), one["rule"], _told(one), moment(one["since"]),
             _silence_form(desk, one["rule"]) if may and stored else None)
        for one in shown.alerts
    ]  # fmt: skip
    heads = ("Severity", "Rule", "What, and what to do", "Since (UTC)", *(("Silence",) if may and stored else ()))
    source = None if stored else "As this machine's monitor knows them: the database is away."
    return _section(
        "alerts", "Alerts", _live("source", h("p", source, class_="hint") if source else None),
        _table("standing", "Alerts that stand", heads, standing, "No alert stands."),
        _silences(shown, desk), _history(shown),
    )  # fmt: skip


def health(shown: Shown) -> Markup:
    """Every check, those that found something first."""
    results = (*shown.report.bad, *(one for one in shown.report.results if not one.bad))
    rows = [
        _row(badge(one.status), one.name, _found(one), number(one.value, one.unit), _levels(one)) for one in results
    ]
    heads = ("Status", "Check", "What it found", "Value", "Warns · critical")
    return _section("health", "Health", _table("checks", "Checks", heads, rows, ""))


def quarantine(shown: Shown, desk: Desk) -> Markup:
    """Events that the database refused: tried again, or dropped."""
    if shown.stored is None:
        return _section("quarantine", "Quarantine", _live("letters", h("p", _AWAY, class_="nothing")))
    may = "quarantine_replay" in desk.actions
    rows = [
        _row(str(one["id"]), one["event_type"], _why(one), moment(one["quarantined_at"]),
             str(one["retries"]), _letter_forms(desk, one["id"]) if may else None, name=f"letter-{one['id']}")
        for one in shown.stored.letters
    ]  # fmt: skip
    heads = ("Number", "Type", "Why it was refused", "Since (UTC)", "Retries", *(("Do",) if may else ()))
    these = "Dead letters of your organisation, newest first. They keep their ids: tried again, they count once. "
    more = f"The newest {LETTERS_MAX}: `totalizer dead-letters list` shows more." if shown.stored.more_letters else ""
    hint = h("p", these, prose(more), class_="hint")
    return _section("quarantine", "Quarantine", hint, _table("letters", "Events in quarantine", heads, rows, "None."))


def jobs(shown: Shown, desk: Desk) -> Markup:
    """The scheduled jobs, and asking for a run."""
    if shown.stored is None:
        return _section("jobs", "Jobs", _live("scheduled", h("p", _AWAY, class_="nothing")))
    may = "jobs_run" in desk.actions
    rows = [_job(desk, one, may=may) for one in shown.stored.jobs]
    heads = ("Job", "Schedule", "Last run", "Took", "Started (UTC)", "Next (UTC)", *(("Do",) if may else ()))
    return _section("jobs", "Jobs", _table("scheduled", "Scheduled jobs", heads, rows, "No scheduler has started yet."))


def runs(shown: Shown) -> Markup | None:
    """The history of the job that was chosen."""
    if shown.chosen is None or shown.stored is None:
        return None
    rows = [
        _row(str(one["id"]), badge(one["state"]), moment(one["scheduled_for"]) if one["scheduled_for"] else "asked for",
             moment(one["started_at"]), duration(one["duration_s"]), number(one["rows"]), one["runner"] or "—")
        for one in shown.stored.runs
    ]  # fmt: skip
    heads = ("Run", "State", "Due (UTC)", "Started (UTC)", "Took", "Rows", "By")
    why = h("p", "What a run said: ", h("code", f"totalizer job history {shown.chosen}"), class_="hint")
    return _section(
        "runs", f"Runs of {shown.chosen}", why, _table("history", "Newest first", heads, rows, "It never ran.")
    )


def changes(shown: Shown, desk: Desk) -> Markup | None:
    """Who changed what last, for who may see it."""
    if "audit_read" not in desk.actions:
        return None
    if shown.stored is None:
        return _section("changes", "Changes", _live("changed", h("p", _AWAY, class_="nothing")))
    rows = [
        _row(moment(one["at"]), who(one["actor"]), one["action"], one["target"], what(one["before"], one["after"]))
        for one in shown.stored.changes
    ]
    heads = ("At (UTC)", "Who", "Action", "Of what", "What changed")
    more = h("p", prose("Of your organisation, and by its keys. `totalizer audit` shows all."), class_="hint")
    return _section("changes", "Changes", more, _table("changed", f"The last {CHANGES_MAX}", heads, rows, "None."))


def _section(anchor: str, title: str, *children: Child) -> Markup:
    return h("section", h("h2", title, id=f"{anchor}-title"), children, id=anchor, aria_labelledby=f"{anchor}-title")


def _table(name: str, caption: str, heads: tuple[str, ...], rows: list[Row], nothing: str) -> Markup:
    """A table, that a phone shows as a list: roles, because a table that is laid out otherwise is none to readers."""
    if not rows:
        return _live(name, h("p", nothing, class_="nothing"))
    named = h("tr", [h("th", text, scope="col", role="columnheader") for text in heads], role="row")
    body = h("tbody", [one.markup(heads) for one in rows], role="rowgroup")
    table = h("table", h("caption", caption), h("thead", named, role="rowgroup"), body, role="table")
    return h("div", table, id=name, data_live=True, class_="scroll", tabindex="0", role="group", aria_label=caption)


def _live(name: str, *children: Child) -> Markup:
    """What the script replaces when it changes. It is there whatever stands in it, so that it can change."""
    return h("div", children, id=name, data_live=True)


def _row(*cells: Child, name: str | None = None) -> Row:
    return Row([cell for cell in cells if cell is not None], name)


def _card(name: str, title: str, figure: str, more: str) -> Markup:
    return h("div", h("dt", title), h("dd", figure, id=f"figure-{name}", class_="figure"), h("dd", more, class_="hint"))


def _told(one: dict[str, Any]) -> list[Child]:
    remedy = one.get("remedy")
    return [one["message"], [h("br"), h("span", prose(remedy), class_="hint")] if remedy else None]


def _why(one: dict[str, Any]) -> list[Child]:
    """PostgreSQL's sentence; its detail, which has the whole row, for who asks."""
    sentence, cut, detail = one["message"].partition(" DETAIL: ")
    more = h("details", h("summary", "Detail"), h("p", detail, class_="hint")) if cut else None
    return [f"{one['code']}: {sentence}", more]


def _found(one: CheckResult) -> list[Child]:
    return [one.message, [h("br"), h("span", prose(one.remedy), class_="hint")] if one.remedy else None]


def _levels(one: CheckResult) -> str:
    if one.warning is None and one.critical is None:
        return "—"
    return f"{number(one.warning, one.unit)} · {number(one.critical, one.unit)}"


def _silence_form(desk: Desk, rule: str) -> Markup:
    options = [h("option", text, value=value) for value, text in SILENCES_S]
    return desk.form(
        "/alerts/silence", h("input", type="hidden", name="rule", value=rule),
        h("select", options, name="for_s", aria_label=f"How long to silence {rule}"),
        h("input", name="reason", maxlength=200, placeholder="Why", aria_label=f"Why {rule} is silenced"),
        h("button", "Silence"),
    )  # fmt: skip


def _silences(shown: Shown, desk: Desk) -> Markup:
    if shown.stored is None or not shown.stored.silences:
        return _live("silences")
    may = "alerts_silence" in desk.actions
    rows = [
        _row(one["rule"], moment(one["until"]), one["reason"] or "—", one["made_by"],
             desk.form(f"/alerts/silences/{one['id']}/end", h("button", "End it")) if may else None)
        for one in shown.stored.silences
    ]  # fmt: skip
    heads = ("Rule", "Until (UTC)", "Why", "By", *(("Do",) if may else ()))
    return _table("silences", "Silences: these alerts stand, but nobody is told", heads, rows, "")


def _history(shown: Shown) -> Markup:
    rows = [
        _row(moment(one["at"]), badge(one["kind"]), one["rule"], one["message"])
        for one in (shown.stored.history if shown.stored else ())
    ]
    table = _table(
        "told",
        f"The last {HISTORY_MAX}",
        ("At (UTC)", "What", "Rule", "Message"),
        rows,
        "Nothing yet." if shown.stored else _AWAY,
    )
    return h("details", h("summary", "What became of alerts"), table)


def _letter_forms(desk: Desk, number: int) -> list[Markup]:
    drop = h(
        "details", h("summary", "Drop…"),
        desk.form(f"/quarantine/{number}/drop", h("button", f"Drop {number} for good", class_="danger")),
    )  # fmt: skip
    return [desk.form(f"/quarantine/{number}/retry", h("button", "Retry", aria_label=f"Retry {number}")), drop]


def _job(desk: Desk, one: dict[str, Any], *, may: bool) -> Row:
    name, last = one["name"], one["last_run"] or {}
    link = h("a", name, href=f"{PATH}?job={quote(name)}#runs", title=one["description"] or None)
    run = desk.form(f"/jobs/{quote(name)}/run", h("button", "Run now", aria_label=f"Run {name} now"))
    schedule = one["schedule"] or "by command only"
    schedule = schedule if one["enabled"] else f"{schedule} (switched off)"
    started = str(last["started_at"])[:19].replace("T", " ") if last.get("started_at") else "—"
    return _row(
        link, schedule, badge(last["state"]) if last else "never ran", duration(last.get("duration_s")), started,
        moment(one["next_run_at"]), (run if one["schedule"] else "—") if may else None, name=f"job-{name}",
    )  # fmt: skip
