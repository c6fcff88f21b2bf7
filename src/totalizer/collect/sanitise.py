"""What a sent text or JSON value must go through before it may become part of a COPY line."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

#: Keys that turn into something else in programs that read the JSON later; they are removed wherever they stand.
DANGEROUS_KEYS = frozenset(("__proto__", "constructor", "prototype"))
#: Nesting a JSON value may have.
JSON_DEPTH_MAX = 32
#: Digits of a decimal before the point.
DECIMAL_DIGITS_MAX = 30
#: Characters of a wrong number shown in an error.
SHOWN_MAX = 80

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_encode = msgspec.json.Encoder().encode


def escape(text: str) -> str:
    """`text` for COPY's text format.

    Raises:
        ValueError: it holds NUL, which PostgreSQL cannot store.
    """
    if "\0" in text:
        raise ValueError("holds the character NUL (\\u0000), which cannot be stored")
    return text.translate(_ESCAPES)


def json_column(value: dict[str, Any]) -> str:
    """A JSON object for COPY: dangerous keys removed, re-encoded, so that what is stored is what was checked.

    Raises:
        ValueError: it holds NUL or is nested too deep.
    """
    text = _encode(without_dangerous_keys(value)).decode()
    return text.replace("\\", "\\\\")


def plain_json_column(value: dict[str, Any]) -> str:
    """As `json_column`, for a value of a body without a backslash, in which no text holds NUL or needs an escape.

    A flat object, as nearly all are, needs no walk: only its own keys can be dangerous.
    """
    text = _encode(value).decode()
    if text.find("{", 1) < 0 and "[" not in text and DANGEROUS_KEYS.isdisjoint(value):
        return text
    return json_column(value)


def without_dangerous_keys(value: Any, depth: int = 0) -> Any:
    """A copy of a decoded JSON value without DANGEROUS_KEYS.

    Raises:
        ValueError: it holds NUL in a key or text, or is nested more than JSON_DEPTH_MAX deep.
    """
    if depth >= JSON_DEPTH_MAX and isinstance(value, dict | list):
        raise ValueError(f"is nested more than {JSON_DEPTH_MAX} deep")
    if isinstance(value, dict):
        return {
            _without_nul(key): without_dangerous_keys(item, depth + 1)
            for key, item in value.items()
            if key not in DANGEROUS_KEYS
        }
    if isinstance(value, list):
        return [without_dangerous_keys(item, depth + 1) for item in value]
    return _without_nul(value) if isinstance(value, str) else value


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds the character NUL (\\u0000), which cannot be stored")
    return text


def decimal_column(value: Decimal, scale: int, minimum: float | None, maximum: float | None) -> str:
    """A decimal for COPY, in plain digits.

    Raises:
        ValueError: it is not a number, has too many digits, or lies outside its bounds.
    """
    if not value.is_finite():
        raise ValueError(f"{str(value)[:SHOWN_MAX]} is not a number")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # of a finite number
    if value.adjusted() >= DECIMAL_DIGITS_MAX or -exponent > scale:
        shown = str(value)[:SHOWN_MAX]
        raise ValueError(f"{shown} has more than {DECIMAL_DIGITS_MAX} digits before or {scale} after the point")
    if minimum is not None and value < Decimal(str(minimum)):
        raise ValueError(f"{value} is below {minimum}")
    if maximum is not None and value > Decimal(str(maximum)):
        raise ValueError(f"{value} is above {maximum}")
    return format(value, "f")
