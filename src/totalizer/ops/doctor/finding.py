"""One thing that was looked at, and how it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """How one thing is.

    Attributes:
        subject: what was looked at.
        severity: ok; warning, it works and will not for long or not well; error, it does not work or is not safe.
        detail: what was found.
        remedy: what to do; empty if nothing is.
    """

    subject: str
    severity: Severity
    detail: str
    remedy: str = ""


def ok(subject: str, detail: str) -> Finding:
    """Nothing is to be done."""
    return Finding(subject, "ok", detail)
