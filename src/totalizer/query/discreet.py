"""What is not told back: a key, a token or a password that somebody has put where a value should be."""

from __future__ import annotations

import re

#: Names under which programs send them.
_NAMES = re.compile(r"token|secret|passw|credential|authori[sz]ation|signature|api.?key", re.IGNORECASE)
#: Our keys, tokens (JWT) and addresses with a password in them.
_VALUES = re.compile(r"tz_[A-Za-z0-9]{16}|eyJ[\w-]{8,}\.|://[^/\s]*:[^/\s]*@")


def discreet(name: str, value: object) -> str:
    """A value as an answer tells it; `…` in place of what may be a secret.

    Args:
        name: of the parameter or member.
        value: which it was given.
    """
    text = str(value)
    return "…" if _NAMES.search(name) or _VALUES.search(text) else text
