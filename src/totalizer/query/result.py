"""The answer: rows, and how fresh, how exact and from where they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from totalizer.query.cursor import encode_cursor
from totalizer.query.parse import TOTAL, Query
from totalizer.query.plan import Plan

#: Digits after the point that an average is shown with.
AVERAGE_DIGITS = 6
#: More digits than a sum can have, so that nothing is rounded on the way; Python's own context keeps 28.
_EXACT = Context(prec=2000)


def shape_answer(
    query: Query, plan: Plan, rows: Sequence[Sequence[Any]], as_of: datetime, *, complete: bool
) -> dict[str, Any]:
    """The answer as it is sent.

    Args:
        query: the question.
        plan: where the rows came from.
        rows: window, groups, measures, sort key; one more than the limit if there are more.
        as_of: when the snapshot was taken.
        complete: True if every event acknowledged before the snapshot was in it.
    """
    page = rows[: query.limit]
    names = [*query.group_by, *(measure.name for measure in plan.measures)]
    # Only averages are rounded: they rarely end. A sum is told to its last digit.
    digits = {measure.name: AVERAGE_DIGITS for measure in plan.measures if measure.kind == "avg"}
    data = []
    for row in page:
        window, values = row[0], row[1 : 1 + len(names)]
        data.append(
            {"window_start": window.astimezone(plan.zone).isoformat()}
            | {name: _shown(value, digits.get(name)) for name, value in zip(names, values, strict=True)}
        )
    next_cursor = None
    if len(rows) > query.limit:
        key = page[-1][1 + len(names) :]
        next_cursor = encode_cursor(query, [key[0].isoformat(), *key[1:]])
    return {
        "data": data,
        "next_cursor": next_cursor,
        "as_of": as_of.isoformat(),
        # Buckets that are behind were read from their events, so the answer is exact whatever the rollups' lag.
        "exact": True,
        "complete": complete,
        "source": plan.source,
        "dirty_buckets": plan.dirty_buckets,
        "query": {
            "event_type": query.event_type,
            "rollup": plan.rollup.name,
            "start_date": query.start.astimezone(plan.zone).isoformat(),
            "end_date": query.end.astimezone(plan.zone).isoformat(),
            "aggregation_window": query.grain.value if query.grain else TOTAL,
            "time_zone": plan.zone.key,
            "group_by": list(query.group_by),
            "filters": {name: list(values) for name, values in query.filters.items()},
            "measures": [measure.name for measure in plan.measures],
            "limit": query.limit,
        },
    }


def _shown(value: Any, digits: int | None) -> Any:
    if isinstance(value, Decimal):
        return _plain(value if digits is None else _rounded(value, digits))
    return str(value) if isinstance(value, UUID) else value


def _rounded(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits), context=_EXACT)


def _plain(value: Decimal) -> int | Decimal:
    """A whole number where it is one, else without trailing zeros; every other digit is kept."""
    whole = value.to_integral_value(context=_EXACT)
    return int(whole) if whole == value else value.normalize(_EXACT)
