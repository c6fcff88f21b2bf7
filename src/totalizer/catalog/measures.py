"""The kinds of measure: how each is computed from events, merged from buckets, and shown.

A measure keeps one or more state columns. States merge: the state of a day is made from the states of its buckets, so
`avg` keeps a sum and a count rather than an average. Sums are kept as `numeric` and so are exact; a floating-point
field is summed as the decimal number PostgreSQL prints for it, which does not depend on the order of the rows.

Every state is canonical: the same events give the same state in whatever order and by whatever steps they are merged,
so states can be compared. Those of `unique` and `quantiles` are text, made and merged by functions of schema totalizer
(see store/migrations/versions/0005_rollups.sql for their form and sources).
"""

from __future__ import annotations

from typing import NamedTuple

from totalizer.catalog.model import FieldType, Measure
from totalizer.catalog.quoting import quoted


class State(NamedTuple):
    """One stored column of a measure.

    Attributes:
        column: its name.
        type: its PostgreSQL type; `{field}` stands for the field's own.
        from_events: aggregate over event rows that makes it.
        from_states: aggregate over stored states that merges them.
    """

    column: str
    type: str
    from_events: str
    from_states: str


#: Kinds that need a numeric field, those that take any field that can be compared, and all.
NUMERIC_KINDS = ("sum", "min", "max", "avg", "quantiles")
VALUE_KINDS = ("first", "latest", "unique")
FIELD_KINDS = (*NUMERIC_KINDS, *VALUE_KINDS)
KINDS = ("count", *FIELD_KINDS)
#: Up to so many different values `unique` is exact; as in totalizer.merge_unique.
UNIQUE_EXACT_MAX = 128


def states(measure: Measure, field_type: FieldType | None, time_field: str) -> list[State]:
    """The columns a measure keeps.

    Args:
        measure: the measure.
        field_type: what its field holds; None for a count of events.
        time_field: the column that says when an event happened.
    """
    column = quoted(measure.name)
    if measure.kind == "count":
        return [State(measure.name, "bigint", "count(*)", f"sum({column})::bigint")]
    assert field_type is not None, f"measure {measure.name} has no field; the catalog was not checked"
    field = quoted(str(measure.field))
    if measure.kind in ("min", "max"):
        kind = measure.kind
        return [State(measure.name, field_type.column_type, f"{kind}({field})", f"{kind}({column})")]
    if measure.kind in ("first", "latest"):
        return _at_an_end(measure, field_type, quoted(time_field))
    if measure.kind == "unique":
        # Decimals that are equal may be written differently; the values of no other type can.
        value = f"trim_scale({field})" if field_type is FieldType.DECIMAL else field
        return [_text(measure, "merge_unique", f"totalizer.merge_unique(string_agg(DISTINCT md5({value}::text), ' '))")]
    if measure.kind == "quantiles":
        index = f"totalizer.quantile_index({field}::double precision)"
        return [_text(measure, "merge_quantiles", f"totalizer.count_quantiles(array_agg({index}))")]
    total = f"sum({field}::numeric)"
    if measure.kind == "sum":
        return [State(measure.name, "numeric", total, f"sum({column})")]
    total_column, count_column = f"{measure.name}__sum", f"{measure.name}__count"
    return [
        State(total_column, "numeric", total, f"sum({quoted(total_column)})"),
        State(count_column, "bigint", f"count({field})", f"sum({quoted(count_column)})::bigint"),
    ]


def _text(measure: Measure, merge: str, from_events: str) -> State:
    return State(measure.name, "text", from_events, f"totalizer.{merge}(string_agg({quoted(measure.name)}, ' '))")


def _at_an_end(measure: Measure, field_type: FieldType, time: str) -> list[State]:
    """The value at the first or latest moment, the moment, and the event's id, which decides between events of one."""
    field, least = quoted(str(measure.field)), measure.kind == "first"
    names = [measure.name, f"{measure.name}__at", f"{measure.name}__id"]
    value, at, by = map(quoted, names)
    extreme, direction = ("min", "") if least else ("max", " DESC")
    of_event = f"ORDER BY {time}{direction}, id{direction}) FILTER (WHERE {field} IS NOT NULL"
    of_state = f"ORDER BY {at}{direction}, {by}{direction}) FILTER (WHERE {at} IS NOT NULL"
    return [
        State(
            names[0],
            field_type.column_type,
            f"(array_agg({field} {of_event}))[1]",
            f"(array_agg({value} {of_state}))[1]",
        ),
        State(names[1], "timestamptz", f"{extreme}({time}) FILTER (WHERE {field} IS NOT NULL)", f"{extreme}({at})"),
        State(names[2], "uuid", f"(array_agg(id {of_event}))[1]", f"(array_agg({by} {of_state}))[1]"),
    ]


def shown(measure: Measure) -> str:
    """The SQL expression over merged states that a reader gets."""
    if measure.kind == "avg":
        total, count = quoted(f"{measure.name}__sum"), quoted(f"{measure.name}__count")
        return f"{total} / nullif({count}, 0)"
    if measure.kind == "unique":
        return f"totalizer.unique_count({quoted(measure.name)})"
    if measure.kind == "quantiles":
        wanted = ", ".join(repr(quantile) for quantile in measure.quantiles)
        return f"totalizer.quantile_values({quoted(measure.name)}, ARRAY[{wanted}]::double precision[])"
    return quoted(measure.name)


def estimated(measure: Measure) -> str | None:
    """The SQL condition over merged states that says whether what is shown is an estimate; None if it never is."""
    if measure.kind == "unique":
        return f"totalizer.unique_is_estimate({quoted(measure.name)})"
    return f"{quoted(measure.name)} IS NOT NULL" if measure.kind == "quantiles" else None
