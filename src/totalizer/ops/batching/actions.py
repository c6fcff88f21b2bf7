"""The actions that `totalizer bridge` and `totalizer aggregation` share: do, show, and end with an exit code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import typer
from rich.markup import escape

from totalizer.errors import OperationError
from totalizer.ops.batching.document import document_of
from totalizer.ops.batching.flushing import Flushed, flush_all, recover
from totalizer.ops.batching.overview import overview
from totalizer.ops.batching.place import Place
from totalizer.ops.batching.show import as_markdown, as_text
from totalizer.ops.commands.options import Format
from totalizer.ops.console import ERR, FAILED, OUT

T = TypeVar("T")


def quietly(action: Callable[[], T]) -> T:
    """Do something whose log records say what its result says, too: they go to the log files alone.

    Raises:
        OperationError: the system refuses something that is not expected to be refused.
    """
    logger = logging.getLogger("totalizer.edge")
    handler, propagate = logging.NullHandler(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        return action()
    except OSError as error:
        raise OperationError(f"the system refuses: {error}") from error
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def show_json(document: Any) -> None:
    """Write a document for programs: one JSON value, indented."""
    OUT.out(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())  # as it is, without markup or emoji


def show_status(place: Place, form: str, *, detailed: bool) -> None:
    """Show everything that can be told of a place, as `text`, `json` or `markdown`."""
    place.require()
    document = document_of(quietly(lambda: overview(place.folders)), detailed=detailed)
    if form == "json":
        show_json(document)
    elif form == "markdown":
        OUT.out(as_markdown(document))
    else:
        OUT.print(as_text(document))


def show_flushed(flushed: Flushed, form: Format) -> None:
    """Show what a flush came to; exit code 1 if not all is well."""
    if form is Format.JSON:
        show_json(flushed.to_document())
    else:
        for line in _flushed_lines(flushed):
            OUT.print(line, markup=False)
        for error in flushed.errors:
            ERR.print(f"[bold red]{escape(error)}[/]")
    if flushed.errors or flushed.failed or flushed.failed_batches:
        raise typer.Exit(FAILED)


def flush_everything(place: Place, timeout_s: float, form: Format) -> None:
    """Flush what waits in every process, and show it; exit code 1 if something is left."""
    place.require()
    show_flushed(quietly(lambda: flush_all(place, timeout_s)), form)


def recover_failed(place: Place, batch_id: str | None, max_age_ms: int | None, form: Format) -> None:
    """Try failed batches, and show what came of it; exit code 1 if one was not delivered."""
    place.require()
    result = quietly(lambda: recover(place, batch_id, max_age_ms))
    if form is Format.JSON:
        show_json(vars(result))
    else:
        OUT.print(
            f"{result.processed} failed batches tried: {result.succeeded} delivered, {result.failed} wait for another "
            f"attempt, {result.abandoned} given up" + (f", {result.skipped} not tried" if result.skipped else ""),
            markup=False,
        )
    if result.failed or result.abandoned:
        raise typer.Exit(FAILED)


def _flushed_lines(flushed: Flushed) -> list[str]:
    lines = [f"taken: {flushed.added:,} entries"] if flushed.added else []
    if flushed.journals:
        text = f"delivered: {flushed.delivered:,} entries of processes that have ended"
        lines.append(text + (f"; {flushed.failed:,} were not" if flushed.failed else ""))
    if flushed.failed_batches:
        lines.append(f"not delivered: {flushed.failed_batches:,} batches, which wait for the recovery daemon")
    return [*lines, f"waiting: {flushed.waiting:,} entries" if flushed.waiting else "nothing waits"]
