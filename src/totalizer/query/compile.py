"""From a plan to one SQL statement: a piece for each source, their states merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from totalizer.catalog import FieldType
from totalizer.catalog.measures import shown
from totalizer.catalog.quoting import quoted
from totalizer.query.parse import Query
from totalizer.query.plan import Plan
from totalizer.store.ddl import measure_states
from totalizer.window import Grain


class Statement(NamedTuple):
    """SQL and its parameters."""

    sql: str
    parameters: dict[str, Any]


def compile_plan(plan: Plan, query: Query, organization_id: str, after: Sequence[Any] | None) -> Statement:
    """The statement that answers a query: a row for each window and group, in their order.

    Args:
        plan: where from.
        query: the question.
        organization_id: sent literally besides row security: the plan is the same, and a distributed engine needs it.
        after: sort key of the last row of the page before.
    """
    parameters: dict[str, Any] = {
        "organization": organization_id, "zone": plan.zone.key, "limit": query.limit + 1,
        "query_start": query.start,
    }  # fmt: skip
    conditions = _filters(plan, query, parameters)
    pieces = [
        piece
        for piece in (
            _days(plan, query, conditions, parameters),
            _base(plan, query, conditions, parameters),
            _raw(plan, query, conditions, parameters),
        )
        if piece
    ]
    states = [state for measure in plan.measures for state in measure_states(measure, plan.event_type)]
    groups = [quoted(name) for name in query.group_by]
    keys = ", ".join(["window_start", *groups])
    merged = ", ".join(f"{state.from_states} AS {quoted(state.column)}" for state in states)
    answers = ", ".join(f"{shown(measure)} AS {quoted(measure.name)}" for measure in plan.measures)
    order = _order(query)
    union = "\n    UNION ALL\n".join(pieces)
    return Statement(
        f"""WITH pieces AS (
{union}
), totals AS (
    SELECT {keys}, {merged} FROM pieces GROUP BY {keys}
)
SELECT {keys}, {answers}{"".join(f", {key} AS key_{number}" for number, key in enumerate(order))}
FROM totals {_after(order, after, parameters)}
ORDER BY {", ".join(order)} LIMIT %(limit)s""",
        parameters,
    )


def _window(query: Query, moment: str) -> str:
    """SQL for the start of the window that holds a moment."""
    if query.grain is None:
        return "%(query_start)s::timestamptz"
    if query.grain is Grain.BASE:
        return f"date_bin('15 minutes', {moment}, 'epoch'::timestamptz)"
    return f"date_trunc('{query.grain.unit}', {moment}, %(zone)s)"


def _columns(plan: Plan, query: Query, window: str, alias: str, *, of_events: bool) -> str:
    columns = [f"{window} AS window_start", *(f"{alias}.{quoted(name)}" for name in query.group_by)]
    for measure in plan.measures:
        for state in measure_states(measure, plan.event_type):
            expression = state.from_events if of_events else f"{alias}.{quoted(state.column)}"
            columns.append(f"{expression} AS {quoted(state.column)}")
    return ", ".join(columns)


def _days(plan: Plan, query: Query, conditions: str, parameters: dict[str, Any]) -> str:
    if not plan.days:
        return ""
    parameters["day_firsts"] = [days.first for days in plan.days]
    parameters["day_ends"] = [days.end for days in plan.days]
    window = _window(query, "(r.day::timestamp AT TIME ZONE %(zone)s)")
    return f"""    SELECT {_columns(plan, query, window, "r", of_events=False)}
    FROM unnest(%(day_firsts)s::date[], %(day_ends)s::date[]) AS piece (first, last)
    JOIN analytics.{quoted(plan.rollup.day_table)} r ON r.day >= piece.first AND r.day < piece.last
    WHERE r.organization_id = %(organization)s::uuid{conditions}"""


def _base(plan: Plan, query: Query, conditions: str, parameters: dict[str, Any]) -> str:
    if not plan.base:
        return ""
    parameters["base_starts"] = [span.start for span in plan.base]
    parameters["base_ends"] = [span.end for span in plan.base]
    return f"""    SELECT {_columns(plan, query, _window(query, "r.bucket"), "r", of_events=False)}
    FROM unnest(%(base_starts)s::timestamptz[], %(base_ends)s::timestamptz[]) AS piece (starts, ends)
    JOIN analytics.{quoted(plan.rollup.base_table)} r ON r.bucket >= piece.starts AND r.bucket < piece.ends
    WHERE r.organization_id = %(organization)s::uuid{conditions}"""


def _raw(plan: Plan, query: Query, conditions: str, parameters: dict[str, Any]) -> str:
    # With no other piece an empty one still gives the statement its columns.
    if not plan.raw and (plan.days or plan.base):
        return ""
    parameters["raw_starts"] = [span.start for span in plan.raw]
    parameters["raw_ends"] = [span.end for span in plan.raw]
    time = f"r.{quoted(plan.event_type.time_field)}"
    keys = ", ".join(["1", *(str(number) for number in range(2, 2 + len(query.group_by)))])
    return f"""    SELECT {_columns(plan, query, _window(query, time), "r", of_events=True)}
    FROM unnest(%(raw_starts)s::timestamptz[], %(raw_ends)s::timestamptz[]) AS piece (starts, ends)
    JOIN events.{quoted(plan.event_type.name)} r ON {time} >= piece.starts AND {time} < piece.ends
    WHERE r.organization_id = %(organization)s::uuid{conditions}
    GROUP BY {keys}"""


def _filters(plan: Plan, query: Query, parameters: dict[str, Any]) -> str:
    conditions = ""
    for number, (name, values) in enumerate(query.filters.items()):
        field = plan.event_type.field(name)
        kind = field.type if field else FieldType.TEXT
        parameters[f"filter_{number}"] = list(values)
        conditions += f" AND r.{quoted(name)} = ANY (%(filter_{number})s::{kind.column_type}[])"
    return conditions


def _order(query: Query) -> list[str]:
    """Expressions that sort an answer's rows, each never null, so that a cursor can compare with them."""
    order = ["window_start"]
    for name in query.group_by:
        order += [f"({quoted(name)} IS NULL)", f"""coalesce({quoted(name)}::text, '') COLLATE "C\""""]
    return order


def _after(order: list[str], after: Sequence[Any] | None, parameters: dict[str, Any]) -> str:
    if after is None:
        return ""
    types = ["timestamptz", *(("boolean", "text")[number % 2] for number in range(len(order) - 1))]
    values = []
    for number, (value, kind) in enumerate(zip(after, types, strict=True)):
        parameters[f"after_{number}"] = value
        values.append(f"%(after_{number})s::{kind}")
    return f"WHERE ({', '.join(order)}) > ({', '.join(values)})"
