"""The daemon's options: defaults, names, ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from totalizer.edge.daemon import CronRecoveryDaemon, DaemonOptions
from totalizer.edge.daemon.options import RANGES
from totalizer.edge.folder import Folders
from totalizer.errors import ConfigurationError


def test_the_documented_defaults() -> None:
    options = DaemonOptions()
    assert (options.schedule_interval_ms, options.batch_retry_limit) == (300_000, 5)
    assert (options.health_check_interval_ms, options.cleanup_age_ms) == (60_000, 604_800_000)
    assert (options.data_path, options.log_level) == (".totalizer/aggregated", "info")


def test_a_configuration_file_s_names() -> None:
    config = {
        "scheduleInterval": 1000, "batchRetryLimit": 2, "healthCheckInterval": 2000, "cleanupAge": 90_000,
        "dataPath": "d", "recoveryPath": "r", "healthPath": "h", "logLevel": "debug", "backoffMs": 5,
    }  # fmt: skip
    expected = DaemonOptions(
        schedule_interval_ms=1000, batch_retry_limit=2, health_check_interval_ms=2000, cleanup_age_ms=90_000,
        data_path="d", recovery_path="r", health_path="h", log_level="debug", backoff_ms=5,
    )  # fmt: skip
    assert DaemonOptions.make(config) == expected
    assert DaemonOptions.make({"daemon": config}) == expected
    assert DaemonOptions.make(expected) == expected


def test_keywords_are_stronger() -> None:
    assert DaemonOptions.make({"batchRetryLimit": 2}, batch_retry_limit=3).batch_retry_limit == 3


def test_one_file_may_serve_the_aggregator_too() -> None:
    config = {"batchSize": 50, "maxAge": 1, "performance": {"targetTime": 1}, "flushThreshold": 0.9, "dataPath": "d"}
    assert DaemonOptions.make(config).data_path == "d"


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_its_range_is_named_with_the_range(name: str) -> None:
    lowest, highest = RANGES[name]
    for value in (lowest - 1, highest + 1, "5", 1.5, True, None):
        with pytest.raises(ConfigurationError, match=rf"{name} is .*{lowest} to {highest}"):
            DaemonOptions(**{name: value})
    others: dict[str, Any] = {"backoff_ms": 1} if name == "backoff_ms_max" else {}
    others |= {"backoff_ms_max": RANGES["backoff_ms_max"][1]} if name == "backoff_ms" else {}
    for value in (lowest, highest):
        assert getattr(DaemonOptions(**others, **{name: value}), name) == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_level": "loud"}, "log_level is 'loud'.*debug, info"),
        ({"cleanup_batches": "all"}, "cleanup_batches is 'all'.*imported, never, aged"),
        ({"data_path": ""}, "data_path is ''"),
        ({"recovery_path": 5}, "recovery_path is 5"),
        ({"backoff_ms": 10, "backoff_ms_max": 9}, "backoff_ms is 10.*backoff_ms_max, 9"),
        ({"schedule_intervall_ms": 10}, "no option 'schedule_intervall_ms'; did you mean schedule_interval_ms"),
        ({"alert_urls": ["not an address"]}, "alert_urls must be addresses"),
        ({"alert_urls": 7}, "alert_urls must be addresses"),
    ],
)
def test_wrong_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DaemonOptions.make({}, **options)


def test_unknown_names_in_a_mapping_and_no_mapping() -> None:
    with pytest.raises(ConfigurationError, match="no option 'retryLimit'"):
        DaemonOptions.make({"retryLimit": 1})
    with pytest.raises(ConfigurationError, match="config is 5"):
        DaemonOptions.make(5)  # type: ignore[arg-type]


def test_addresses_are_shown_nowhere() -> None:
    options = DaemonOptions(alert_urls="json://user:s3cret@host")  # type: ignore[arg-type]
    assert options.alert_urls == ("json://user:s3cret@host",)
    assert "s3cret" not in repr(options)
    with pytest.raises(ConfigurationError) as caught:
        DaemonOptions(alert_urls=("s3cret",))
    assert "s3cret" not in str(caught.value)


def test_an_aggregator_s_folders_are_taken(make: Callable[..., CronRecoveryDaemon], folders: Folders) -> None:
    class Aggregator:
        pass

    aggregator = Aggregator()
    aggregator.folders = folders  # type: ignore[attr-defined]
    assert CronRecoveryDaemon({}, aggregator).folders.recovery == folders.recovery
    other = folders.data.parent / "other"
    assert CronRecoveryDaemon({}, aggregator, data_path=other).folders.data == other
