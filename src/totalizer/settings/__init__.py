"""Every setting, read once from the environment and the file `.env`: a file for each group of them.

A wrong value stops the start with a message naming the variable, the value and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from totalizer.errors import ConfigurationError
from totalizer.settings.access import AccessSettings
from totalizer.settings.database import DatabaseSettings
from totalizer.settings.health import HealthSettings
from totalizer.settings.ingest import IngestSettings
from totalizer.settings.jobs import JobSettings
from totalizer.settings.live import LiveSettings
from totalizer.settings.named import SECRET_VARIABLES
from totalizer.settings.reading import ReadingSettings
from totalizer.settings.retention import RetentionSettings
from totalizer.settings.service import ServiceSettings
from totalizer.settings.usage import UsageSettings


class Settings(
    ServiceSettings,
    DatabaseSettings,
    IngestSettings,
    RetentionSettings,
    AccessSettings,
    ReadingSettings,
    UsageSettings,
    JobSettings,
    LiveSettings,
    HealthSettings,
):
    """The settings of one process. The variable's name is each field's alias."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, env_ignore_empty=True
    )


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process.

    Args:
        overrides: values by variable name (`PORT=4000`), stronger than the environment.

    Raises:
        ConfigurationError: naming every variable with a value that cannot be used.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}={_shown(item)}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError("; ".join(problems)) from None


def hand_down(settings: Settings) -> None:
    """Put what may have come from the command line into the environment, for child processes to read."""
    os.environ["TOTALIZER_HOME"] = str(settings.home.expanduser().resolve())
    if settings.database_url is not None:
        os.environ["DATABASE_URL"] = settings.database_url
    if settings.redis_url is not None:
        os.environ["REDIS_URL"] = settings.redis_url
    os.environ["TOTALIZER_WORKERS"] = str(settings.workers)


def _shown(item: Mapping[str, Any]) -> str:
    return "…" if SECRET_VARIABLES.intersection(map(str, item["loc"])) else repr(item["input"])
