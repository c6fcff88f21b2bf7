"""Which options a command works with: those of a configuration file, and what the environment adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from totalizer.ops.batching.place import find_place

FILE, CRITICAL = "json://file.example", "json://critical.example"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTALIZER_ALERT_URLS", "json://one.example json://two.example")
    monkeypatch.setenv("TOTALIZER_ALERT_URLS_CRITICAL", "")


@pytest.mark.parametrize(
    "config",
    [
        {"alert_urls": [FILE]}, {"alertUrls": [FILE]}, {"daemon": {"alertUrls": FILE}},
        {"recovery": {"alert_urls": [FILE]}},
    ],
)  # fmt: skip
def test_addresses_of_a_file_are_stronger_than_the_environments(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**config, "alertUrlsCritical": [CRITICAL]}))
    daemon = find_place(tmp_path, tmp_path / "config.json").daemon
    assert (daemon.alert_urls, daemon.alert_urls_critical) == ((FILE,), (CRITICAL,))


def test_addresses_may_be_in_the_environment(tmp_path: Path) -> None:
    daemon = find_place(tmp_path).daemon
    assert daemon.alert_urls == ("json://one.example", "json://two.example")
    assert daemon.alert_urls_critical == ()


def test_one_file_serves_aggregators_and_the_daemon(tmp_path: Path) -> None:
    config = {
        "batchSize": 7,
        "dataPath": str(tmp_path / "d"),
        "recovery": {"batchRetryLimit": 3},
        "scheduleInterval": 500,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    place = find_place(None, tmp_path / "config.json")
    assert (place.aggregator.batch_size, place.daemon.batch_retry_limit) == (7, 3)
    assert (place.daemon.schedule_interval_ms, place.folders.data) == (500, tmp_path / "d")
