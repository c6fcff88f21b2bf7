"""`totalizer report`: what an organisation did in a day, a week or a month, for people."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from totalizer.errors import OperationError
from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import ERR
from totalizer.ops.lazy import server_part

#: Whose report it is, unless another is named: the organisation that `totalizer up` makes.
ORGANIZATION_DEFAULT = "default"


class PeriodKind(StrEnum):
    """How long the period is."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


FileOption = Optional[Path]  # noqa: UP045 - Typer reads the annotations at run time


def report(
    organization: Annotated[str, typer.Option("--organization", metavar="NAME", help="Whose.")] = ORGANIZATION_DEFAULT,
    period: Annotated[PeriodKind, typer.Option("--period", help="How long it is.")] = PeriodKind.MONTH,
    day: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--date", metavar="DATE", help="A day in it.", show_default="the last period that is over"),
    ] = None,
    zone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--zone", help="IANA zone of days.", show_default="the organisation's"),
    ] = None,
    html: Annotated[FileOption, typer.Option("--html", metavar="FILE", help="One page, with all in it.")] = None,
    pdf: Annotated[FileOption, typer.Option("--pdf", metavar="FILE", help="A4 pages.")] = None,
    png: Annotated[FileOption, typer.Option("--png", metavar="FILE", help="One picture.")] = None,
    home: HomeOption = None,
) -> None:
    """Write a report on what an organisation did, with totals, charts and what there was most of."""
    wanted = {"html": html, "pdf": pdf, "png": png}
    if not any(wanted.values()):
        raise typer.BadParameter("say where to write it: --html FILE, --pdf FILE, --png FILE, or several of them")
    parsed = None if day is None else server_part("totalizer.query.moments").plain_date("--date", day)
    if zone is not None:
        _check_zone(zone)
    settings = stack_settings(home)
    for module in ("vl_convert", "psycopg_pool"):
        server_part(module)
    figures = server_part("totalizer.ops.report.gather").gather(settings, organization, period.value, parsed, zone)
    files = server_part("totalizer.ops.report.files")
    for form, path in wanted.items():
        if path is not None:
            files.write(figures, form, path)
            ERR.print(f"{figures.period.title} of {organization}, in {path}", markup=False)


def _check_zone(name: str) -> None:
    try:
        server_part("totalizer.window").zone(name)
    except ValueError as error:
        raise OperationError(f"--zone: {error}") from None
