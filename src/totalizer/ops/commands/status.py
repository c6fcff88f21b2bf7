"""`totalizer status`: what runs on a data folder, how it is, and what to do; once, or all the time."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from totalizer.clock import SYSTEM_CLOCK
from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.connection import own_settings, stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.ops.overview import Lookout, Overview
    from totalizer.ops.state import State

#: Exit code when nothing runs, as `systemctl status` has it.
NOT_RUNNING = 3
#: Seconds between two looks, unless others are named, and at least: checks keep what they found for a second.
WATCH_S, WATCH_S_MIN = 2.0, 1.0


def status(
    seconds: Annotated[
        Optional[float],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Argument(metavar="SECONDS", help=f"With --watch: between two looks; {WATCH_S:g}.", show_default=False),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show what runs, where, how it is, and what to do about what is wrong. Exit code 3 when nothing runs."""
    pause_s = _pause(seconds, watch=watch)
    settings = own_settings(home)
    folder = settings.home.expanduser().resolve()
    # Where each process is started by itself, the settings say where the database is.
    if isinstance(state := _running(folder), str) and not settings.database_configured():
        _tell(_absent(folder, state, form), form)
        raise typer.Exit(NOT_RUNNING)
    server_part("totalizer.telemetry").configure_logging("error", "status")
    with server_part("totalizer.ops.overview").Lookout(stack_settings(home), folder) as lookout:
        if not watch:
            overview = lookout.look(None if isinstance(state, str) else state)
            _tell(_shown(overview, form), form)
            raise typer.Exit(0 if overview.running else NOT_RUNNING)
        look = partial(_looked, lookout, folder, form, bare=settings.database_configured())
        # Ctrl-C is how it ends, and nothing has failed.
        with suppress(KeyboardInterrupt):
            if form is Format.TEXT and OUT.is_terminal:
                _live(look, pause_s)
            else:
                _stream(look, pause_s, form)


def _pause(seconds: float | None, *, watch: bool) -> float:
    if seconds is not None and not watch:
        raise typer.BadParameter(f"{seconds:g}: seconds go with --watch; write `totalizer status --watch {seconds:g}`")
    if seconds is not None and seconds < WATCH_S_MIN:
        raise typer.BadParameter(f"{seconds:g}: must be {WATCH_S_MIN:g} seconds or more")
    return WATCH_S if seconds is None else seconds


def _running(folder: Path) -> State | str:
    """What runs on a folder; else a sentence that says that nothing does."""
    state: State | None = server_part("totalizer.ops.state").read_state(folder)
    if state is None:
        return f"nothing runs on {folder}; `totalizer up` starts it"
    if not state.running():
        return (
            f"`totalizer up` (pid {state.pid}) on {folder} was killed; the next `totalizer up` takes over what it left "
            "running, `totalizer down` stops it"
        )
    return state


def _absent(folder: Path, why: str, form: Format) -> Any:
    return {"running": False, "home": str(folder), "message": why} if form is Format.JSON else escape(why)


def _looked(lookout: Lookout, folder: Path, form: Format, *, bare: bool) -> Any:
    """How it is now: a document, or lines of Rich markup.

    Args:
        lookout: looks.
        folder: data folder.
        form: for whom.
        bare: True if there is something to look over without a stack, too.
    """
    state = _running(folder)
    if isinstance(state, str) and not bare:
        return _absent(folder, state, form)
    return _shown(lookout.look(None if isinstance(state, str) else state), form)


def _shown(overview: Overview, form: Format) -> Any:
    if form is Format.JSON:
        return overview.document()
    return server_part("totalizer.ops.overview_text").overview_lines(overview)


def _tell(content: Any, form: Format) -> None:
    if form is Format.JSON:
        OUT.print_json(json.dumps(content, default=str))
    else:
        OUT.print(content)


def _live(look: Callable[[], Any], pause_s: float) -> None:
    """The screen, kept up to date; what the terminal showed before is there again when Ctrl-C ends it."""
    with Live(console=OUT, screen=True, auto_refresh=False) as live:
        while True:
            content = f"{look()}\n\nevery {pause_s:g} s; Ctrl-C ends it"
            live.update(Text.from_markup(content, emoji=False, overflow="fold"), refresh=True)
            SYSTEM_CLOCK.sleep(pause_s)


def _stream(look: Callable[[], Any], pause_s: float, form: Format) -> None:
    """For files and programs: one after the other, JSON as a line each."""
    while True:
        content = look()
        OUT.print(json.dumps(content, default=str) if form is Format.JSON else content, markup=form is Format.TEXT)
        OUT.file.flush()
        SYSTEM_CLOCK.sleep(pause_s)
