"""How long events are kept, where nothing else is said."""

from __future__ import annotations

from typing import Annotated

from pydantic_settings import BaseSettings

from totalizer.settings.named import named


class RetentionSettings(BaseSettings):
    """How long events are kept, where nothing else is said."""

    data_retention_days: Annotated[
        int,
        named(
            "DATA_RETENTION_DAYS",
            "Days for which events are kept whose type says nothing else.",
            ge=1,
            le=36_500,
        ),
    ] = 90
    partition_retention_days: Annotated[
        int,
        named(
            "PARTITION_RETENTION_DAYS",
            "Days after which a partition of events is dropped even if one organisation is to keep its events longer.",
            ge=1,
            le=36_500,
        ),
    ] = 180
