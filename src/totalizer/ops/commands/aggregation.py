"""`totalizer aggregation`: the recovery daemon, and what a person does about batches."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.errors import OperationError
from totalizer.ops.batching.actions import quietly, show_json
from totalizer.ops.batching.place import ConfigOption, DataPathOption, SinkUrlOption, find_place
from totalizer.ops.batching.supervise import detach, run_daemon, stop_daemon
from totalizer.ops.commands.bridge import aggregate_force, aggregate_recover, aggregate_status
from totalizer.ops.commands.options import Format, FormatOption
from totalizer.ops.console import OUT

app = typer.Typer(no_args_is_help=True, help="The recovery daemon: start, stop, status; flush, recover, requeue.")


@app.command()
def start(
    detached: Annotated[
        bool, typer.Option("--detach/--foreground", help="Return once it runs, or run until SIGTERM.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log to logs/recovery.log alone, not to stderr.")] = False,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    sink_url: SinkUrlOption = None,
) -> None:
    """Run the recovery daemon, which delivers failed batches and those of ended processes, until SIGTERM."""
    place = find_place(data_path, config, sink_url)
    if not detached:
        run_daemon(place, quiet=quiet)
        return
    place.sink().close()  # a wrong address or a missing key is told here, and not in a log file
    arguments = ["aggregation", "start", "--quiet", "--data-path", str(place.folders.data)]
    arguments += ["--config", str(config.absolute())] if config is not None else []
    arguments += ["--sink-url", place.url] if place.url is not None else []
    pid = detach(arguments, place)
    OUT.print(f"the recovery daemon runs on {place.folders.data} as process {pid}", markup=False)


@app.command()
def stop(
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for its end.", min=0.0)] = 60.0,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
) -> None:
    """Stop the recovery daemon; a batch that is on its way is brought to its end. Harmless if none runs."""
    place = find_place(data_path, config)
    pid = stop_daemon(place, timeout)
    text = f"process {pid} has ended" if pid is not None else f"no recovery daemon runs on {place.folders.data}"
    OUT.print(text, markup=False)


# The same as the scripts' actions, under the names by which people look for them.
app.command("status")(aggregate_status)
app.command("flush")(aggregate_force)
app.command("recover")(aggregate_recover)


@app.command()
def requeue(
    batch_id: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--batch-id", help="Only this batch; may be repeated.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Put batches that were given up back among the failed ones, with all attempts before them."""
    place = find_place(data_path, config)
    place.require()
    daemon = CronRecoveryDaemon(place.daemon)
    moved = quietly(lambda: daemon.requeue(batch_id or None))
    if form is Format.JSON:
        show_json({"requeued": moved})
    else:
        OUT.print(f"{len(moved)} batches put back", markup=False)
    missing = sorted(set(batch_id or []) - set(moved))
    if missing:
        raise OperationError(f"not put back: {', '.join(missing)}; see {place.folders.logs / 'recovery.log'}")
