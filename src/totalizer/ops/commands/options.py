"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

HomeOption = Annotated[
    Optional[Path],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Option("--home", help="Data folder (TOTALIZER_HOME, default .totalizer).", show_default=False),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Address of the server.", show_default="TOTALIZER_URL, else the stack in --home"),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="API key.", show_default="TOTALIZER_API_KEY, else that of the stack in --home"),
]
OrganizationOption = Annotated[
    str | None, typer.Option("--organization", metavar="NAME", help="Only this organisation's.", show_default=False)
]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="Only those of this event type.", show_default=False)
]
RollupOption = Annotated[
    str | None, typer.Option("--rollup", metavar="NAME", help="Only this rollup.", show_default=False)
]


class Format(StrEnum):
    """How an answer is written."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]


def require_one_way(ids: list[int] | None, everything: bool, organization: str | None, event_type: str | None) -> None:
    """Events are named by their numbers, or by what they have in common, or all of them.

    Raises:
        BadParameter: in no way, or in two.
    """
    by_condition = organization is not None or event_type is not None
    if sum((bool(ids), everything, by_condition)) != 1:
        raise typer.BadParameter("name some IDS, or --organization or --type or both, or --all")
