"""From a plan to SQL: a piece for each source it reads, their states merged by window and group."""

from __future__ import annotations

from typing import Any, NamedTuple

from totalizer.catalog.quoting import quoted
from totalizer.query.choose import Part
from totalizer.query.filters import conditions_sql
from totalizer.query.plan import Period, Plan
from totalizer.query.sources import Source
from totalizer.store.ddl import measure_states
from totalizer.window import Grain


class Rows(NamedTuple):
    """The rows of one source that a part reads.

    Attributes:
        source: what is read.
        origin: SQL from FROM to the end of WHERE; the rows are called `r`.
        moment: SQL for when a row is.
    """

    source: Source
    origin: str
    moment: str


class PartCompiler:
    """Writes the SQL of one part over one range.

    Args:
        part: what is counted.
        period: the range.
        plan: where it comes from.
        shown: the range whose windows the rows are told in: that of the answer.
        organization_id: sent literally besides row security: the plan is the same, and a distributed engine needs it.
        prefix: of the names of its parameters and of its CTEs.
        parameters: gets its parameters.
    """

    def __init__(
        self,
        part: Part,
        period: Period,
        plan: Plan,
        shown: Period,
        *,
        organization_id: str,
        prefix: str,
        parameters: dict[str, Any],
    ) -> None:
        self._part, self._period, self._plan, self._shown = part, period, plan, shown
        self._prefix, self._parameters = prefix, parameters
        parameters["organization"], parameters["zone"] = organization_id, period.zone.key
        self._conditions = conditions_sql(part.filters, part.event_type, parameters, prefix)
        self._states = [state for measure in part.measures for state in measure_states(measure, part.event_type)]
        if period.edges is not None:
            parameters[f"{prefix}_edges"] = period.edges.moments
        if shown.edges is not None:
            parameters["edges"] = shown.edges.moments
        parameters["first_window"] = shown.start

    def rows(self) -> list[Rows]:
        """The rows it reads, by source; those of events at least."""
        sources = self._plan.pieces.sources or [Source.EVENTS]
        return [self._by_day(source) if source.by_day else self._by_moment(source) for source in sources]

    def ctes(self, groups: tuple[str, ...]) -> list[str]:
        """The CTEs that end with `<prefix>_totals`: merged states by window and group."""
        prefix = self._prefix
        keys = ", ".join(["window_start", *map(quoted, groups)])
        merged = "".join(f", {state.from_states} AS {quoted(state.column)}" for state in self._states)
        pieces = "\n    UNION ALL\n".join(self._piece(rows, groups) for rows in self.rows())
        found = [f"{prefix}_pieces AS (\n{pieces}\n)"]
        # What lies outside the windows of a calendar is in none.
        source, condition = f"{prefix}_pieces", "" if self._period.edges is None else " WHERE window_start IS NOT NULL"
        if days := self._period.windows.rolling_days:
            found += [
                f"{prefix}_daily AS (SELECT {keys}{merged} FROM {source} GROUP BY {keys})",
                f"{prefix}_rolled AS (SELECT {self._rolled(days, groups)})",
            ]
            source = f"{prefix}_rolled"
        return [*found, f"{prefix}_totals AS (SELECT {keys}{merged} FROM {source}{condition} GROUP BY {keys})"]

    def _piece(self, rows: Rows, groups: tuple[str, ...]) -> str:
        of_events = rows.source is Source.EVENTS
        columns = [f"{self._window(rows.moment)} AS window_start", *(f"r.{quoted(name)}" for name in groups)]
        for state in self._states:
            value = state.from_events if of_events else f"r.{quoted(state.column)}"
            columns.append(f"{value} AS {quoted(state.column)}")
        grouped = " GROUP BY " + ", ".join(map(str, range(1, 2 + len(groups)))) if of_events else ""
        return f"    SELECT {', '.join(columns)}\n    {rows.origin}{grouped}"

    def _by_day(self, source: Source) -> Rows:
        days = self._plan.pieces.days[source]
        key = f"r.{quoted(source.key)}"
        bounds = self._bounds(source, "date", [part.first for part in days], [part.end for part in days])
        return Rows(source, self._read(source, bounds, key), f"({key}::timestamp AT TIME ZONE %(zone)s)")

    def _by_moment(self, source: Source) -> Rows:
        spans = self._plan.pieces.spans.get(source, [])
        of_events = source is Source.EVENTS
        key = f"r.{quoted(self._part.event_type.time_field if of_events else source.key)}"
        bounds = self._bounds(source, "timestamptz", [part.start for part in spans], [part.end for part in spans])
        range_of_all = ""
        if of_events and spans:
            # Leaves the partitions outside the range out of the plan.
            name = f"{self._prefix}_events"
            self._parameters |= {f"{name}_from": spans[0].start, f"{name}_to": spans[-1].end}
            range_of_all = f" AND {key} >= %({name}_from)s::timestamptz AND {key} < %({name}_to)s::timestamptz"
        return Rows(source, self._read(source, bounds, key, range_of_all), key)

    def _read(self, source: Source, bounds: str, key: str, more: str = "") -> str:
        """SQL from FROM to the end of WHERE: each piece by the index, for which `OFFSET 0` leaves no choice.

        Where it has one, the planner may read all rows of the organisation and hold each against every piece.
        """
        return (
            f"FROM {bounds}, LATERAL (SELECT * FROM {self._table(source)} r "
            f"WHERE r.organization_id = %(organization)s::uuid AND {key} >= _first AND {key} < _last{more} OFFSET 0"
            f") AS r WHERE true{self._conditions}"
        )

    def _table(self, source: Source) -> str:
        if source is Source.EVENTS:
            return f"events.{quoted(self._part.event_type.name)}"
        return f"analytics.{quoted(source.table(self._part.rollup))}"

    def _bounds(self, source: Source, kind: str, firsts: list[Any], lasts: list[Any]) -> str:
        name = f"{self._prefix}_{source.value}"
        self._parameters |= {f"{name}_firsts": firsts, f"{name}_lasts": lasts}
        return f"unnest(%({name}_firsts)s::{kind}[], %({name}_lasts)s::{kind}[]) AS piece (_first, _last)"

    def _window(self, moment: str) -> str:
        """SQL for the start of the answer's window that holds a moment."""
        windows, period, shown = self._period.windows, self._period, self._shown
        if windows.grain is None:
            return "%(first_window)s::timestamptz"
        if period.edges is not None:
            # The n-th window of a range that is compared is told as the n-th of the answer's.
            edges = f"{self._prefix}_edges" if windows.rolling_days else "edges"
            number = f"width_bucket({moment}, %({self._prefix}_edges)s::timestamptz[])"
            return f"(%({edges})s::timestamptz[])[{number}]"
        shift = shown.start - period.start
        start = clock_window(period, moment)
        if not shift:
            return start
        self._parameters[f"{self._prefix}_shift"] = shift
        return clock_window(shown, f"({start} + %({self._prefix}_shift)s::interval)")

    def _rolled(self, days: int, groups: tuple[str, ...]) -> str:
        """Each day's states in every window that holds it."""
        self._parameters |= {"rolling": days - 1}
        own, edges = f"%({self._prefix}_edges)s::timestamptz[]", "%(edges)s::timestamptz[]"
        columns = "".join(f", {quoted(name)}" for name in (*groups, *(state.column for state in self._states)))
        return (
            f"({edges})[number] AS window_start{columns} FROM {self._prefix}_daily, "
            f"LATERAL width_bucket(window_start, {own}) AS day, "
            f"LATERAL generate_series(greatest(day, %(rolling)s::int + 1), "
            f"least(day + %(rolling)s::int, cardinality({own}) - 1)) AS number"
        )


def clock_window(period: Period, moment: str) -> str:
    """SQL for the start of the period's window of a clock that holds a moment."""
    grain = period.windows.grain
    assert grain is not None
    if grain is Grain.HOUR and not period.whole_hours:
        return f"date_trunc('hour', {moment}, %(zone)s)"
    return f"date_bin('{grain.minutes} minutes', {moment}, 'epoch'::timestamptz)"
