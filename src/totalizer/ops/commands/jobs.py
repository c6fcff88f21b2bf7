"""`totalizer job`: what jobs there are, what became of their runs, running one, running them all by schedule."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from totalizer.errors import OperationError
from totalizer.ops.commands import usage_jobs
from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.commands.run import scheduler as run_scheduler
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import ERR, OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.jobs.job import Job
    from totalizer.jobs.run import Outcome
    from totalizer.settings import Settings
    from totalizer.store.runs import Run

#: Exit code when a run was not done.
NOT_DONE = 1
_COLOURS = {"done": "green", "running": "cyan", "requested": "cyan", "failed": "red", "timed_out": "red", "lost": "red"}
_WHY_NOT = {"busy": "another process is running it now", "not_due": "it was taken by another process"}

app = typer.Typer(help="Scheduled work: see it, run it.", no_args_is_help=True)
app.command("scheduler", help="Run the jobs by schedule until SIGTERM; the same as `totalizer scheduler`.")(
    run_scheduler
)
usage_jobs.register(app)


@app.command("list")
def list_jobs(form: FormatOption = Format.TEXT, home: HomeOption = None) -> None:
    """Show every job with its schedule, its next run and its last one."""
    settings = stack_settings(home)
    runs = server_part("totalizer.store.runs")
    table = server_part("totalizer.jobs.table").jobs(settings)
    with _refresher(settings) as connection:
        now, last = runs.database_now(connection), runs.last_runs(connection, table)
    if form is Format.JSON:
        described = [{**_described(job, now), "last_run": _document(last.get(name))} for name, job in table.items()]
        OUT.print_json(json.dumps({"jobs": described}, default=str))
        return
    shown = Table("job", "schedule", "next run (UTC)", "last run (UTC)", "state", "limit", "queue")
    for name, job in table.items():
        known, run = job.known(now), last.get(name)
        following = _time(known.next_run_at) if job.enabled else "switched off"
        limit = str(job.limit)
        shown.add_row(
            name, known.schedule or "by hand", "all the time" if job.continuous else following,
            _time(run and (run.finished_at or run.started_at or run.requested_at)), _state(run), limit, job.queue,
        )  # fmt: skip
    OUT.print(shown)


@app.command()
def history(
    name: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Argument(metavar="[NAME]", help="Only this job's.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many, newest first.")] = 20,
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show the runs of a job, or of all, newest first."""
    settings = stack_settings(home)
    if name is not None:
        server_part("totalizer.jobs.table").job_named(settings, name)
    with _refresher(settings) as connection:
        found = server_part("totalizer.store.runs").history(connection, name, limit)
    if form is Format.JSON:
        OUT.print_json(json.dumps({"runs": [_document(run) for run in found]}, default=str))
        return
    shown = Table("run", "job", "for (UTC)", "began (UTC)", "took", "state", "rows", "by", "what it did")
    for run in found:
        by = f"{run.runner or '?'} on {run.host}" if run.host else "nobody yet"
        what = run.error or ("" if run.result is None else json.dumps(run.result))
        state = _state(run) + (f", try {run.attempt}" if run.attempt > 1 else "")
        shown.add_row(
            str(run.id), run.job, _time(run.scheduled_for), _time(run.started_at), _length(run), state,
            "" if run.rows is None else f"{run.rows:,}", escape(by), escape(what),
        )  # fmt: skip
    OUT.print(shown if found else "no run is recorded")


@app.command("run")
def run_job(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which; `totalizer job list` names them.")],
    arguments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--arg", metavar="NAME=VALUE", help="An argument; may be repeated.", show_default=False),
    ] = None,
    due: Annotated[bool, typer.Option("--due", help="Only if the record says that it is due.")] = False,
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Run a job here, now, and record it as any other run. Exit code 1 if it was not done."""
    settings = stack_settings(home)
    server_part("totalizer.telemetry").configure_logging("warning", "job")
    job = server_part("totalizer.jobs.table").job_named(settings, name)
    given = _arguments(arguments or [])
    if due and given:
        raise OperationError("a run that is due has the arguments of its schedule; leave out --due or --arg")
    runner = server_part("totalizer.jobs.run").Runner(settings, "command")
    by = server_part("totalizer.store.audit").command_line()
    with server_part("totalizer.store.connect").in_plain_words(), Progress(console=ERR, transient=True) as bar:
        line = bar.add_task(name, total=None)
        outcome = (
            runner.run_due(job) if due
            else runner.run_now(job, given, progress=lambda done, of: bar.update(line, completed=done, total=of), by=by)
        )  # fmt: skip
        _announce(settings)
    _tell(job, outcome, form, due=due)


@app.command("due")
def run_due(form: FormatOption = Format.TEXT, home: HomeOption = None) -> None:
    """Run all that is due, missed or asked for, one after the other: for cron. Exit code 1 if any was not done."""
    settings = stack_settings(home)
    server_part("totalizer.telemetry").configure_logging("warning", "job")
    runner = server_part("totalizer.jobs.run").Runner(settings, "command")
    outcomes: dict[str, Outcome] = {}
    with server_part("totalizer.store.connect").in_plain_words():
        for name, outcome in server_part("totalizer.jobs.once").run_all_due(runner):
            outcomes[name] = outcome
            if form is Format.TEXT:
                OUT.print(f"{name}: {outcome.state.replace('_', ' ')} {outcome.error or ''}".rstrip(), markup=False)
    if form is Format.JSON:
        OUT.print_json(json.dumps({name: outcome._asdict() for name, outcome in outcomes.items()}, default=str))
    if any(outcome.state in ("failed", "timed_out", "lost") for outcome in outcomes.values()):
        raise typer.Exit(NOT_DONE)


def _announce(settings: Settings) -> None:
    """Write the table of jobs down: where no scheduler runs, this is who knows it."""
    runs = server_part("totalizer.store.runs")
    with _refresher(settings) as connection:
        now = runs.database_now(connection)
        runs.announce(
            connection, [job.known(now) for job in server_part("totalizer.jobs.table").jobs(settings).values()]
        )


def _tell(job: Job, outcome: Outcome, form: Format, *, due: bool) -> None:
    nothing_due = due and outcome.state in ("not_due", "disabled")
    if form is Format.JSON:
        OUT.print_json(json.dumps(outcome._asdict(), default=str))
    elif outcome.state == "done":
        OUT.print(f"[green]done[/], run {outcome.run_id}: {escape(json.dumps(outcome.result))}")
    elif nothing_due:
        OUT.print("nothing is due" if outcome.state == "not_due" else f"{job.name} is switched off")
    else:
        reason = outcome.error or _WHY_NOT.get(outcome.state, outcome.state)
        ERR.print(f"[bold red]{job.name}: {outcome.state.replace('_', ' ')}: {escape(reason)}[/]")
    if outcome.state != "done" and not nothing_due:
        raise typer.Exit(NOT_DONE)


def _refresher(settings: Settings) -> Any:
    role = server_part("totalizer.store.roles").Role.REFRESHER
    return server_part("totalizer.store.connect").connected(server_part("totalizer.app").dsn_of(settings, role))


def _arguments(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for text, (name, sign, _) in zip(given, pairs, strict=True):
        if not sign or not name:
            raise OperationError(f"--arg {text}: write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _described(job: Job, now: datetime) -> dict[str, Any]:
    return {**job.known(now)._asdict(), "continuous": job.continuous, "arguments": dict(job.arguments)}


def _document(run: Run | None) -> dict[str, Any] | None:
    return None if run is None else run._asdict()


def _state(run: Run | None) -> str:
    return "never ran" if run is None else f"[{_COLOURS[run.state]}]{run.state.replace('_', ' ')}[/]"


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def _length(run: Run) -> str:
    if run.started_at is None or run.finished_at is None:
        return ""
    if run.runs > 1:
        return f"{run.runs:,} runs"
    return f"{(run.finished_at - run.started_at).total_seconds():.1f} s"
