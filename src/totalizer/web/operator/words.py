"""Numbers, times and states as people read them."""

from __future__ import annotations

from datetime import datetime

from totalizer.web.operator.markup import Markup, h

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
#: State of a check, a run or an alert → how it is coloured.
_TONES = {
    "ok": "good", "done": "good", "healthy": "good", "resolved": "good",
    "warning": "warn", "degraded": "warn", "requested": "busy", "running": "busy",
    "critical": "bad", "unhealthy": "bad", "failed": "bad", "timed_out": "bad", "lost": "bad",
}  # fmt: skip


def badge(state: str) -> Markup:
    """A state, in its colour. The word says it all: colour is never the only sign."""
    return h("span", state.replace("_", " "), class_=f"badge {_TONES.get(state, 'quiet')}")


def prose(text: str) -> list[str | Markup]:
    """A text in which backquotes stand around what is typed."""
    return [h("code", part) if place % 2 else part for place, part in enumerate(text.split("`"))]


def number(value: float | None, unit: str = "") -> str:
    """A number with its unit; `—` if there is none."""
    if value is None:
        return "—"
    if unit == "part":
        return f"{value:.0%}"
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"
    return f"{text} {unit}" if unit else text


def duration(seconds: float | None) -> str:
    """A length of time; `—` if there is none."""
    if seconds is None:
        return "—"
    if seconds < 1:
        return "0 s" if seconds <= 0 else f"{seconds * 1000:.0f} ms"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.1f} d"


def size(count: int | None) -> str:
    """Bytes; `—` if that is not known."""
    if count is None:
        return "—"
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def moment(at: datetime | None) -> Markup | str:
    """A time of the record, in UTC, to the second."""
    if at is None:
        return "—"
    return h("time", f"{at:%Y-%m-%d %H:%M:%S}", datetime=at.isoformat())
