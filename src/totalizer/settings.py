"""Every setting, read once from the environment and the file `.env`.

A wrong value stops the start with a message naming the variable, the value and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from totalizer.errors import ConfigurationError
from totalizer.window import zone

MIB = 1 << 20
#: Variables that may hold a password; their values are shown nowhere.
SECRET_VARIABLES = {"DATABASE_URL", "DB_PASSWORD", "REDIS_URL", "TOTALIZER_SECRET", "TOTALIZER_JWT_SECRET"}


def _named(variable: str, description: str, **limits: Any) -> Any:
    # A secret is not in the settings' repr either, which ends up in logs and tracebacks.
    return Field(validation_alias=variable, description=description, repr=variable not in SECRET_VARIABLES, **limits)


class Settings(BaseSettings):
    """The settings of one process. The variable's name is each field's alias."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, env_ignore_empty=True
    )

    home: Annotated[Path, _named("TOTALIZER_HOME", "Data folder: journal, embedded servers, keys, logs.")] = Path(
        ".totalizer"
    )
    host: Annotated[str, _named("HOST", "Address the API listens on.")] = "127.0.0.1"
    port: Annotated[int, _named("PORT", "TCP port of the API.", ge=1, le=65535)] = 3000
    workers: Annotated[int, _named("TOTALIZER_WORKERS", "API processes, each with its own journal.", ge=1, le=64)] = 1
    uds: Annotated[Path | None, _named("TOTALIZER_UDS", "Unix socket the API listens on instead of HOST and PORT.")] = (
        None
    )
    tls_cert: Annotated[
        Path | None, _named("TOTALIZER_TLS_CERT", "PEM file of the certificate and what it is signed with; for HTTPS.")
    ] = None
    tls_key: Annotated[Path | None, _named("TOTALIZER_TLS_KEY", "PEM file of the certificate's key.")] = None
    connections_max: Annotated[
        int,
        _named(
            "TOTALIZER_CONNECTIONS_MAX",
            "Connections one API process holds; further ones wait to be accepted.",
            ge=1,
            le=100_000,
        ),
    ] = 1024
    header_timeout_ms: Annotated[
        int,
        _named(
            "TOTALIZER_HEADER_TIMEOUT_MS",
            "Longest time for a request's header, and between two requests of a connection.",
            ge=100,
            le=3_600_000,
        ),
    ] = 30_000
    body_timeout_ms: Annotated[
        int,
        _named(
            "TOTALIZER_BODY_TIMEOUT_MS",
            "Longest time for a request's body; of a stream, for its next piece.",
            ge=100,
            le=3_600_000,
        ),
    ] = 30_000
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _named("LOG_LEVEL", "Least severe level that is logged."),
    ] = "info"

    database_url: Annotated[
        str | None,
        _named(
            "DATABASE_URL",
            "PostgreSQL to use instead of the embedded one. Its user is used for `migrate` only.",
        ),
    ] = None
    db_host: Annotated[str | None, _named("DB_HOST", "PostgreSQL host, if DATABASE_URL is not set.")] = None
    db_port: Annotated[int, _named("DB_PORT", "PostgreSQL port.", ge=1, le=65535)] = 5432
    db_name: Annotated[str, _named("DB_NAME", "PostgreSQL database.")] = "totalizer"
    db_user: Annotated[str | None, _named("DB_USER", "PostgreSQL user for `migrate`.")] = None
    db_password: Annotated[str | None, _named("DB_PASSWORD", "Password of DB_USER.")] = None
    db_pool_size: Annotated[int, _named("DB_POOL_SIZE", "Database connections of one API process.", ge=1, le=500)] = 20
    redis_url: Annotated[
        str | None, _named("REDIS_URL", "Redis-protocol server to use instead of the embedded Valkey.")
    ] = None
    secret: Annotated[
        str | None,
        _named(
            "TOTALIZER_SECRET",
            "Secret from which the database passwords of the service's roles are derived. Made on first start and "
            "kept in the data folder when not set; machines that share a database must share it.",
        ),
    ] = None

    aggregation_path: Annotated[
        Path | None,
        _named(
            "TOTALIZER_AGGREGATION_PATH",
            "Data path of the batching library whose health the API tells; `aggregated` in the data folder if not set.",
        ),
    ] = None

    catalog_paths: Annotated[
        str, _named("TOTALIZER_CATALOG", "Further catalog files or folders, separated by colons.")
    ] = ""
    default_time_zone: Annotated[
        str, _named("TOTALIZER_TIME_ZONE", "IANA time zone of organisations that name none.")
    ] = "UTC"

    batch_events_max: Annotated[int, _named("MAX_BATCH_SIZE", "Events in one batch request.", ge=1, le=100_000)] = 1000
    body_bytes_max: Annotated[
        int, _named("TOTALIZER_BODY_BYTES_MAX", "Bytes in one request body.", ge=1024, le=256 * MIB)
    ] = 8 * MIB
    journal_quota_bytes: Annotated[
        int,
        _named(
            "TOTALIZER_JOURNAL_QUOTA_BYTES",
            "Disk the journal of one API process may hold while the database is away; then requests get 503.",
            ge=2 * MIB,
        ),
    ] = 4096 * MIB
    journal_segment_bytes: Annotated[
        int, _named("TOTALIZER_JOURNAL_SEGMENT_BYTES", "Size of one journal segment.", ge=MIB, le=1024 * MIB)
    ] = 64 * MIB
    load_rows_max: Annotated[
        int,
        _named("TOTALIZER_LOAD_ROWS_MAX", "Rows the loader stores in one transaction.", ge=1, le=1_000_000),
    ] = 20_000
    refresh_interval_ms: Annotated[
        int,
        _named("TOTALIZER_REFRESH_INTERVAL_MS", "Pause between two looks for dirty buckets.", ge=10, le=3_600_000),
    ] = 500
    receipt_days: Annotated[
        int,
        _named("TOTALIZER_RECEIPT_DAYS", "Days for which receipts can be asked about.", ge=1, le=3650),
    ] = 30
    key_cache_ms: Annotated[
        int,
        _named("TOTALIZER_KEY_CACHE_MS", "Longest time a revoked API key may still be accepted.", ge=0, le=60_000),
    ] = 2000

    jwt_secret: Annotated[
        str | None,
        _named("TOTALIZER_JWT_SECRET", "Secret of tokens signed with HS256, as their maker has it.", min_length=32),
    ] = None
    jwt_keys: Annotated[
        str | None,
        _named("TOTALIZER_JWT_KEYS", "Public keys of tokens signed with RS256 or ES256: PEM or JWKS file, or address."),
    ] = None
    jwt_audience: Annotated[str | None, _named("TOTALIZER_JWT_AUDIENCE", "What the `aud` of tokens must be.")] = None
    jwt_issuer: Annotated[str | None, _named("TOTALIZER_JWT_ISSUER", "What the `iss` of tokens must be.")] = None
    jwt_leeway_ms: Annotated[
        int,
        _named("TOTALIZER_JWT_LEEWAY_MS", "By how much the clock of who makes tokens may differ.", ge=0, le=600_000),
    ] = 30_000
    jwt_refresh_ms: Annotated[
        int,
        _named("TOTALIZER_JWT_REFRESH_MS", "The address of keys is asked at most this often.", ge=100, le=3_600_000),
    ] = 10_000

    rate_limit_requests: Annotated[
        int, _named("RATE_LIMIT_MAX_REQUESTS", "Requests of single events an organisation may send in a window.", ge=0)
    ] = 1000
    rate_limit_window_ms: Annotated[
        int, _named("RATE_LIMIT_WINDOW_MS", "Length of a window.", ge=1000, le=86_400_000)
    ] = 60_000
    rate_limit_batches: Annotated[
        int | None,
        _named("TOTALIZER_RATE_LIMIT_BATCHES", "Requests of batches in a window; 10 times as many.", ge=0),
    ] = None
    rate_limit_reads: Annotated[
        int | None, _named("TOTALIZER_RATE_LIMIT_READS", "Queries in a window; as many as of single events.", ge=0)
    ] = None
    rate_limit_bytes: Annotated[
        int, _named("TOTALIZER_RATE_LIMIT_BYTES", "Bytes of request bodies in a window.", ge=0)
    ] = 0

    @field_validator("default_time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        return zone(name).key

    def database_configured(self) -> bool:
        """True if an own PostgreSQL was named, so that no embedded one is started."""
        return self.database_url is not None or self.db_host is not None


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
