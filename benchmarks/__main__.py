"""`python -m benchmarks [NAME] [--quick]`: runs one benchmark; without a name, lists them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from benchmarks.progress import show
from benchmarks.result import Result
from totalizer.errors import OperationError
from totalizer.ops.console import OUT, exit_code_of
from totalizer.telemetry import configure_logging

#: Every benchmark: its module is called like it and has `run(quick) -> Iterator[Result]`.
BENCHMARKS = {
    "cost": "what the service's telling of itself costs the way in: metrics, request ids and logs, on beside off",
    "edge": "durable adding beside bare group commit; 50 processes; memory while much waits",
    "export": "rows a second in every format beside COPY; memory of the API process",
    "ingest": "batches and single events until they are stored; idle memory; second start",
    "growth": "what a backfill of rollups costs from 1 million to 10 million events, or 20 million",
    "live": "event sent to WebSocket frame received; what somebody who watches costs the way in",
    "journal": "appends acknowledged when durable, from threads and from an event loop; opening after a kill",
    "query": "answers from rollups and from marked buckets beside events; every route found anew and kept",
    "verify": "comparing all books of 10 million events; a number changed by hand found and repaired",
    "rollup": "backfill beside plain statements; buckets dirtied at random; lag while events come",
    "usage": "aggregation of counters beside a loop of one key at a time; tracking in process and over HTTP",
}


def main(
    name: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Argument(help="Which benchmark. Without it they are listed.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything: under a minute.")] = False,
    memory: Annotated[
        Optional[float],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--memory", help="ingest: memory of the service under a load of so many minutes.", min=0.1),
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="growth: 20 million events as well.")] = False,
    data: Annotated[
        Optional[Path],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--data", help="verify: keep the database in this folder, and use it the next time."),
    ] = None,
) -> None:
    """Measure the system beside its baselines: a line of JSON a result, then a table on standard error."""
    if name is None:
        for each, about in BENCHMARKS.items():
            OUT.print(f"{each:<12}{about}", markup=False)
        return
    if name not in BENCHMARKS:
        raise OperationError(f"no benchmark {name!r}; there is {', '.join(BENCHMARKS)}")
    results: list[Result] = []
    module = import_module(f"benchmarks.{name}")
    if memory is not None and not hasattr(module, "run_memory"):
        raise OperationError(f"--memory is for ingest, not for {name}")
    chosen = {option: value for option, value in (("long", long), ("data", data)) if value}
    for option in chosen:
        if option not in signature(module.run).parameters:
            raise OperationError(f"--{option} is not for {name}; `script/bench --help` says for which it is")
    configure_logging("warning", "benchmark")  # standard output is for results
    run = module.run(quick, **chosen) if memory is None else module.run_memory(memory)
    with closing(run):
        for result in _written(run):
            results.append(result)
    show(results)


def _written(results: Iterator[Result]) -> Iterator[Result]:
    """The results, each written to standard output as it comes."""
    for result in results:
        sys.stdout.write(result.line())
        sys.stdout.flush()
        yield result


def _end(_number: int, _frame: Any) -> None:
    """On SIGTERM and SIGHUP end as on Ctrl-C: servers are stopped and folders removed on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(exit_code_of(app, debug=lambda: False))
