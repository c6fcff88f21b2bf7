"""The command line: `totalizer COMMAND`. A command's module is loaded when that command is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

import totalizer
from totalizer.ops.console import OUT, exit_code_of

#: Every command, in the order of the help: the module below `commands` that holds it, and its name there.
COMMANDS = {
    "up": ("up", "up"),
    "down": ("up", "down"),
    "demo": ("demo", "demo"),
    "status": ("status", "status"),
    "doctor": ("doctor", "doctor"),
    "import": ("import_", "app"),
    "query": ("query", "query"),
    "export": ("query", "export"),
    "report": ("report", "report"),
    "catalog": ("catalog", "app"),
    "keys": ("keys", "app"),
    "limits": ("limits", "app"),
    "organizations": ("organizations", "app"),
    "audit": ("audit", "audit"),
    "verify": ("verify", "verify"),
    "rollup": ("rollup", "app"),
    "ledger": ("ledger", "ledger"),
    "dead-letters": ("dead_letters", "app"),
    "retention": ("retention", "app"),
    "late": ("late", "app"),
    "job": ("jobs", "app"),
    "psql": ("psql", "psql"),
    "migrate": ("migrate", "migrate"),
    "serve": ("run", "serve"),
    "load": ("run", "load"),
    "scheduler": ("run", "scheduler"),
    "monitor": ("run", "monitor"),
    "alerts": ("alerts", "app"),
    "bridge": ("bridge", "app"),
    "aggregation": ("aggregation", "app"),
    "validate": ("validate", "validate"),
    "diagnostics": ("diagnostics", "diagnostics"),
    "cleanup": ("cleanup", "cleanup"),
    "migrate-v1": ("migrate_v1", "migrate_v1"),
}
#: Commands that hand arguments they do not know to another program.
PASSING_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


class _LazyGroup(TyperGroup):
    """A group that knows its commands' names, and loads a command's module only to run or describe it."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        found = getattr(import_module(f"totalizer.ops.commands.{module}"), attribute)
        holder = typer.Typer()
        holder.callback()(lambda: None)  # with it, even a single command keeps its name
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=cmd_name)
        else:
            holder.command(cmd_name, context_settings=PASSING_ON if cmd_name == "psql" else None)(found)
        group = get_command(holder)
        assert isinstance(group, TyperGroup)
        return group.commands[cmd_name]


app = typer.Typer(
    name="totalizer",
    cls=_LazyGroup,
    help="Exact usage metering and activity analytics on PostgreSQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_debug = False


def _show_version(wanted: bool) -> None:
    if wanted:
        OUT.print(f"totalizer {totalizer.__version__}", markup=False)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    global _debug
    _debug = context.obj = debug


def main() -> None:
    """Run the command line and exit: 0 done, 1 an error that was shown, 2 wrong usage, 130 Ctrl-C."""
    sys.exit(exit_code_of(lambda: app(prog_name="totalizer"), debug=lambda: _debug))
