"""How usage is aggregated."""

from __future__ import annotations

from typing import Annotated

from pydantic_settings import BaseSettings

from totalizer.settings.named import named


class UsageSettings(BaseSettings):
    """How usage is aggregated."""

    usage_aggregation_enabled: Annotated[
        bool, named("ENABLE_USAGE_AGGREGATION", "Whether the scheduled aggregation of usage does anything.")
    ] = True
    usage_aggregation_interval_ms: Annotated[
        int,
        named(
            "USAGE_AGGREGATION_INTERVAL",
            "Pause between two scheduled aggregations of usage, milliseconds.",
            ge=1000,
            le=7 * 86_400_000,
        ),
    ] = 3_600_000
    usage_aggregation_parallel: Annotated[
        int,
        named("TOTALIZER_USAGE_PARALLEL", "Database connections an aggregation of usage writes with.", ge=1, le=64),
    ] = 4
