"""`totalizer migrate`: brings the database to the present."""

from __future__ import annotations

from typing import Annotated

import typer

from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import StoreUnavailable
from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import ERR, OUT
from totalizer.ops.lazy import server_part

#: Pause before the first further try with --wait; doubled with every one, up to the maximum.
PAUSE_SECONDS_MIN = 0.25
PAUSE_SECONDS_MAX = 10.0


def migrate(
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Try until the database can be reached.")] = False,
) -> None:
    """Create or upgrade roles, schema and catalog; does nothing when all is up to date."""
    server_part("totalizer.ops.lifeline").watch_lifeline()
    settings = stack_settings(home)
    app = server_part("totalizer.app")
    pause = PAUSE_SECONDS_MIN
    while True:
        try:
            done = app.migrate(settings)
            break
        except StoreUnavailable as error:
            if not wait:
                raise
            reason = " ".join(str(error).split())
            ERR.print(f"{reason}; trying again in {pause:g} s", markup=False)
        SYSTEM_CLOCK.sleep(pause)
        pause = min(pause * 2, PAUSE_SECONDS_MAX)
    for line in done or ["up to date"]:
        OUT.print(line, markup=False)
