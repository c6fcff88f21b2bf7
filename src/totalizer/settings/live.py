"""The live windows: which there are, what they may cost, and how often they tell."""

from __future__ import annotations

from typing import Annotated

from pydantic import field_validator
from pydantic_settings import BaseSettings

from totalizer.settings.named import named

#: The lengths a live window may have.
WINDOWS = ("1m", "5m", "15m", "1h", "1d")


class LiveSettings(BaseSettings):
    """The live windows: which there are, what they may cost, and how often they tell."""

    aggregation_windows: Annotated[
        str, named("AGGREGATION_WINDOWS", "The live windows there are: some of 1m, 5m, 15m, 1h, 1d, by commas.")
    ] = "1m,5m,15m,1h,1d"
    flush_interval_ms: Annotated[
        int,
        named(
            "FLUSH_INTERVAL_MS",
            "How often live windows in use are read from the database anew; seldom more than a twentieth of the time.",
            ge=1000,
            le=3_600_000,
        ),
    ] = 30_000
    live_memory_mb: Annotated[
        int, named("MAX_MEMORY_MB", "Memory that live windows of one API process may take.", ge=16, le=1_048_576)
    ] = 512
    live_failures_max: Annotated[
        int,
        named(
            "DEAD_LETTER_QUEUE_SIZE", "Events not understood by live windows that a process remembers.", ge=0,
            le=1_000_000,
        ),
    ] = 10_000  # fmt: skip
    live_retry_attempts: Annotated[
        int,
        named("TOTALIZER_LIVE_RETRY_ATTEMPTS", "Further tries to read a live window from the database.", ge=0, le=100),
    ] = 3
    live_retry_delay_ms: Annotated[
        int, named("TOTALIZER_LIVE_RETRY_DELAY_MS", "Pause before each of these.", ge=10, le=600_000)
    ] = 5000
    live_groups_max: Annotated[
        int,
        named(
            "TOTALIZER_LIVE_GROUPS_MAX", "Groups a live window keeps apart; further ones are one, `other`.", ge=1,
            le=100_000,
        ),
    ] = 1000  # fmt: skip
    live_frame_ms: Annotated[
        int, named("TOTALIZER_LIVE_FRAME_MS", "Shortest time between two frames of one subscription.", ge=10, le=60_000)
    ] = 50
    live_connections_max: Annotated[
        int,
        named(
            "TOTALIZER_LIVE_CONNECTIONS_MAX",
            "Live connections of one organisation to one API process.",
            ge=1,
            le=100_000,
        ),
    ] = 250
    live_subscriptions_max: Annotated[
        int, named("TOTALIZER_LIVE_SUBSCRIPTIONS_MAX", "Subscriptions on one WebSocket.", ge=1, le=10_000)
    ] = 20

    @field_validator("aggregation_windows")
    @classmethod
    def _known_windows(cls, names: str) -> str:
        chosen = [name.strip() for name in names.split(",")]
        if wrong := [name for name in chosen if name not in WINDOWS]:
            raise ValueError(f"no window {wrong[0]!r}; use some of {', '.join(WINDOWS)}")
        return ",".join(dict.fromkeys(chosen))
