"""Moments and days as people type them."""

from __future__ import annotations

from datetime import UTC, date, datetime

from totalizer.errors import OperationError


def moment(option: str, text: str) -> datetime:
    """An ISO 8601 time, UTC where it names no zone.

    Raises:
        OperationError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise OperationError(
            f"{option} {text[:80]}: must be an ISO 8601 date or time, such as 2025-01-09T14:00"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def moment_or_day(option: str, text: str) -> datetime | date:
    """A date without a time is a local day; anything else a moment."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return moment(option, text)
