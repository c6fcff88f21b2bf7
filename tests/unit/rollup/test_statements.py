"""The SQL of rollups: the same columns are named and filled, in one order, in every grain."""

from __future__ import annotations

import re

import msgspec
import pytest

from totalizer.catalog import Catalog, Rollup, load_catalog
from totalizer.catalog.levels import LEVELS, Level
from totalizer.rollup.statements import base_of, delete_level, insert_level, recompute
from totalizer.store.ddl import rollup_states

CATALOG: Catalog = load_catalog()
ROLLUPS = pytest.mark.parametrize("rollup", CATALOG.rollups.values(), ids=lambda rollup: rollup.name)
EACH_LEVEL = pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.suffix)


def with_minutes(rollup: Rollup) -> Rollup:
    return msgspec.structs.replace(rollup, levels=tuple(level.suffix for level in LEVELS), minutes_s=3600)


def named_columns(statement: str) -> list[str]:
    found = re.search(r"INSERT INTO \S+ \(([^)]*)\)", statement)
    assert found is not None
    return [name.strip('"') for name in found[1].split(", ")]


@ROLLUPS
@EACH_LEVEL
def test_what_is_selected_fills_the_columns_named(rollup: Rollup, level: Level) -> None:
    event_type = CATALOG.event_types[rollup.event_type]
    states = rollup_states(rollup, event_type)
    statement = insert_level(with_minutes(rollup), level, event_type)
    assert named_columns(statement) == [
        "organization_id", level.key, *rollup.dimensions, *(state.column for state in states),
    ]  # fmt: skip
    # In the order of the primary key, so that its index grows at few places.
    if level.source is None:
        found = re.search(r"SELECT (.*)\nFROM [^$]*\nGROUP BY (.*) ORDER BY (.*)$", statement)
        assert found is not None
        assert found[2] == found[3]
        assert found[1] == ", ".join([found[2], *(state.from_events for state in states)])
    else:
        keys = ["s.organization_id", *(f's."{name}"' for name in rollup.dimensions)]
        values = ", ".join([*keys[1:], *(state.from_states for state in states)])
        assert f"SELECT w.organization_id, w._{level.key}, g.*\n" in statement
        assert f"LATERAL (SELECT {values} FROM " in statement
        assert f" GROUP BY {', '.join(keys)}) g\nORDER BY 1, 2" in statement
        assert statement.endswith(str(1 + len(keys)))


@ROLLUPS
@EACH_LEVEL
def test_what_is_deleted_is_inserted_again_into_the_same_table(rollup: Rollup, level: Level) -> None:
    event_type = CATALOG.event_types[rollup.event_type]
    delete, insert = delete_level(rollup, level), insert_level(with_minutes(rollup), level, event_type)
    assert f'DELETE FROM analytics."{rollup.name}_{level.suffix}" r USING (' in delete
    assert f'INSERT INTO analytics."{rollup.name}_{level.suffix}" (' in insert


@ROLLUPS
def test_each_grain_is_computed_after_the_one_it_is_made_from(rollup: Rollup) -> None:
    event_type = CATALOG.event_types[rollup.event_type]
    steps = recompute(rollup, event_type)
    assert [level.suffix for level, _, _ in steps] == ["15m", "1h", "1d", "1w", "1mo"]
    for level, delete, insert in steps:
        assert delete.startswith(f'DELETE FROM analytics."{rollup.table(level)}"')
        assert insert.startswith(f'INSERT INTO analytics."{rollup.table(level)}"')


def test_buckets_are_cut_from_the_epoch_on() -> None:
    assert base_of('"sold_at"') == "date_bin(interval '15 minutes', \"sold_at\", 'epoch'::timestamptz)"
