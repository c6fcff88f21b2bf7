"""What a line adds to a live window."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from totalizer.catalog import Catalog, load_catalog
from totalizer.live.shape import Shape, second_of, unescaped

CATALOG: Catalog = load_catalog()


def shape_of(rollup: str) -> Shape:
    return Shape(CATALOG.rollups[rollup], CATALOG.event_types[CATALOG.rollups[rollup].event_type])


def line_of(shape: Shape, **values: str) -> bytes:
    fixed = {shape.event_type.time_field: "2025-09-05T10:00:07.250000Z"}
    return ("\t".join({**fixed, **values}.get(name, "\\N") for name in shape.event_type.columns) + "\n").encode()


USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
AT = int(datetime(2025, 9, 5, 10, 0, 7, tzinfo=UTC).timestamp())


def test_a_line_is_read_by_its_columns() -> None:
    shape = shape_of("command_usage")
    line = line_of(shape, user_id=USER, command_name="a\\tb\\\\n", status="success", execution_time_ms="15")
    second, group, state = shape.reader(shape.event_type.columns)(line)
    assert (second, group) == (AT, (USER, None, "a\tb\\n", "success"))
    shown = {measure.name: shape.shown(measure, state) for measure in shape.measures}
    assert shown == {
        "executions": 1, "execution_time_ms_sum": 15, "execution_time_ms_min": 15, "execution_time_ms_max": 15,
        "execution_time_ms_avg": 15,
    }  # fmt: skip


@pytest.mark.parametrize("line", [b"\n", b"a\tb\n", b"\t" * 13 + b"\n"])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    shape = shape_of("command_usage")
    with pytest.raises(ValueError, match="no line of these columns"):
        shape.reader(shape.event_type.columns)(line)


def test_states_merge_and_missing_values_count_nowhere() -> None:
    shape = shape_of("productivity")
    read = shape.reader(shape.event_type.columns)
    states = [
        read(line_of(shape, user_id=USER, metric_type="x", metric_value=value)).state
        for value in ("0.1", "0.2", "\\N", "-3.0")
    ]
    total: list[Any] = list(states[0])
    for state in states[1:]:
        shape.merge(total, state)
    shown = {measure.name: shape.shown(measure, total) for measure in shape.measures}
    assert shown == {
        "samples": 4, "metric_value_sum": Decimal("-2.7"), "metric_value_min": -3.0, "metric_value_max": 0.2,
        "metric_value_avg": Decimal("-0.9"),
    }  # fmt: skip


def test_an_average_of_nothing_is_nothing() -> None:
    shape = shape_of("productivity")
    state = shape.reader(shape.event_type.columns)(line_of(shape, user_id=USER, metric_type="x")).state
    shown = {measure.name: shape.shown(measure, state) for measure in shape.measures}
    assert (shown["samples"], shown["metric_value_sum"], shown["metric_value_avg"]) == (1, None, None)


@pytest.mark.parametrize(
    ("text", "value"), [(rb"a\\nb", b"a\\nb"), (rb"a\nb", b"a\nb"), (rb"\\\t\\", b"\\\t\\"), (b"plain", b"plain")]
)
def test_escapes_are_undone(text: bytes, value: bytes) -> None:
    assert unescaped(text) == value


def test_seconds() -> None:
    assert second_of(b"2025-09-05T10:00:07") == AT
