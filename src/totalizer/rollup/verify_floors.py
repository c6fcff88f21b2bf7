"""The floors in the proof that the books balance: what was removed is accounted for, and what lies below is left out.

Below the raw floor events may be gone and late ones are added to the rollups without being stored, so events and
quarter hours are compared above it. Late events are added to every grain that is still kept, so the grains are compared
with each other as far down as the finer one is kept whole.
"""

from __future__ import annotations

from totalizer.catalog.levels import BASE, DAY, Level

#: The floor that decides whether all that a row was made from is still kept, by what it was made from.
_FLOORS = {None: "raw_floor", BASE.suffix: "base_floor", DAY.suffix: "day_floor"}


def floors_of_side(event_type: str) -> str:
    """SQL that joins the floors of each row's organisation to `side`, as `floors`: one hash join."""
    return (
        "LEFT JOIN (SELECT o.id AS owner, o.time_zone, f.raw_floor, f.base_floor, f.day_floor "
        f"FROM totalizer.organizations o CROSS JOIN LATERAL totalizer.floors_of('{event_type}', o.id) f) AS floors "
        "ON floors.owner = side.organization_id"
    )


def source_kept(level: Level) -> str:
    """SQL condition: all that a row of `side` was made from is still kept."""
    starts = f"side.{level.key}"
    if level.local and level.source != DAY.suffix:
        starts = f"({starts}::timestamp AT TIME ZONE floors.time_zone)"
    return f"(floors.owner IS NULL OR {starts} >= floors.{_FLOORS[level.source]})"


#: SQL of events that are in no event table though they were loaded, or were removed from one: by organisation.
ACCOUNTED_FOR = """
    SELECT organization_id, sum(events)::bigint AS events FROM (
        SELECT organization_id, count(*) AS events FROM totalizer.late_events WHERE event_type = %(type)s GROUP BY 1
        UNION ALL
        SELECT organization_id, sum(events) FROM totalizer.removed_events WHERE event_type = %(type)s GROUP BY 1
    ) AS elsewhere GROUP BY 1"""
