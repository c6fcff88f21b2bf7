"""The states a measure keeps, and SQL identifiers."""

from __future__ import annotations

import pytest

from totalizer.catalog import FieldType, Measure
from totalizer.catalog.measures import KINDS, State, shown, states
from totalizer.catalog.quoting import quoted, quoted_list

EXPECTED = {
    "count": [State("m", "bigint", "count(*)", 'sum("m")::bigint')],
    "sum": [State("m", "numeric", 'sum("f"::numeric)', 'sum("m")')],
    "min": [State("m", "bigint", 'min("f")', 'min("m")')],
    "max": [State("m", "bigint", 'max("f")', 'max("m")')],
    "avg": [
        State("m__sum", "numeric", 'sum("f"::numeric)', 'sum("m__sum")'),
        State("m__count", "bigint", 'count("f")', 'sum("m__count")::bigint'),
    ],
    "first": [
        State(
            "m", "bigint", '(array_agg("f" ORDER BY "at", id) FILTER (WHERE "f" IS NOT NULL))[1]',
            '(array_agg("m" ORDER BY "m__at", "m__id") FILTER (WHERE "m__at" IS NOT NULL))[1]',
        ),
        State("m__at", "timestamptz", 'min("at") FILTER (WHERE "f" IS NOT NULL)', 'min("m__at")'),
        State(
            "m__id", "uuid", '(array_agg(id ORDER BY "at", id) FILTER (WHERE "f" IS NOT NULL))[1]',
            '(array_agg("m__id" ORDER BY "m__at", "m__id") FILTER (WHERE "m__at" IS NOT NULL))[1]',
        ),
    ],
    "latest": [
        State(
            "m", "bigint", '(array_agg("f" ORDER BY "at" DESC, id DESC) FILTER (WHERE "f" IS NOT NULL))[1]',
            '(array_agg("m" ORDER BY "m__at" DESC, "m__id" DESC) FILTER (WHERE "m__at" IS NOT NULL))[1]',
        ),
        State("m__at", "timestamptz", 'max("at") FILTER (WHERE "f" IS NOT NULL)', 'max("m__at")'),
        State(
            "m__id", "uuid", '(array_agg(id ORDER BY "at" DESC, id DESC) FILTER (WHERE "f" IS NOT NULL))[1]',
            '(array_agg("m__id" ORDER BY "m__at" DESC, "m__id" DESC) FILTER (WHERE "m__at" IS NOT NULL))[1]',
        ),
    ],
    "unique": [
        State(
            "m", "text", "totalizer.merge_unique(string_agg(DISTINCT md5(\"f\"::text), ' '))",
            "totalizer.merge_unique(string_agg(\"m\", ' '))",
        ),
    ],
    "quantiles": [
        State(
            "m", "text", 'totalizer.count_quantiles(array_agg(totalizer.quantile_index("f"::double precision)))',
            "totalizer.merge_quantiles(string_agg(\"m\", ' '))",
        ),
    ],
}  # fmt: skip


def test_every_kind_is_covered() -> None:
    assert set(EXPECTED) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_states_of_each_kind(kind: str) -> None:
    measure = Measure("m", kind, None if kind == "count" else "f")
    assert states(measure, None if kind == "count" else FieldType.INTEGER, "at") == EXPECTED[kind]


@pytest.mark.parametrize("kind", ["min", "max"])
@pytest.mark.parametrize("field_type", [item for item in FieldType if item.numeric])
def test_extremes_have_the_type_of_their_field(kind: str, field_type: FieldType) -> None:
    assert states(Measure("m", kind, "f"), field_type, "at")[0].type == field_type.column_type


def test_what_a_reader_gets() -> None:
    assert shown(Measure("m", "sum", "f")) == '"m"'
    assert shown(Measure("m", "avg", "f")) == '"m__sum" / nullif("m__count", 0)'


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", 'a"b', "a b", "a" * 64, "a\n", "ä", "a;drop"])
def test_what_is_no_plain_name_is_never_quoted(name: str) -> None:
    with pytest.raises(ValueError, match="plain lower-case"):
        quoted(name)


def test_plain_names_are_quoted() -> None:
    assert quoted("a" * 63) == f'"{"a" * 63}"'
    assert quoted_list(["a", "b_1"]) == '"a", "b_1"'
