"""Numbers in a request's query string."""

from __future__ import annotations

from totalizer.errors import Refusal, Refused


def whole_number(name: str, text: str | None, default: int, most: int) -> int:
    """The whole number, from 1 on, that a request gives.

    Args:
        name: of the parameter.
        text: as it was given; None if it was not.
        default: what then holds.
        most: the greatest that may be given.

    Raises:
        Refused: it is none, or less or more.
    """
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    if not 1 <= number <= most:
        raise Refused(Refusal.INVALID_QUERY, f"{name}={text[:80]}: must be a whole number from 1 to {most}")
    return number
