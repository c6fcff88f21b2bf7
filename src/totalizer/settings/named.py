"""How a setting is declared: the variable it comes from, what it means, what is allowed."""

from __future__ import annotations

from typing import Any

from pydantic import Field

MIB = 1 << 20
#: Variables that may hold a password; their values are shown nowhere.
SECRET_VARIABLES = {
    "DATABASE_URL", "DB_PASSWORD", "REDIS_URL", "TOTALIZER_SECRET", "TOTALIZER_JWT_SECRET", "CELERY_BROKER_URL",
    "CELERY_RESULT_BACKEND", "TOTALIZER_ALERT_URLS", "TOTALIZER_ALERT_URLS_CRITICAL", "TOTALIZER_METRICS_TOKEN",
}  # fmt: skip


def named(variable: str, description: str, **limits: Any) -> Any:
    """A setting's declaration.

    Args:
        variable: the environment variable.
        description: what it means, for the documentation.
        limits: what pydantic's `Field` takes: `ge`, `le`, `min_length`.
    """
    # A secret is not in the settings' repr either, which ends up in logs and tracebacks.
    return Field(validation_alias=variable, description=description, repr=variable not in SECRET_VARIABLES, **limits)
