"""Names of usage counters in Redis.

    usage:{merchant}:{date}:{metric}                                 of the organisation `default`
    usage@{organization id}:{merchant}:{date}:{metric}               of any other
    totalizer:usage:generation:{the counter's name, in braces}       its generation, on the same node of a cluster

A counter's name holds no braces, so all of it decides which node of a cluster has it; what stands in the braces of its
generation's name is the same text, and so they are together.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from totalizer.event import is_canonical_uuid

#: Characters that separate, and the one that escapes them; braces would choose the node of a cluster.
_ESCAPES = {"%": "%25", ":": "%3A", "{": "%7B", "}": "%7D"}
_ESCAPE = str.maketrans(_ESCAPES)
_ESCAPED = re.compile("|".join(_ESCAPES.values()), re.IGNORECASE)
_CHARACTERS = {escaped: character for character, escaped in _ESCAPES.items()}
_PATTERN_CHARACTERS = re.compile(r"([\\*?\[\]^-])")
#: Characters of the parts, as the event type has them.
MERCHANT_LENGTH_MAX, METRIC_LENGTH_MAX = 255, 100
#: Says whether today's counters were compared with what is stored since the server began empty; lost with them.
WHOLE_KEY = "totalizer:usage:whole"


class Counter(NamedTuple):
    """What one counter counts.

    Attributes:
        organization_id: whose; None for the organisation `default`.
        merchant_id: who is billed.
        day: ISO date, UTC.
        metric_type: what was used.
    """

    organization_id: str | None
    merchant_id: str
    day: str
    metric_type: str

    @property
    def key(self) -> str:
        """Its name in Redis."""
        owner = "usage" if self.organization_id is None else f"usage@{self.organization_id}"
        return f"{owner}:{self.merchant_id.translate(_ESCAPE)}:{self.day}:{self.metric_type.translate(_ESCAPE)}"


def generation_key(key: str) -> str:
    """The name of a counter's generation."""
    return f"totalizer:usage:generation:{{{key}}}"


def read_key(raw: bytes) -> Counter:
    """What the counter of this name counts.

    Raises:
        ValueError: it is no counter's name; the message says why.
    """
    try:
        parts = raw.decode().split(":")
    except UnicodeDecodeError:
        raise ValueError("its name is not UTF-8") from None
    if len(parts) != 4:
        raise ValueError(f"its name has {len(parts)} parts between colons, not 4")
    owner, merchant_id, day, metric_type = parts
    merchant_id, metric_type = (
        _text("merchant", merchant_id, MERCHANT_LENGTH_MAX),
        _text("metric", metric_type, METRIC_LENGTH_MAX),
    )
    return Counter(_organization(owner), merchant_id, _day(day), metric_type)


def pattern(day: str, merchant_id: str | None = None) -> str:
    """What SCAN is told to find the counters of a day.

    Args:
        day: ISO date.
        merchant_id: only this merchant's, of any organisation.
    """
    merchant = "*" if merchant_id is None else _PATTERN_CHARACTERS.sub(r"\\\1", merchant_id.translate(_ESCAPE))
    return f"usage[:@]*:{day}:*" if merchant_id is None else f"usage*:{merchant}:{day}:*"


@lru_cache(maxsize=1024)
def _organization(owner: str) -> str | None:
    if owner == "usage":
        return None
    organization_id = owner.removeprefix("usage@")
    if not is_canonical_uuid(organization_id):
        raise ValueError("its name does not begin with usage: or usage@ and the id of an organisation")
    return organization_id


def _text(what: str, escaped: str, length_max: int) -> str:
    text = escaped
    if "%" in escaped:
        text = _ESCAPED.sub(lambda found: _CHARACTERS[found[0].upper()], escaped)
    if not 0 < len(text) <= length_max:
        raise ValueError(f"its name has a {what} of {len(text)} characters, not of 1 to {length_max}")
    if "\0" in text:
        raise ValueError(f"its name has a {what} with the character NUL")
    return text


@lru_cache(maxsize=1024)
def _day(text: str) -> str:
    try:
        day = date.fromisoformat(text).isoformat()
    except ValueError:
        day = ""
    if day != text:
        raise ValueError(f"its name has {text[:40]!r} where the day should be, such as 2025-11-01")
    return text
