"""Batch utilities."""

from __future__ import annotations

import re
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.edge import Batch
from totalizer.edge.batch_utils import (
    ValidationError,
    calculate_batch_size,
    calculate_percentile,
    create_performance_timer,
    format_aggregation_result,
    generate_batch_file_name,
    get_elapsed_time_ms,
    merge_batches,
    validate_entry,
)
from unit.edge.parts import MONDAY_NS, SetClock, entry

CLOCK = SetClock()


def test_a_file_name() -> None:
    assert re.fullmatch(r"batch_\d{13}_[0-9a-f]{6}\.json", generate_batch_file_name())
    assert generate_batch_file_name("user_batch", clock=CLOCK).startswith("user_batch_1757000000000_")
    assert len({generate_batch_file_name(clock=CLOCK) for _ in range(50)}) == 50


@pytest.mark.parametrize("prefix", ["", "../x", "a/b", ".hidden", "a\0b"])
def test_a_file_name_stays_in_its_folder(prefix: str) -> None:
    with pytest.raises(ValidationError, match="prefix: "):
        generate_batch_file_name(prefix)


def test_validate_entry_is_the_aggregators() -> None:
    assert validate_entry(entry())
    with pytest.raises(ValidationError, match="userId: is missing"):
        validate_entry({"action": "x", "timestamp": 1_757_000_000_000})


def test_a_result_has_a_summary() -> None:
    data = {
        "entries": [entry(1, timestamp=30), entry(2, timestamp=10, action="read"), entry(1, timestamp=20)],
        "metadata": {"source": "x"},
    }
    result = format_aggregation_result(data, clock=CLOCK)
    summary = result.summary
    assert result.entries == tuple(data["entries"])
    assert result.metadata == {"source": "x", "formattedAt": MONDAY_NS // 1_000_000, "entryCount": 3}
    assert (summary.total_entries, summary.unique_users) == (3, 2)
    assert (summary.time_range.start, summary.time_range.end, summary.time_range.duration_ms) == (10, 30, 20)
    assert list(summary.action_counts.items()) == [("edit", 2), ("read", 1)]


def test_a_result_of_nothing_and_of_a_batch() -> None:
    summary = format_aggregation_result({"entries": []}).summary
    assert (summary.total_entries, summary.time_range.start, summary.time_range.duration_ms) == (0, None, 0)
    assert format_aggregation_result(Batch("b", 1, (entry(1),))).summary.total_entries == 1


@pytest.mark.parametrize(
    "data", [{}, {"entries": 5}, {"entries": [5]}, {"entries": [{}]}, {"entries": [], "metadata": 5}]
)
def test_what_is_no_result_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        format_aggregation_result(data)


@pytest.mark.parametrize(
    ("size", "recommended"), [(10, 500), (131, 500), (1000, 65), (6000, 10), (10**6, 10)]
)  # fmt: skip
def test_a_batch_size_for_entries_of_some_length(size: int, recommended: int) -> None:
    blank = len('{"a":""}')
    assert calculate_batch_size([{"a": "x" * (size - blank)}] * 3) == recommended


def test_a_batch_size_for_nothing() -> None:
    assert calculate_batch_size([]) == 50


def test_merging_removes_duplicates_and_orders_by_time() -> None:
    one = {"batchId": "one", "entries": [entry(1, id="a", timestamp=30), entry(2, timestamp=10)], "metadata": {"x": 1}}
    two = {
        "batch_id": "two", "metadata": {"x": 2, "y": 3},
        "entries": [entry(9, id="a", timestamp=5), entry(2, timestamp=10), entry(3, timestamp=20)],
    }  # fmt: skip
    merged = merge_batches(one, two, clock=CLOCK)
    assert [(each.get("id"), each["timestamp"]) for each in merged.entries] == [(None, 10), (None, 20), ("a", 30)]
    assert merged.metadata == {
        "x": 2, "y": 3, "mergedFrom": ["one", "two"], "mergedAt": MONDAY_NS // 1_000_000, "duplicatesRemoved": 2
    }  # fmt: skip


def test_entries_without_ids_are_the_same_whatever_the_order_of_their_keys() -> None:
    one = {"userId": "u", "action": "a", "timestamp": 1, "metadata": {"x": 1, "y": 2}}
    two = {"metadata": {"y": 2, "x": 1}, "timestamp": 1, "action": "a", "userId": "u"}
    assert len(merge_batches({"entries": [one]}, {"entries": [two]}).entries) == 1


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_merging_neither_loses_nor_doubles(one: list[int], two: list[int]) -> None:
    first = {"entries": [entry(number, id=str(number), timestamp=9 - number) for number in one]}
    second = {"entries": [entry(number, id=str(number), timestamp=9 - number) for number in two]}
    merged = merge_batches(first, second)
    assert [int(each["id"]) for each in merged.entries] == sorted({*one, *two}, reverse=True)
    assert merged.metadata["duplicatesRemoved"] == len(one) + len(two) - len(merged.entries)


class Running(SetClock):
    def __init__(self) -> None:
        super().__init__()
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_timer_runs_whatever_the_wall_clock_does() -> None:
    clock = Running()
    timer = create_performance_timer("x", clock=clock)
    assert (timer.label, timer.start_date) == ("x", MONDAY_NS // 1_000_000)
    clock.ns, clock.seconds = 0, 100.25
    assert get_elapsed_time_ms(timer) == pytest.approx(250)
    assert get_elapsed_time_ms(create_performance_timer()) >= 0


@pytest.mark.parametrize(
    ("percentile", "value"), [(0, 100), (50, 250), (95, 470), (99, 494), (100, 500), (25, 175)]
)  # fmt: skip
def test_a_percentile(percentile: float, value: float) -> None:
    assert calculate_percentile([400, 100, 150, 200, 250, 300, 500], percentile) == pytest.approx(value)


def test_a_percentile_of_little() -> None:
    assert calculate_percentile([], 50) == 0.0
    assert calculate_percentile([7], 99) == 7


@pytest.mark.parametrize("percentile", [-1, 100.1, float("nan"), "50", None, True])
def test_what_is_no_percentile_is_refused(percentile: Any) -> None:
    with pytest.raises(ValidationError, match="must be a number from 0 to 100"):
        calculate_percentile([1], percentile)


@pytest.mark.parametrize("value", [float("nan"), "1", None, False])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="must be a number"):
        calculate_percentile([1, value], 50)


@given(st.lists(st.integers(-1000, 1000), min_size=2), st.integers(1, 99))
def test_percentiles_are_those_of_the_standard_library(values: list[int], percentile: int) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")[percentile - 1]
    assert calculate_percentile(values, percentile) == pytest.approx(expected)
