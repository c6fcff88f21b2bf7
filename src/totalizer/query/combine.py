"""The numbers of all parts side by side, in their windows, filled, in order, a page of them: one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from totalizer.catalog import FieldType, Measure
from totalizer.catalog.measures import estimated, shown
from totalizer.catalog.quoting import quoted
from totalizer.query.choose import Answered, Choice
from totalizer.query.compile import PartCompiler, clock_window
from totalizer.query.plan import Period, Plan
from totalizer.query.question import WINDOW, Fill, Query

#: Digits after the point that averages and shares are shown with.
AVERAGE_DIGITS = 6
#: Kinds of measure whose number is a value of their field.
VALUED = ("min", "max", "first", "latest")


class Statement(NamedTuple):
    """SQL and its parameters.

    Its rows are: start of the window, groups, numbers, the same of the range that is compared, which of the numbers are
    estimates (null: none), the rest of the sort key. Decimals have no needless digits.
    """

    sql: str
    parameters: dict[str, Any]


class Work(NamedTuple):
    """A query and where everything in it comes from.

    Attributes:
        query: the question.
        choice: its rollups.
        periods: the range, and that which is compared, if any.
        plans: for each period, the plan of each part.
    """

    query: Query
    choice: Choice
    periods: Sequence[Period]
    plans: Sequence[Sequence[Plan]]


class Page(NamedTuple):
    """Which rows of the answer.

    Attributes:
        after: sort key of the last row of the page before, in order of windows.
        offset: rows before the page, in any other order.
    """

    after: Sequence[Any] | None = None
    offset: int = 0


def compilers(work: Work, organization_id: str, parameters: dict[str, Any]) -> list[list[PartCompiler]]:
    """What writes the SQL of each part, by period."""
    return [
        [
            PartCompiler(
                part, period, plan, work.periods[0],
                organization_id=organization_id, prefix=f"{'pq'[at]}{number}", parameters=parameters,
            )
            for number, (part, plan) in enumerate(zip(work.choice.parts, plans, strict=True))
        ]
        for at, (period, plans) in enumerate(zip(work.periods, work.plans, strict=True))
    ]  # fmt: skip


def compile_work(work: Work, organization_id: str, page: Page) -> Statement:
    """The statement that answers a query."""
    query = work.query
    parameters: dict[str, Any] = {"limit": query.limit + 1, "offset": page.offset}
    ctes = []
    names = []
    for at, row in enumerate(compilers(work, organization_id, parameters)):
        for number, compiler in enumerate(row):
            ctes += compiler.ctes(query.group_by)
            names.append(f"{'pq'[at]}{number}")
            ctes.append(_values(work, names[-1], number))
    ctes.append(f"answers AS (SELECT {_answer_columns(work, names)} {_joined(query, names)})")
    source = "answers"
    if query.fill is not Fill.NONE:
        ctes += _filled(work, parameters)
        source = "filled"
    keys = ["window_start", *_group_keys(query)]
    order = _order(query, work.choice)
    numbers = [f"a{number}" for number in range(len(work.choice.answers) * len(work.periods))]
    columns = ", ".join(["window_start", *map(quoted, query.group_by), *numbers, "estimates", *_named_keys(keys[1:])])
    return Statement(
        f"WITH {', '.join(ctes)}\nSELECT {columns} FROM {source}{_after(query, keys, page.after, parameters)}\n"
        f"ORDER BY {', '.join(order)} LIMIT %(limit)s OFFSET %(offset)s",
        parameters,
    )


def _values(work: Work, name: str, part: int) -> str:
    """A part's numbers by window and group, with a key of the group that equals itself even where it is null."""
    measures = ""
    for measure in work.choice.parts[part].measures:
        measures += f", {shown(measure)} AS {_column(name, measure)}"
        if (condition := estimated(measure)) is not None:
            measures += f", {condition} AS {_column(name, measure, 'estimated')}"
    groups = "".join(f", {quoted(group)}" for group in work.query.group_by)
    key = f"jsonb_build_array({', '.join(map(quoted, work.query.group_by))})" if groups else "'[]'::jsonb"
    return f"{name}_values AS (SELECT window_start, {key} AS key{groups}{measures} FROM {name}_totals)"


def _column(name: str, measure: Measure, what: str = "shown") -> str:
    return quoted(f"{name}_{what}_{measure.name}")


def _answer_columns(work: Work, names: Sequence[str]) -> str:
    columns = ["window_start", "key"]
    for group in work.query.group_by:
        there = ", ".join(f"{name}_values.{quoted(group)}" + _cast(work, group) for name in names)
        columns.append(f"coalesce({there}) AS {quoted(group)}")
    count = len(work.choice.answers)
    for period in range(len(work.periods)):
        for number, answer in enumerate(work.choice.answers):
            columns.append(f"{_number(work, answer, 'pq'[period])} AS a{period * count + number}")
    conditions = [
        _is_estimate(answer, period) for answer in work.choice.answers for period in "pq"[: len(work.periods)]
    ]
    estimates = "NULL" if set(conditions) == {"false"} else f"ARRAY[{', '.join(conditions)}]"
    return ", ".join([*columns, f"{estimates}::boolean[] AS estimates"])


def _is_estimate(answer: Answered, period: str) -> str:
    parts = [(answer.measure, answer.part), *([answer.over] if answer.over else [])]
    conditions = [
        _column(f"{period}{part}", measure, "estimated") for measure, part in parts if estimated(measure) is not None
    ]
    return " OR ".join(conditions) or "false"


def _cast(work: Work, group: str) -> str:
    """Event types may hold a dimension of one name as different things: then it is told as text."""
    kinds = {field.type for part in work.choice.parts if (field := part.event_type.field(group))}
    return "::text" if len(kinds) > 1 else ""


def _number(work: Work, answer: Answered, period: str) -> str:
    measure, value = answer.measure, _column(f"{period}{answer.part}", answer.measure)
    if answer.over is not None:
        over, part = answer.over
        # No events at all have no share; none of some are a share of zero.
        value = f"coalesce({value}, 0)::numeric / nullif({_column(f'{period}{part}', over)}, 0)"
    if answer.over is not None or measure.kind == "avg":
        # Only averages and shares are rounded: they rarely end. A sum is told to its last digit.
        return f"trim_scale(round({value}, {AVERAGE_DIGITS}))"
    field = work.choice.parts[answer.part].event_type.field(measure.field or "")
    is_decimal = field is not None and field.type is FieldType.DECIMAL
    return f"trim_scale({value})" if measure.kind == "sum" or (measure.kind in VALUED and is_decimal) else value


def _joined(query: Query, names: Sequence[str]) -> str:
    first, *others = (f"{name}_values" for name in names)
    return f"FROM {first}" + "".join(f" FULL JOIN {other} USING (window_start, key)" for other in others)


def _filled(work: Work, parameters: dict[str, Any]) -> list[str]:
    """CTEs that give every group of the answer a row in every window."""
    query, groups = work.query, [quoted(group) for group in work.query.group_by]
    numbers = []
    for number in range(len(work.choice.answers) * len(work.periods)):
        zero = query.fill is Fill.ZERO and work.choice.answers[number % len(work.choice.answers)].additive
        numbers.append(f"coalesce(a{number}, 0) AS a{number}" if zero else f"a{number}")
    kinds = f"SELECT DISTINCT key{''.join(f', {group}' for group in groups)} FROM answers"
    if not groups:
        kinds = "SELECT '[]'::jsonb AS key"
    columns = ", ".join(["window_start", *(f"kinds.{group}" for group in groups), *numbers, "estimates"])
    return [
        f"windows AS ({windows_sql(work.periods[0], parameters)})",
        f"kinds AS ({kinds})",
        f"filled AS (SELECT {columns} FROM windows CROSS JOIN kinds LEFT JOIN answers USING (window_start, key))",
    ]


def windows_sql(period: Period, parameters: dict[str, Any]) -> str:
    """SELECT of the start of every window of a range."""
    grain, parameters["query_end"] = period.windows.grain, period.end
    if grain is None:
        return "SELECT %(first_window)s::timestamptz AS window_start"
    if period.edges is not None:
        # The last edge is the end of the last window; days before the range only count in rolling windows.
        before = max(period.windows.rolling_days - 1, 0)
        parameters["window_starts"] = period.edges.moments[before:-1]
        return "SELECT unnest(%(window_starts)s::timestamptz[]) AS window_start"
    # A zone's hours may begin at any quarter.
    step = min(grain.minutes, 15)
    series = (
        f"generate_series({clock_window(period, '%(first_window)s::timestamptz')}, "
        f"%(query_end)s::timestamptz - interval '1 microsecond', '{step} minutes')"
    )
    return f"SELECT DISTINCT {clock_window(period, 'moment')} AS window_start FROM {series} AS moment"


def _group_keys(query: Query) -> list[str]:
    """Expressions that sort groups, none ever null, so that a cursor can compare with them."""
    keys = []
    for name in query.group_by:
        keys += [f"({quoted(name)} IS NULL)", f"""coalesce({quoted(name)}::text, '') COLLATE "C\""""]
    return keys


def _named_keys(keys: Sequence[str]) -> list[str]:
    return [f"{key} AS key_{number}" for number, key in enumerate(keys)]


def _order(query: Query, choice: Choice) -> list[str]:
    places: Mapping[str, str] = {answer.name: f"a{number}" for number, answer in enumerate(choice.answers)}
    order = [
        "window_start" + (" DESC" if each.descending else "")
        if each.by == WINDOW
        else f"{places[each.by]}{' DESC' if each.descending else ''} NULLS LAST"
        for each in query.order
    ]
    if all(each.by != WINDOW for each in query.order):
        order.append("window_start")
    return [*order, *_group_keys(query)]


def _after(query: Query, keys: Sequence[str], after: Sequence[Any] | None, parameters: dict[str, Any]) -> str:
    """The condition that a row stands behind another, in order of windows."""
    if after is None:
        return ""
    types = ["timestamptz", *(("boolean", "text")[number % 2] for number in range(len(keys) - 1))]
    values = []
    for number, (value, kind) in enumerate(zip(after, types, strict=True)):
        parameters[f"after_{number}"] = value
        values.append(f"%(after_{number})s::{kind}")
    if not query.latest_first:
        return f" WHERE ({', '.join(keys)}) > ({', '.join(values)})"
    groups = f" OR (window_start = {values[0]} AND ({', '.join(keys[1:])}) > ({', '.join(values[1:])}))"
    return f" WHERE window_start < {values[0]}{groups if len(keys) > 1 else ''}"
