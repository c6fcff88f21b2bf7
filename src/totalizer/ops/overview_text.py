"""What `totalizer status` shows, as lines of Rich markup."""

from __future__ import annotations

from rich.markup import escape

from totalizer.health.check import CheckResult
from totalizer.health.trend import sample_of
from totalizer.ops.overview import Overview
from totalizer.ops.screen import lines, rows
from totalizer.web.operator.words import duration, size

#: The words of states → their colour.
_COLOURS = {
    "healthy": "bold green", "degraded": "bold yellow", "unhealthy": "bold red", "critical": "bold red",
    "warning": "yellow",
}  # fmt: skip
#: Alerts that are named; all of them are counted.
ALERTS_NAMED_MAX = 5


def overview_lines(overview: Overview) -> str:
    """One screen: what runs, how it is, what is wrong and what to do."""
    report = overview.report
    named = [
        *_running(overview),
        ("Lag", _lag(overview)), ("Alerts", _alerts(overview)), ("Ready", overview.api),
    ]  # fmt: skip
    bad = report.bad
    well = f"{len(report.results) - len(bad)} of {len(report.results)} checks found nothing"
    head = f"[{_COLOURS[report.status]}]{report.status}[/], {well}"
    return "\n".join((lines(named), "", head, *(_trouble(one) for one in bad)))


def _running(overview: Overview) -> list[tuple[str, str]]:
    state = overview.state
    if state is not None:
        return [*rows(state, overview.home), ("Running", f"since {state.started_at} as pid {state.pid}")]
    return [
        ("API", overview.url), ("PostgreSQL", "the one named by DATABASE_URL or DB_HOST"),
        ("Data", str(overview.home)), ("Running", ", ".join(overview.components) or "nothing on this data folder"),
    ]  # fmt: skip


def _lag(overview: Overview) -> str:
    sample = sample_of(overview.report)
    return (
        f"journals hold {size(sample.journal_bytes)}, oldest event not loaded {duration(sample.load_s)}, "
        f"oldest bucket not rolled up {duration(sample.rollup_s)}"
    )


def _alerts(overview: Overview) -> str:
    rules = sorted({str(one["rule"]) for one in overview.alerts})
    if not rules:
        return "none stands"
    more = f" and {len(rules) - ALERTS_NAMED_MAX} more" if len(rules) > ALERTS_NAMED_MAX else ""
    return f"{len(rules)} stand: {', '.join(rules[:ALERTS_NAMED_MAX])}{more}; see `totalizer alerts list`"


def _trouble(one: CheckResult) -> str:
    head = f"[{_COLOURS[one.status]}]{one.status:<8}[/] {one.name}: {escape(one.message)}"
    return f"{head}\n         [bold]→[/] {escape(one.remedy)}"
