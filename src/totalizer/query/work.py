"""From a question to the work that answers it, in one snapshot: rollups, windows, marks, plans."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from psycopg import AsyncConnection

from totalizer.catalog import Catalog
from totalizer.query.choose import Part, choose
from totalizer.query.combine import Work
from totalizer.query.cost import QueryLimits, estimated_events
from totalizer.query.filters import wrong
from totalizer.query.plan import Floors, Marks, Period, Plan, clean_spans, days_to_look_up, make_plan
from totalizer.query.question import Query
from totalizer.query.sources import Source
from totalizer.query.spans import Span
from totalizer.query.state import State
from totalizer.query.windows import Edges, trimmed
from totalizer.window import Grain, base_bucket, ceil_base

_DAY = timedelta(days=1)


class Planner:
    """Plans the queries of one snapshot.

    Args:
        connection: in the snapshot.
        catalog: what can be asked about.
        organization_id: whose.
        state: of the snapshot.
        limits: what a query may cost.
    """

    def __init__(
        self,
        connection: AsyncConnection[Any],
        catalog: Catalog,
        organization_id: str,
        state: State,
        limits: QueryLimits,
    ) -> None:
        self._connection, self._catalog = connection, catalog
        self._organization_id, self._state, self._limits = organization_id, state, limits
        # What the snapshot has said already: a dashboard asks about each event type and range several times.
        self._known_floors: dict[str, Floors] = {}
        self._known_marks: dict[tuple[str, datetime, datetime], Marks] = {}
        self._known_starts: dict[str, dict[date, datetime]] = {}

    async def plan(self, query: Query) -> Work:
        """The work that answers a query.

        Raises:
            Refused: no rollup answers it, or it would cost too much.
        """
        choice = choose(self._catalog, query)
        ranges = [(query.start, query.end)]
        if query.compare is not None:
            start, end = query.compare
            # What has no window to stand beside is not read.
            beside = start + (query.end - query.start)
            ranges.append((start, end if query.windows.days_fit else min(end, beside)))
        for start, end in ranges:
            self._limits.check_windows(query.windows, start, end)
        periods = [await self._period(query, start, end) for start, end in ranges]
        read = [0]
        plans = [[await self._plan(query, part, period, read) for part in choice.parts] for period in periods]
        return Work(query, choice, periods, plans)

    async def _period(self, query: Query, start: datetime, end: datetime) -> Period:
        own_zone = ZoneInfo(self._state.own_zone)
        zone, windows = ZoneInfo(query.time_zone or self._state.own_zone), query.windows
        own = own_zone if zone.key == own_zone.key or windows.grain is None else None
        if windows.calendar:
            edges = await self._edges(query, start, end, zone)
            begins = edges.moments[0] if windows.rolling_days else start
            return Period(begins, end, windows, zone, edges, own)
        whole = windows.grain is Grain.HOUR and await self._whole_hours(start, end, zone)
        return Period(start, end, windows, zone, None, own, whole)

    async def _edges(self, query: Query, start: datetime, end: datetime, zone: ZoneInfo) -> Edges:
        first, last = start.astimezone(zone).date() - _DAY, end.astimezone(zone).date() + _DAY
        before = timedelta(days=max(query.windows.rolling_days - 1, 0))
        days = query.windows.firsts(first - before, last)
        starts = await self._day_starts(days, zone.key)
        edges = Edges(days, [starts[day] for day in days])
        shown = trimmed(edges, start, end)
        number = days.index(shown.days[0]) - before.days
        span = slice(number, days.index(shown.days[-1]) + 1)
        return Edges(edges.days[span], edges.moments[span]) if query.windows.rolling_days else shown

    async def _plan(self, query: Query, part: Part, period: Period, read: list[int]) -> Plan:
        floors = self._known_floors.get(part.event_type.name)
        if floors is None:
            floors = self._known_floors[part.event_type.name] = await self._floors(part)
        where = (part.rollup.name, period.start, period.end)
        marks = self._known_marks.get(where)
        if marks is None:
            marks = self._known_marks[where] = await self._marks(part, period, floors)
        plan = await self._planned(part, period, marks, floors, stale=False)
        count = await self._estimate(part, plan.pieces.spans.get(Source.EVENTS, []))
        most = self._limits.dirty_events
        # Some of them are read for other reasons: edges, and windows that no rollup has.
        if count > most and plan.dirty and not query.exact and await self._estimate(part, plan.dirty) > most:
            plan = await self._planned(part, period, marks, floors, stale=True)
            count = await self._estimate(part, plan.pieces.spans.get(Source.EVENTS, []))
        read[0] += count
        self._limits.check_events(read[0])
        if plan.missing and query.exact:
            gone = plan.missing[-1].end.astimezone(period.zone).isoformat()
            raise wrong("exact", "true", f"what this needs from before {gone} is removed; ask for longer windows")
        return plan

    async def _estimate(self, part: Part, spans: Sequence[Span]) -> int:
        return await estimated_events(self._connection, part.event_type, self._organization_id, spans)

    async def _planned(self, part: Part, period: Period, marks: Marks, floors: Floors, *, stale: bool) -> Plan:
        clean = clean_spans(period, [] if stale else marks.spans(period.end))
        days = days_to_look_up(period, clean, marks.days)
        starts = await self._day_starts(days, self._state.own_zone)
        kept = [source for source in Source if source is Source.EVENTS or source.value in part.rollup.levels]
        minutes_s, minutes_from = part.rollup.minutes_s, None
        if minutes_s is not None and Source.MINUTE in kept:
            minutes_from = ceil_base(self._state.now - timedelta(seconds=minutes_s))
        return make_plan(period, marks, starts, kept=kept, minutes_from=minutes_from, stale=stale, floors=floors)

    async def _floors(self, part: Part) -> Floors:
        """What is removed of the part's event type."""
        if not self._state.has_floors:
            return Floors()
        cursor = await self._connection.execute(
            "SELECT nullif(raw_floor, '-infinity'), nullif(base_floor, '-infinity'), nullif(hour_floor, '-infinity'), "
            "nullif(day_floor, '-infinity') FROM totalizer.floors_of(%s, %s::uuid)",
            [part.event_type.name, self._organization_id],
        )
        row = await cursor.fetchone()
        return Floors(*row) if row is not None else Floors()

    async def _marks(self, part: Part, period: Period, floors: Floors) -> Marks:
        """The marks in the period, of this rollup or of all of its event type.

        A bucket whose events are removed is not computed from them any more, nor must it be read from them.
        """
        cursor = await self._connection.execute(
            "SELECT bucket, bool_or(scope = 'events'), bool_or(scope = 'days') FROM totalizer.dirty_marks "
            "WHERE organization_id = %s AND event_type = %s AND bucket >= %s AND bucket < %s "
            "AND (rollup IS NULL OR rollup = %s) GROUP BY bucket ORDER BY bucket LIMIT %s",
            [
                self._organization_id, part.event_type.name, base_bucket(period.start), period.end, part.rollup.name,
                self._limits.dirty_buckets + 1,
            ],
        )  # fmt: skip
        rows = await cursor.fetchall()
        behind = rows.pop()[0] if len(rows) > self._limits.dirty_buckets else None
        floor = floors.events
        return Marks(
            [bucket for bucket, of_events, _ in rows if of_events and (floor is None or bucket >= floor)],
            [bucket for bucket, _, of_days in rows if of_days],
            behind,
        )

    async def _day_starts(self, days: Sequence[date], zone: str) -> dict[date, datetime]:
        """When each local day begins, by the database's own reckoning."""
        known = self._known_starts.setdefault(zone, {})
        if missing := [day for day in days if day not in known]:
            cursor = await self._connection.execute(
                "SELECT day, day::timestamp AT TIME ZONE %s FROM unnest(%s::date[]) AS day", [zone, missing]
            )
            known.update(await cursor.fetchall())
        return {day: known[day] for day in days}

    async def _whole_hours(self, start: datetime, end: datetime, zone: ZoneInfo) -> bool:
        """True if the zone's offset is whole hours all through a range, by the database's reckoning.

        Looked at once a day and at both ends: no zone changes its clock twice within a day.
        """
        if zone.key == "UTC":
            return True
        cursor = await self._connection.execute(
            "SELECT bool_and(extract(epoch FROM (moment AT TIME ZONE %(zone)s) - (moment AT TIME ZONE 'UTC'))::int "
            "%% 3600 = 0) FROM (SELECT generate_series(%(start)s::timestamptz, %(end)s, '1 day') UNION "
            "SELECT %(end)s::timestamptz) AS moments (moment)",
            {"zone": zone.key, "start": start, "end": end},
        )
        row = await cursor.fetchone()
        return row == (True,)
