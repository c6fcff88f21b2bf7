"""What a report says, in words: numbers, changes, windows, and how far it can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from totalizer.ops.report.gather import Figures
from totalizer.query.sources import Source

NOTHING = "–"
#: Most digits after the point of what rarely ends: averages and quantiles.
_DIGITS = Decimal("0.01")
_ROUNDED = ("avg", "quantiles")
#: More digits than a number can have; Python's own context keeps 28.
_EXACT = Context(prec=2000)
#: Spans that are named; more are counted.
_SPANS_MAX = 3
_SOURCES = {
    Source.MONTH: "months", Source.WEEK: "weeks", Source.DAY: "days", Source.HOUR: "hours",
    Source.BASE: "quarters of an hour", Source.MINUTE: "minutes", Source.EVENTS: "single events",
}  # fmt: skip


class Total(NamedTuple):
    """A total of the period: what it is called, what it is, and beside it what it was before."""

    label: str
    number: str
    beside: str


def totals(section: Mapping[str, Any]) -> list[Total]:
    """The totals of a section; each quantile is one of its own."""
    return [total for name in section["totals"] for total in _totals(section, name)]


def _totals(section: Mapping[str, Any], name: str) -> list[Total]:
    kind, value, before = section["kinds"][name], section["totals"][name], section["previous"][name]
    about = "≈ " if name in section["estimates"] else ""
    if kind != "quantiles":
        return [_total(label(name), about, kind, value, before)]
    now, then = value or {}, before or {}
    heading = label(name.removesuffix("_quantiles"))
    return [
        _total(f"{heading} {each}", about, kind, now.get(each), then.get(each)) for each in dict.fromkeys([*now, *then])
    ]


def _total(heading: str, about: str, kind: str, value: Any, before: Any) -> Total:
    grown = change(value, before)
    beside = (f"{grown}, " if grown else "") + f"before: {number(before, kind)}"
    return Total(heading, about + number(value, kind), beside)


def number(value: Any, kind: str) -> str:
    """A number of a measure; sums to their last digit.

    Args:
        value: as an answer has it.
        kind: of the measure.
    """
    if value is None:
        return NOTHING
    if isinstance(value, Decimal):
        text = f"{value.quantize(_DIGITS, context=_EXACT) if kind in _ROUNDED else value:,f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def label(measure: str) -> str:
    """The name of a measure or dimension as a heading."""
    text = measure.replace("_", " ")
    return text[:1].upper() + text[1:]


def named(value: Any) -> str:
    """The value of a dimension; events may have none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "(none)" if value is None else str(value) or "(empty)"


def change(now: Any, before: Any) -> str:
    """By how much a number has grown, in per cent; empty where that says nothing."""
    if not all(isinstance(each, int | Decimal) and not isinstance(each, bool) for each in (now, before)):
        return ""
    if before == 0:
        return "new" if now else ""
    if now == before:
        return "±0 %"
    part = (Decimal(now) - Decimal(before)) / abs(Decimal(before)) * 100
    rounded = part.quantize(Decimal("0.1") if abs(part) < 10 else Decimal(1), context=_EXACT)
    return f"{'−' if part < 0 else '+'}{abs(rounded):,f} %"


def windows(series: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    """What the windows of a course are called, each by another name.

    Args:
        series: rows with `window_start`.
        kind: of the period.
    """
    moments = [datetime.fromisoformat(row["window_start"]) for row in series]
    if kind == "month":
        return [str(each.day) for each in moments]
    names = [f"{each:%H:%M}" if kind == "day" else f"{each:%a} {each.day}" for each in moments]
    often = Counter(names)
    # When a clock is put back, an hour happens twice.
    return [f"{name} ({each:%z})" if often[name] > 1 else name for name, each in zip(names, moments, strict=True)]


def trust(figures: Figures) -> list[str]:
    """Whether the numbers are exact, and what to know about them, a sentence or two each."""
    answer = figures.answer
    told = ["These numbers are exact." if answer["exact"] else "These numbers are not exact."]
    told += [f"The rollups are behind: {_spans(answer['stale'])}."] if answer.get("stale") else []
    if answer.get("missing"):
        told.append(f"What is old is removed, and could not be told here: {_spans(answer['missing'])}.")
    if not answer["complete"]:
        told.append(
            "Events that were accepted just now are not stored yet, and are not in them; make the report again."
        )
    if not figures.over:
        told.append("The period is not over: it is told up to now, and compared with as much of the one before.")
    if any(section["estimates"] for section in answer["data"].values()):
        told.append("≈ marks estimates: quantiles within 1 %, unique counts above 128 within 1.6 %.")
    return told


def about(figures: Figures) -> list[str]:
    """Of when the numbers are, what they are compared with and what they were read from, a sentence each."""
    answer, query = figures.answer, figures.answer["query"]
    before = figures.period.before.title
    compared = before if figures.over else f"as much of {before.replace('Week', 'week')}"
    start, end, now = (_moment(each, query) for each in (query["start_date"], query["end_date"], answer["as_of"]))
    sources = [words for source, words in _SOURCES.items() if source.value in answer["source"].split("+")]
    read = f", read from {' and '.join(filter(None, [', '.join(sources[:-1]), *sources[-1:]]))}" if sources else ""
    return [f"{start} to {end} ({query['time_zone']}), compared with {compared}.", f"As of {now}{read}."]


def _moment(text: str, query: Mapping[str, Any]) -> str:
    return f"{datetime.fromisoformat(text).astimezone(ZoneInfo(query['time_zone'])):%Y-%m-%d %H:%M}"


def _spans(spans: Sequence[Mapping[str, str]]) -> str:
    named_spans = [
        " to ".join(span[name][:16].replace("T", " ") for name in ("start_date", "end_date")) for span in spans
    ]
    more = len(spans) - _SPANS_MAX
    return "; ".join([*named_spans[:_SPANS_MAX], *([f"and {more} more"] if more > 0 else [])])
