"""The kinds of measure: how each is computed from events, merged from buckets, and shown.

A measure keeps one or more state columns. States merge: the state of a day is made from the states of its buckets, so
`avg` keeps a sum and a count rather than an average. Sums are kept as `numeric` and so are exact; a floating-point
field is summed as the decimal number PostgreSQL prints for it, which does not depend on the order of the rows.
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


#: Kinds that need a field, and the kinds of all.
FIELD_KINDS = ("sum", "min", "max", "avg")
KINDS = ("count", *FIELD_KINDS)


def states(measure: Measure, field_type: FieldType | None) -> list[State]:
    """The columns a measure keeps.

    Args:
        measure: the measure.
        field_type: what its field holds; None for a count of events.
    """
    column = quoted(measure.name)
    if measure.kind == "count":
        return [State(measure.name, "bigint", "count(*)", f"sum({column})::bigint")]
    field = quoted(str(measure.field))
    if measure.kind in ("min", "max"):
        kind = measure.kind
        assert field_type is not None
        return [State(measure.name, field_type.column_type, f"{kind}({field})", f"{kind}({column})")]
    total = f"sum({field}::numeric)"
    if measure.kind == "sum":
        return [State(measure.name, "numeric", total, f"sum({column})")]
    total_column, count_column = f"{measure.name}__sum", f"{measure.name}__count"
    return [
        State(total_column, "numeric", total, f"sum({quoted(total_column)})"),
        State(count_column, "bigint", f"count({field})", f"sum({quoted(count_column)})::bigint"),
    ]


def shown(measure: Measure) -> str:
    """The SQL expression over merged states that a reader gets."""
    if measure.kind == "avg":
        total, count = quoted(f"{measure.name}__sum"), quoted(f"{measure.name}__count")
        return f"{total} / nullif({count}, 0)"
    return quoted(measure.name)
