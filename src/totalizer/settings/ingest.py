"""How events are taken in, kept and loaded, and which kinds there are."""

from __future__ import annotations

from typing import Annotated

from pydantic import field_validator
from pydantic_settings import BaseSettings

from totalizer.settings.named import MIB, named
from totalizer.window import zone


class IngestSettings(BaseSettings):
    """How events are taken in, kept and loaded, and which kinds there are."""

    catalog_paths: Annotated[
        str, named("TOTALIZER_CATALOG", "Further catalog files or folders, separated by colons.")
    ] = ""
    default_time_zone: Annotated[
        str, named("TOTALIZER_TIME_ZONE", "IANA time zone of organisations that name none.")
    ] = "UTC"
    batch_events_max: Annotated[int, named("MAX_BATCH_SIZE", "Events in one batch request.", ge=1, le=100_000)] = 1000
    body_bytes_max: Annotated[
        int, named("TOTALIZER_BODY_BYTES_MAX", "Bytes in one request body.", ge=1024, le=256 * MIB)
    ] = 8 * MIB
    journal_quota_bytes: Annotated[
        int,
        named(
            "TOTALIZER_JOURNAL_QUOTA_BYTES",
            "Disk the journal of one API process may hold while the database is away; then requests get 503.",
            ge=2 * MIB,
        ),
    ] = 4096 * MIB
    journal_segment_bytes: Annotated[
        int, named("TOTALIZER_JOURNAL_SEGMENT_BYTES", "Size of one journal segment.", ge=MIB, le=1024 * MIB)
    ] = 64 * MIB
    load_rows_max: Annotated[
        int,
        named("TOTALIZER_LOAD_ROWS_MAX", "Rows the loader stores in one transaction.", ge=1, le=1_000_000),
    ] = 20_000
    refresh_interval_ms: Annotated[
        int,
        named("TOTALIZER_REFRESH_INTERVAL_MS", "Pause between two looks for dirty buckets.", ge=10, le=3_600_000),
    ] = 500
    receipt_days: Annotated[
        int,
        named("TOTALIZER_RECEIPT_DAYS", "Days for which receipts can be asked about.", ge=1, le=3650),
    ] = 30
    key_cache_ms: Annotated[
        int,
        named("TOTALIZER_KEY_CACHE_MS", "Longest time a revoked API key may still be accepted.", ge=0, le=60_000),
    ] = 2000

    @field_validator("default_time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        return zone(name).key
