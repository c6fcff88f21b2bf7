"""How an answer was found, and why that way."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection

from totalizer.catalog import Catalog
from totalizer.query.choose import Part
from totalizer.query.combine import Statement, Work, compilers
from totalizer.query.plan import Period, Plan
from totalizer.query.sources import Source
from totalizer.query.spans import length_of
from totalizer.window import BASE, Grain

_WHY = {
    Source.MONTH: "whole months of the organisation's zone without a mark",
    Source.WEEK: "whole weeks of the organisation's zone without a mark",
    Source.DAY: "whole days of the organisation's zone without a mark",
    Source.HOUR: "whole UTC hours within one window without a mark",
    Source.BASE: "whole quarters of an hour without a mark",
    Source.MINUTE: "whole minutes that are still kept, without a mark",
    Source.EVENTS: "marked buckets, and edges that no stored bucket fits",
}


async def explained(
    connection: AsyncConnection[Any], catalog: Catalog, work: Work, organization_id: str, statement: Statement
) -> dict[str, Any]:
    """The explanation of an answer; reads as many rows again, to count them.

    Args:
        connection: in the answer's snapshot.
        catalog: to tell what else there was to choose from.
        work: how the answer was found.
        organization_id: whose.
        statement: that found it.
    """
    parameters: dict[str, Any] = {}
    parts = []
    for period, plans, row in zip(work.periods, work.plans, compilers(work, organization_id, parameters), strict=True):
        for part, plan, compiler in zip(work.choice.parts, plans, row, strict=True):
            counts = {}
            for rows in compiler.rows():
                cursor = await connection.execute(f"SELECT count(*) {rows.origin}".encode(), parameters)
                found = await cursor.fetchone()
                assert found is not None
                counts[rows.source] = found[0]
            parts.append(_part(catalog, part, period, plan, counts))
    return {"parts": parts, "statement": statement.sql}


def _part(catalog: Catalog, part: Part, period: Period, plan: Plan, counts: dict[Source, int]) -> dict[str, Any]:
    others = [rollup.name for rollup in catalog.rollups_of(part.event_type.name) if rollup != part.rollup]
    return {
        "event_type": part.event_type.name,
        "rollup": part.rollup.name,
        "why": "has the dimensions and measures asked for, with the fewest dimensions" if others else "the only one",
        "not_chosen": others,
        "start_date": period.start.astimezone(period.zone).isoformat(),
        "end_date": period.end.astimezone(period.zone).isoformat(),
        "dirty_buckets": round(length_of(plan.dirty) / BASE),
        "stale": bool(plan.stale),
        "notes": _notes(period),
        "sources": [
            {"source": source.value, "why": _WHY[source], "pieces": _pieces(plan, source), "rows": rows}
            for source, rows in counts.items()
        ],
    }


def _pieces(plan: Plan, source: Source) -> int:
    return len(plan.pieces.days.get(source, []) if source.by_day else plan.pieces.spans.get(source, []))


def _notes(period: Period) -> list[str]:
    notes = []
    if period.windows.days_fit and period.days_of is None:
        notes.append("days, weeks and months are kept in the organisation's zone: for another they are put together")
    if period.windows.grain is Grain.HOUR and not period.whole_hours:
        notes.append("hours are kept in UTC: this zone's hours begin at other times and are put together of quarters")
    if period.windows.grain in (Grain.MINUTE, Grain.FIVE):
        notes.append("windows shorter than 15m are put together of minutes, where they are kept, and else of events")
    return notes
