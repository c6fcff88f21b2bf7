"""What queries may cost, and how long their answers are kept."""

from __future__ import annotations

from typing import Annotated

from pydantic_settings import BaseSettings

from totalizer.settings.named import MIB, named


class ReadingSettings(BaseSettings):
    """What queries may cost, and how long their answers are kept."""

    cache_ttl_s: Annotated[
        int, named("CACHE_TTL_SECONDS", "Longest time an answer is kept; 0 to keep none.", ge=0, le=86_400)
    ] = 300
    cache_bytes: Annotated[
        int, named("TOTALIZER_CACHE_BYTES", "Bytes of the answers kept in one API process.", ge=0, le=4096 * MIB)
    ] = 32 * MIB
    query_windows_max: Annotated[
        int, named("TOTALIZER_QUERY_WINDOWS_MAX", "Windows of one query.", ge=1, le=10_000_000)
    ] = 100_000
    query_events_max: Annotated[
        int,
        named("TOTALIZER_QUERY_EVENTS_MAX", "Events read for one answer, by the database's estimate.", ge=1),
    ] = 5_000_000
    query_dirty_events_max: Annotated[
        int,
        named(
            "TOTALIZER_QUERY_DIRTY_EVENTS_MAX",
            "Events read in place of rollups that are behind, by the database's estimate; beyond it the answer is told "
            "from the rollups and says what is stale.",
            ge=0,
        ),
    ] = 500_000
    query_timeout_ms: Annotated[
        int, named("TOTALIZER_QUERY_TIMEOUT_MS", "Longest time of a query's statement.", ge=10, le=3_600_000)
    ] = 10_000
    query_concurrency: Annotated[
        int,
        named("TOTALIZER_QUERY_CONCURRENCY", "Queries of an organisation that run at once in a process.", ge=1, le=500),
    ] = 8
    export_rows_max: Annotated[
        int,
        named("TOTALIZER_EXPORT_ROWS_MAX", "Events of one export; the next goes on where it ended.", ge=1),
    ] = 200_000
    export_concurrency: Annotated[
        int,
        named("TOTALIZER_EXPORT_CONCURRENCY", "Exports of an organisation that run at once in a process.", ge=1),
    ] = 2
    export_concurrency_all: Annotated[
        int,
        named(
            "TOTALIZER_EXPORT_CONCURRENCY_ALL",
            "Exports that run at once in a process; never more than half of `DB_POOL_SIZE`.",
            ge=1,
        ),
    ] = 8
    export_timeout_ms: Annotated[
        int,
        named("TOTALIZER_EXPORT_TIMEOUT_MS", "Longest time of finding a page of an export.", ge=10, le=3_600_000),
    ] = 60_000
    export_spool_bytes: Annotated[
        int,
        named(
            "TOTALIZER_EXPORT_SPOOL_BYTES",
            "Disk that exports of one API process may take while their clients are slow; 0 for none.",
            ge=0,
        ),
    ] = 1 << 30
    export_client_timeout_ms: Annotated[
        int,
        named(
            "TOTALIZER_EXPORT_CLIENT_TIMEOUT_MS",
            "Longest time for a client to take a page of an export, when that disk is full.",
            ge=100,
            le=3_600_000,
        ),
    ] = 60_000
