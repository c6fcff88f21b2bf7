"""The answer: rows, and how fresh, how exact and from where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from totalizer.query.combine import Work
from totalizer.query.plan import Period
from totalizer.query.question import Filter, Metric
from totalizer.query.sources import Source
from totalizer.query.spans import Span, length_of
from totalizer.query.window_names import written
from totalizer.window import BASE

#: Stale spans that an answer names; the rest are joined to the last.
STALE_SPANS_MAX = 100
#: More digits than a sum can have, so that nothing is rounded on the way; Python's own context keeps 28.
_EXACT = Context(prec=2000)
#: What JSON has too, looked at first: most values are of these types.
_AS_IT_IS = frozenset({int, str, bool, type(None)})


def shape_rows(work: Work, rows: Sequence[Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """The rows of an answer as they are sent.

    Args:
        work: what they answer.
        rows: as `combine.Statement` has them.
    """
    zone = work.periods[0].zone
    answers = [answer.name for answer in work.choice.answers]
    columns = ["window_start", *work.query.group_by, *answers]
    before = len(columns)
    windows: dict[datetime, str] = {}
    for row in rows:
        if (window := windows.get(row[0])) is None:
            window = windows[row[0]] = row[0].astimezone(zone).isoformat()
        shown = _members(columns, (window, *row[1:before]))
        if len(work.periods) > 1:
            previous = _members(answers, row[before : before + len(answers)])
            shown |= {"previous": previous, "change": _change({name: shown[name] for name in answers}, previous)}
        yield shown


def _members(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    shown = dict(zip(names, values, strict=True))
    for name, value in shown.items():
        if type(value) not in _AS_IT_IS:
            shown[name] = _shown(value)
    return shown


def _shown(value: Any) -> Any:
    """A value as JSON has it; decimals come without needless digits."""
    if type(value) is Decimal:
        return value if value.is_finite() else None
    return plain(value)


def _change(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """By how much each number has grown; null where there is nothing to compare."""
    change: dict[str, Any] = {}
    for name, value in now.items():
        pair = (value, before[name])
        numeric = all(isinstance(each, int | float | Decimal) and not isinstance(each, bool) for each in pair)
        change[name] = None
        if numeric and any(isinstance(each, float) for each in pair):
            change[name] = float(value) - float(before[name])
        elif numeric:
            change[name] = plain(_EXACT.subtract(Decimal(value), Decimal(before[name])))
    return change


def about(work: Work, rows: Sequence[Sequence[Any]], as_of: datetime) -> dict[str, Any]:
    """What stands beside the rows.

    Args:
        work: how they were found.
        rows: as `combine.Statement` has them.
        as_of: when the snapshot was taken.
    """
    plans = [plan for plans in work.plans for plan in plans]
    read = {source for plan in plans for source in plan.pieces.sources}
    stale = sorted({span for plan in plans for span in plan.stale})
    missing = sorted({span for plan in plans for span in plan.missing})
    told = {
        "as_of": as_of.isoformat(),
        # Buckets that are behind were read from their events, so the answer is exact whatever the rollups' lag.
        "exact": not stale and not missing,
        "source": "+".join(source.value for source in Source if source in read) or "none",
        "dirty_buckets": sum(round(length_of(plan.dirty) / BASE) for plan in plans),
        "estimates": _estimates(work, rows),
        "query": repeated(work),
    }
    for name, spans in (("stale", stale), ("missing", missing)):
        if spans:
            told[name] = [_range(span, work.periods[0]) for span in _few(spans)]
    return told


def _estimates(work: Work, rows: Sequence[Sequence[Any]]) -> list[str]:
    """The numbers of which some in these rows are estimates."""
    place, periods = 1 + len(work.query.group_by) + len(work.choice.answers) * len(work.periods), len(work.periods)
    found = {number // periods for row in rows for number, is_one in enumerate(row[place] or ()) if is_one}
    return [work.choice.answers[number].name for number in sorted(found)]


def repeated(work: Work) -> dict[str, Any]:
    """The query as it was understood."""
    query, period = work.query, work.periods[0]
    shown = {
        "event_type": work.choice.parts[0].event_type.name,
        "rollup": work.choice.parts[0].rollup.name,
        **_range(Span(query.start, query.end), period),
        **written(query.windows),
        "time_zone": period.zone.key,
        "group_by": list(query.group_by),
        "filters": _filters(query.filters),
        "measures": [answer.name for answer in work.choice.answers],
        "order": [("-" if order.descending else "") + order.by for order in query.order] or ["window"],
        "fill": query.fill.value,
        "limit": query.limit,
    }
    if query.metrics:
        shown["metrics"] = [_metric(work, metric) for metric in query.metrics]
    if query.compare is not None:
        shown["compare"] = _range(Span(*query.compare), period)
    return shown


def _metric(work: Work, metric: Metric) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": metric.name, "event_type": metric.event_type, "measure": metric.measure}
    parts = [
        part
        for part in work.choice.parts
        if part.event_type.name == metric.event_type and part.filters == (*work.query.filters, *metric.filters)
    ]
    shown["rollup"] = parts[0].rollup.name
    if metric.filters:
        shown["filters"] = _filters(metric.filters)
    if metric.over is not None:
        shown["over"] = _metric(work, metric.over)
    return shown


def _filters(filters: Sequence[Filter]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for each in filters:
        if each.op == "in":
            shown[each.field] = list(each.values)
        else:
            values = list(each.values) if each.op == "not" else each.values[0]
            kept = shown.get(each.field)
            shown[each.field] = {**({"in": kept} if isinstance(kept, list) else kept or {}), each.op: values}
    return shown


def _range(span: Span, period: Period) -> dict[str, str]:
    return {
        "start_date": span.start.astimezone(period.zone).isoformat(),
        "end_date": span.end.astimezone(period.zone).isoformat(),
    }


def _few(spans: list[Span]) -> list[Span]:
    if len(spans) <= STALE_SPANS_MAX:
        return spans
    return [*spans[: STALE_SPANS_MAX - 1], Span(spans[STALE_SPANS_MAX - 1].start, spans[-1].end)]


def is_exact(work: Work) -> bool:
    """True if nothing in it is told from a rollup that is behind, and nothing is missing."""
    return not any(plan.stale or plan.missing for plans in work.plans for plan in plans)


def plain(value: Any) -> Any:
    """A value as JSON has it: decimals without needless digits, ids as text."""
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, Decimal):
        return _plain(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _plain(value: Decimal) -> int | Decimal | None:
    """A whole number where it is one, else without trailing zeros; every other digit is kept."""
    if not value.is_finite():
        return None  # JSON has no such number
    whole = int(value)
    return whole if whole == value else value.normalize(_EXACT)
