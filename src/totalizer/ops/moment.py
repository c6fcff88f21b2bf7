"""Moments and days as people type them."""

from __future__ import annotations

from datetime import date, datetime

import typer

from totalizer.window import utc_moment


def moment(option: str, text: str) -> datetime:
    """An ISO 8601 time, UTC where it names no zone.

    Raises:
        BadParameter: it is none.
    """
    try:
        return utc_moment(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text[:80]}: {error}") from None


def moment_or_day(option: str, text: str) -> datetime | date:
    """A date without a time is a local day; anything else a moment."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return moment(option, text)
