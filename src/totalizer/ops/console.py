"""What a person sees: results on standard output, errors as one red line on standard error."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from totalizer.errors import TotalizerError

#: Exit codes.
FAILED = 1
INTERRUPTED = 130

#: Columns of a table that goes to a file or a pipe, where no line is too long.
PIPE_WIDTH = 240

# Long paths must stay in one piece to be copied, so lines are not wrapped. And a `:key:` in a name is no picture.
OUT = Console(soft_wrap=True, highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
ERR = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def show_error(error: BaseException, *, debug: bool = False) -> None:
    """Show an error: its first line in red, the rest (the end of a log) as it is; all of the traceback for `debug`."""
    if debug:
        ERR.print(escape("".join(traceback.format_exception(error))), end="")
        return
    first, _, rest = str(error).partition("\n")
    ERR.print(f"[bold red]{escape(first)}[/]")
    if rest:
        ERR.print(escape(rest))


def exit_code_of(command: Callable[[], int | None], *, debug: Callable[[], bool]) -> int:
    """Run a command and return its exit code: errors of ours are shown as such, 1; Ctrl-C is 130.

    Args:
        command: returns an exit code, or None for 0.
        debug: asked when an error is to be shown; True shows its traceback.
    """
    try:
        return command() or 0
    except TotalizerError as error:
        show_error(error, debug=debug())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
