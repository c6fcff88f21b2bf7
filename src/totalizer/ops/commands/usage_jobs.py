"""`totalizer job aggregate` and its friends: the aggregation of usage, run once by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import ERR, FAILED, OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.usage.job import UsageAggregationJob
    from totalizer.usage.result import AggregationResult, AggregationStatus, RangeResult

#: Failed counters that are shown; the others are counted.
SHOWN_MAX = 20


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date such as 2025-11-01") from None


DayArgument = Annotated[date, typer.Argument(metavar="DATE", parser=_day, help="Day, UTC, such as 2025-11-01.")]
OptionalDayArgument = Annotated[
    Optional[date],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Argument(metavar="[DATE]", parser=_day, help="Day, UTC; yesterday if left out.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands to a group."""
    for name, command in (
        ("aggregate", aggregate), ("aggregate-date", aggregate_date), ("aggregate-range", aggregate_range),
        ("aggregate-merchant", aggregate_merchant), ("status", status),
    ):  # fmt: skip
        app.command(name)(command)


def aggregate(form: FormatOption = Format.TEXT, home: HomeOption = None) -> None:
    """Aggregate yesterday's usage. Exit code 1 if anything went wrong."""
    _show(_done(home, lambda job: job.run()), form)


def aggregate_date(date: DayArgument, form: FormatOption = Format.TEXT, home: HomeOption = None) -> None:
    """Aggregate the usage of one day."""
    _show(_done(home, lambda job: job.run(date)), form)


def aggregate_range(
    start: Annotated[date, typer.Argument(metavar="START", parser=_day, help="First day, UTC.")],
    end: Annotated[date, typer.Argument(metavar="END", parser=_day, help="Last day, included.")],
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Aggregate the usage of several days, oldest first."""
    if end < start:
        raise typer.BadParameter(f"{end} is before {start}; give the first day first")
    _show_range(_done(home, lambda job: _range(job, start, end)), form)


def aggregate_merchant(
    merchant_id: Annotated[str, typer.Argument(metavar="MERCHANT_ID", help="The merchant, in every organisation.")],
    date: OptionalDayArgument = None,
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Aggregate the usage of one merchant."""
    _show(_done(home, lambda job: job.aggregate_merchant(merchant_id, date)), form)


def status(date: OptionalDayArgument = None, form: FormatOption = Format.TEXT, home: HomeOption = None) -> None:
    """Show whether a day's usage is aggregated. Exit code 1 if it is not, or if its last run went wrong."""
    found: AggregationStatus = _done(home, lambda job: job.get_aggregation_status(date))
    if form is Format.JSON:
        OUT.print_json(json.dumps({**asdict(found), "alerts": list(found.alerts)}, default=str))
    else:
        _show_status(found)
    if not found.aggregated or found.error_count:
        raise typer.Exit(FAILED)


def _done(home: HomeOption, work: Callable[[UsageAggregationJob], Any]) -> Any:
    with _job(home) as job:
        return work(job)


@contextmanager
def _job(home: HomeOption) -> Iterator[UsageAggregationJob]:
    settings = stack_settings(home)
    made = server_part("totalizer.jobs.usage").usage_aggregation_job(settings)
    server_part("totalizer.telemetry").configure_logging("warning" if ERR.is_terminal else settings.log_level, "job")
    with server_part("totalizer.store.connect").in_plain_words(), made as job:
        yield job


def _range(job: UsageAggregationJob, start: date, end: date) -> RangeResult:
    with Progress(console=ERR, transient=True, disable=not ERR.is_terminal) as progress:
        task = progress.add_task("aggregating", total=(end - start).days + 1)

        def tell(done: int, _days: int, result: AggregationResult) -> None:
            progress.update(task, completed=done, description=f"{result.date}")

        return job.aggregate_date_range(start, end, tell)


def _show(result: AggregationResult, form: Format) -> None:
    if form is Format.JSON:
        OUT.print_json(json.dumps(server_part("totalizer.jobs.usage").document(result)))
    else:
        _show_table([result])
        _show_errors([result])
    if not result.success:
        raise typer.Exit(FAILED)


def _show_range(result: RangeResult, form: Format) -> None:
    if form is Format.JSON:
        OUT.print_json(json.dumps(server_part("totalizer.jobs.usage").document(result)))
    else:
        _show_table(result.results)
        _show_errors(result.results)
    if not result.success:
        raise typer.Exit(FAILED)


def _show_table(results: Any) -> None:
    table = Table("day (UTC)", "from counters", "from events", "counters found", "errors", "took", "")
    for each in results:
        notes = [each.skipped] if each.skipped else [alert.replace("_", " ") for alert in each.alerts]
        if each.redis != "ok":
            notes.append(f"Redis {each.redis}")
        table.add_row(
            str(each.date), f"{each.records_aggregated:,}", f"{each.records_settled:,}", f"{each.keys_scanned:,}",
            f"{each.error_count:,}", f"{each.duration_ms / 1000:.1f} s", escape(", ".join(notes)),
        )  # fmt: skip
    OUT.print(table)


def _show_errors(results: Any) -> None:
    errors = [error for each in results for error in each.errors]
    for error in errors[:SHOWN_MAX]:
        OUT.print(f"[red]{escape(error.key or 'the run')}[/]: {escape(error.reason)}")
    more = sum(each.error_count for each in results) - min(len(errors), SHOWN_MAX)
    if more > 0:
        OUT.print(f"and {more:,} more; the table totalizer.usage_failures has them")


def _show_status(found: AggregationStatus) -> None:
    state = "[green]aggregated[/]" if found.aggregated else "[red]not aggregated[/]"
    if found.running:
        state = "being aggregated now"
    OUT.print(f"{found.date}: {state}; {found.records:,} figures of {found.merchants:,} merchants")
    if found.behind:
        OUT.print(f"{found.behind:,} figures are behind their events; `totalizer job aggregate-date {found.date}`")
    if found.started_at is not None:
        ended = f"{found.finished_at:%Y-%m-%d %H:%M:%S} UTC" if found.finished_at else "not finished"
        took = "" if found.duration_ms is None else f", {found.duration_ms / 1000:.1f} s"
        OUT.print(f"last run: {ended}{took}, {found.error_count:,} errors")
    if found.error is not None:
        OUT.print(f"[red]it ended early: {escape(found.error)}[/]")
    for failure in found.failed_keys[:SHOWN_MAX]:
        OUT.print(f"[red]{escape(failure.key)}[/]: {escape(failure.reason)}")
