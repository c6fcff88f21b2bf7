"""Options: defaults, ranges, configuration files of earlier versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from totalizer.edge import ConfigurationError, SmartBatchAggregator
from totalizer.edge.options import OPTION_NAMES, Options, from_config
from unit.edge.parts import MemorySink


def test_the_documented_defaults() -> None:
    options = Options()
    assert (options.batch_size, options.max_age_ms, options.flush_threshold) == (50, 30_000, 0.9)
    assert (options.data_path, options.atomic_operations, options.sink) == (".totalizer/aggregated", True, None)
    assert (options.target_time_ms, options.max_time_ms) == (500, 1000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0), ("batch_size", 100_001), ("batch_size", True), ("batch_size", 5.0), ("batch_size", "5"),
        ("max_age_ms", 0), ("max_age_ms", None), ("flush_threshold", 0), ("flush_threshold", 1.01),
        ("flush_threshold", float("nan")), ("flush_threshold", True), ("flush_threshold", "0.9"),
        ("data_path", ""), ("data_path", None), ("data_path", "a\0b"), ("atomic_operations", 1),
        ("target_time_ms", 0), ("max_time_ms", 499), ("sink", "http://localhost"), ("durability", "never"),
        ("on_full", "drop"), ("quota_bytes", 1), ("entry_bytes_max", 1), ("exit_timeout_ms", -1),
        ("rate_limit_per_s", 0), ("rate_limit_per_s", "5"), ("redact_keys", "password"), ("redact_keys", [1]),
        ("flush_on_sigterm", None), ("full_timeout_ms", -1),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_name_itself_and_what_is_right(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Options.of({name: value})
    assert str(refused.value).startswith(f"{name}={value!r} must be ")


def test_a_long_wrong_value_is_cut() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Options.of({"batch_size": "9" * 10_000})
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["batch_size", "rate_limit_per_s", "flush_threshold", "data_path"])
def test_a_number_too_long_to_be_written_is_refused_as_any_other(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}=a number without end must be "):
        Options.of({name: 10**5000})


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"batchsize: unknown option; known are .*batch_size"):
        Options.of({"batchsize": 5})


@pytest.mark.parametrize(
    ("size", "part", "threshold"), [(50, 0.9, 45), (10, 0.91, 10), (1, 0.1, 1), (50, 0.58, 29), (7, 1.0, 7)]
)
def test_the_threshold_is_rounded_up(size: int, part: float, threshold: int) -> None:
    assert Options(batch_size=size, flush_threshold=part).threshold == threshold


def test_a_configuration_file_of_an_earlier_version() -> None:
    config = {
        "batchSize": 20, "maxAge": 1000, "flushThreshold": 0.5, "dataPath": "x", "atomicOperations": False,
        "performance": {"targetTime": 100, "maxTime": 200},
    }  # fmt: skip
    expected = {
        "batch_size": 20, "max_age_ms": 1000, "flush_threshold": 0.5, "data_path": "x", "atomic_operations": False,
        "target_time_ms": 100, "max_time_ms": 200,
    }  # fmt: skip
    assert from_config(config) == expected
    assert from_config({"aggregation": config}) == expected
    assert from_config(expected) == expected


def test_a_configuration_that_serves_the_daemon_too() -> None:
    config = {
        "batchSize": 5, "scheduleInterval": 1000, "log_level": "debug", "daemon": {"batchRetryLimit": 3},
        "recovery": {"x": 1}, "dataPath": "x",
    }  # fmt: skip
    assert from_config(config) == {"batch_size": 5, "data_path": "x"}


def test_a_configuration_that_says_a_thing_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="batch_size: said twice"):
        from_config({"batch_size": 5, "aggregator": {"batchSize": 6}})


@pytest.mark.parametrize("config", [None, [], "batchSize: 5", 7])
def test_a_configuration_that_is_no_object_is_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be an object"):
        from_config(config)


def test_an_aggregator_from_a_configuration(tmp_path: Path) -> None:
    sink = MemorySink()
    made = SmartBatchAggregator.from_config(
        {"batchSize": 20, "dataPath": str(tmp_path / "a")}, batch_size=30, sink=sink
    )
    assert (made.options.batch_size, made.folders.data, made.sink) == (30, tmp_path / "a", sink)
    with pytest.raises(ConfigurationError, match="pageSize: unknown option"):
        SmartBatchAggregator.from_config({"pageSize": 20})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"data_path=.*file/x.* cannot be used"):
        SmartBatchAggregator(data_path=tmp_path / "file" / "x")


def test_every_option_is_documented(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs/reference/edge.md").read_text("utf-8")
    assert [name for name in sorted(OPTION_NAMES) if f"| `{name}`" not in text] == []
