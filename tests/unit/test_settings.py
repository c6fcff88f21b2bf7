"""Settings: defaults, wrong values, secrets, the file `.env`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from totalizer.errors import ConfigurationError
from totalizer.settings import SECRET_VARIABLES, Settings, hand_down, load_settings

VARIABLES = {str(field.validation_alias): name for name, field in Settings.model_fields.items()}
#: The documentation says what they are and a test compares them (tests/tidy/test_documented.py).
DEFAULTS = {str(field.validation_alias): field.default for field in Settings.model_fields.values()}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without settings, and an empty folder to look for `.env` in."""
    for variable in os.environ:
        if variable.upper() in VARIABLES:
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults() -> None:
    settings = load_settings()
    assert {variable: getattr(settings, name) for variable, name in VARIABLES.items()} == DEFAULTS
    assert not settings.database_configured()


WRONG = [
    ("RATE_LIMIT_MAX_REQUESTS", "-1"), ("RATE_LIMIT_WINDOW_MS", "999"), ("TOTALIZER_RATE_LIMIT_BYTES", "x"),
    ("TOTALIZER_RATE_LIMIT_READS", "-1"), ("TOTALIZER_JWT_LEEWAY_MS", "600001"), ("TOTALIZER_JWT_REFRESH_MS", "0"),
    ("PORT", "0"), ("PORT", "65536"), ("PORT", "x"), ("PORT", "3000.5"), ("DB_PORT", "-1"), ("LOG_LEVEL", "loud"),
    ("TOTALIZER_WORKERS", "0"), ("TOTALIZER_WORKERS", "65"), ("DB_POOL_SIZE", "0"), ("TOTALIZER_TIME_ZONE", "Mars"),
    ("MAX_BATCH_SIZE", "0"), ("MAX_BATCH_SIZE", "100001"), ("TOTALIZER_BODY_BYTES_MAX", "1"),
    ("TOTALIZER_JOURNAL_QUOTA_BYTES", "1"), ("TOTALIZER_JOURNAL_SEGMENT_BYTES", "1"), ("TOTALIZER_LOAD_ROWS_MAX", "0"),
    ("TOTALIZER_REFRESH_INTERVAL_MS", "1"), ("TOTALIZER_KEY_CACHE_MS", "-1"), ("AGGREGATION_WINDOWS", "1m,2m"),
    ("FLUSH_INTERVAL_MS", "999"), ("MAX_MEMORY_MB", "1"), ("DEAD_LETTER_QUEUE_SIZE", "-1"),
]  # fmt: skip
WRONG += [
    (name, value)
    for name in ("TOTALIZER_CONNECTIONS_MAX", "TOTALIZER_HEADER_TIMEOUT_MS", "TOTALIZER_BODY_TIMEOUT_MS")
    for value in ("0", "-1", "10000000", "many")
]


@pytest.mark.parametrize(("variable", "value"), WRONG)
def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"{variable}='{value}': " in str(caught.value)


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError, match=r"(?s)PORT=.*LOG_LEVEL="):
        load_settings()


@pytest.mark.parametrize("variable", sorted(SECRET_VARIABLES))
def test_a_secret_is_shown_neither_in_errors_nor_in_repr(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    secret = "hunter2" * 5
    monkeypatch.setenv(variable, secret)
    settings = load_settings()
    assert getattr(settings, VARIABLES[variable]) == secret
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**{variable: ["hunter2"]})
    assert variable in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_file_env_is_read_and_the_environment_is_stronger(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    (bare / ".env").write_text("PORT=4000\nMAX_BATCH_SIZE=7\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("MAX_BATCH_SIZE", "8")
    settings = load_settings(HOST="0.0.0.0", TOTALIZER_HOME=None)
    assert (settings.port, settings.batch_events_max, settings.host) == (4000, 8, "0.0.0.0")
    assert load_settings(PORT=5000).port == 5000


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass on variables that nobody has set as empty ones."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    settings = load_settings()
    assert {variable: getattr(settings, name) for variable, name in VARIABLES.items()} == DEFAULTS


@pytest.mark.parametrize(("variable", "value"), [("DATABASE_URL", "postgresql://db"), ("DB_HOST", "db")])
def test_a_named_database_is_used_instead_of_an_own_one(variable: str, value: str) -> None:
    assert load_settings(**{variable: value}).database_configured()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1


def test_every_setting_has_a_description_and_a_variable() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert isinstance(field.validation_alias, str), name
        assert field.validation_alias.isupper(), name


def test_what_the_command_line_named_is_handed_to_child_processes(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    monkeypatch.setenv("TOTALIZER_HOME", "elsewhere")
    for variable in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(variable, "")
    hand_down(load_settings(TOTALIZER_HOME="data", DATABASE_URL="postgresql://db", REDIS_URL="redis://cache"))
    child = load_settings()
    assert child.home == (bare / "data").resolve()
    assert (child.database_url, child.redis_url) == ("postgresql://db", "redis://cache")
