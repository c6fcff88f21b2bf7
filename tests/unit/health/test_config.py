"""The file of thresholds and rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from totalizer.errors import ConfigurationError
from totalizer.health.check import Levels
from totalizer.health.config import load_config
from totalizer.health.table import CHECKS


def write(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "health.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_every_check_has_a_rule_as_shipped() -> None:
    config = load_config(None)
    assert {rule.check for rule in config.rules.values()} == {check.name for check in CHECKS}
    assert config.levels == {}
    assert all(set(rule.channels) == {"default", "critical"} for rule in config.rules.values())


def test_a_file_changes_members_and_adds_rules(tmp_path: Path) -> None:
    config = load_config(
        write(
            tmp_path,
            """
            [alerts]
            repeat_s = 60
            [checks.memory]
            warning = 0.5
            [checks.database]
            critical = 5000
            [rules.memory]
            for_s = 7
            [rules.redis_away]
            enabled = false
            [rules.night]
            check = "rollup_lag"
            status = "critical"
            channels = ["pager"]
            [channels.pager]
            urls = ["json://localhost/hush"]
            least = "critical"
            """,
        )
    )
    assert config.levels == {"memory": Levels(0.5, 0.95), "database": Levels(1000, 5000)}
    assert (config.rules["memory"].for_s, config.rules["memory"].check) == (7, "memory")
    assert "redis_away" not in config.rules
    assert config.rules["night"].channels == ("pager",)
    assert (config.alerts.repeat_s, config.alerts.escalate_s) == (60, 1800)
    assert "hush" not in repr(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rules.x]\ncheck = 'weather'", ["rules.x", "weather", "database"]),
        ("[rules.memory]\nstatus = 'bad'", ["rules.memory", "bad", "critical"]),
        ("[rules.memory]\nseverity = 'loud'", ["rules.memory", "loud"]),
        ("[rules.memory]\nchannels = ['nobody']", ["rules.memory", "nobody", "default"]),
        ("[rules.memory]\nfor_s = -1", ["for_s", "-1"]),
        ("[rules.memory]\nfor = 1", ["for"]),
        ("[rules.'Big One']\ncheck = 'memory'", ["Big One", "lower-case"]),
        ("[checks.weather]\nwarning = 1", ["checks.weather", "database"]),
        ("[checks.memory]\nwarning = 'much'", ["warning"]),
        ("[channels.x]\nurls = []\nleast = 'none'", ["channels.x", "none"]),
        ("rules = 1", ["rules"]),
        ("[[", ["health.toml"]),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(write(tmp_path, text))
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TOTALIZER_HEALTH_FILE"):
        load_config(tmp_path / "none.toml")


def test_addresses_that_others_may_read_are_refused_and_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "[channels.pager]\nurls = ['json://localhost/hush']", 0o644)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path)
    assert "chmod 600" in str(caught.value)
    assert "hush" not in str(caught.value)
