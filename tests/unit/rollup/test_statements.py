"""The SQL of rollups: the same columns are named and filled, in one order."""

from __future__ import annotations

import re

import pytest

from totalizer.catalog import Catalog, Rollup, load_catalog
from totalizer.rollup.statements import base_of, delete_base, delete_days, insert_base, insert_days
from totalizer.store.ddl import rollup_states

CATALOG: Catalog = load_catalog()
ROLLUPS = pytest.mark.parametrize("rollup", CATALOG.rollups.values(), ids=lambda rollup: rollup.name)


def named_columns(statement: str) -> list[str]:
    found = re.search(r"INSERT INTO \S+ \(([^)]*)\)", statement)
    assert found is not None
    return [name.strip('"') for name in found[1].split(", ")]


def selected(statement: str) -> list[str]:
    found = re.search(r"SELECT (.*)", statement)
    assert found is not None
    return found[1].split(", ")


@ROLLUPS
def test_what_is_selected_fills_the_columns_named(rollup: Rollup) -> None:
    event_type = CATALOG.event_types[rollup.event_type]
    states = rollup_states(rollup, event_type)
    for statement, bucket, source, expressions in (
        (insert_base(rollup, event_type), "bucket", "e", [state.from_events for state in states]),
        (insert_days(rollup, event_type), "day", "b", [state.from_states for state in states]),
    ):
        assert named_columns(statement) == [
            "organization_id", bucket, *rollup.dimensions, *(state.column for state in states),
        ]  # fmt: skip
        keys = ["w.organization_id", f"w.{bucket}", *(f'{source}."{name}"' for name in rollup.dimensions)]
        assert selected(statement) == [*keys, *expressions]
        # In the order of the primary key, so that its index grows at few places.
        assert statement.rstrip().endswith(f"GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)}")


@ROLLUPS
def test_what_is_deleted_is_inserted_again_into_the_same_table(rollup: Rollup) -> None:
    event_type = CATALOG.event_types[rollup.event_type]
    for delete, insert, table, work in (
        (delete_base(rollup), insert_base(rollup, event_type), rollup.base_table, "work"),
        (delete_days(rollup), insert_days(rollup, event_type), rollup.day_table, "work_days"),
    ):
        assert f'DELETE FROM analytics."{table}" r USING {work} w' in delete
        assert f'INSERT INTO analytics."{table}" (' in insert
        assert f"FROM {work} w JOIN" in insert


def test_buckets_are_cut_from_the_epoch_on() -> None:
    assert base_of('"sold_at"') == "date_bin(interval '15 minutes', \"sold_at\", 'epoch'::timestamptz)"
