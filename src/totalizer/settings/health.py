"""How health is checked, and who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic_settings import BaseSettings

from totalizer.settings.named import named


class HealthSettings(BaseSettings):
    """How health is checked, and who is told."""

    health_check_interval: Annotated[
        int,
        named(
            "HEALTH_CHECK_INTERVAL", "Seconds between two runs of health_check, and two health files.", ge=1, le=86400
        ),
    ] = 300
    monitor_interval_ms: Annotated[
        int,
        named("TOTALIZER_MONITOR_INTERVAL_MS", "Pause between two looks of the monitor.", ge=100, le=600_000),
    ] = 5000
    health_file: Annotated[
        Path | None, named("TOTALIZER_HEALTH_FILE", "TOML file of thresholds, alert rules and channels.")
    ] = None
    alert_urls: Annotated[
        str, named("TOTALIZER_ALERT_URLS", "Addresses, separated by spaces, that alerts go to, as apprise reads them.")
    ] = ""
    alert_urls_critical: Annotated[
        str, named("TOTALIZER_ALERT_URLS_CRITICAL", "Addresses that only critical alerts go to, besides.")
    ] = ""
