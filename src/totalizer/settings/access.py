"""Who may ask, and how much."""

from __future__ import annotations

from typing import Annotated

from pydantic_settings import BaseSettings

from totalizer.settings.named import named


class AccessSettings(BaseSettings):
    """Who may ask, and how much."""

    jwt_secret: Annotated[
        str | None,
        named("TOTALIZER_JWT_SECRET", "Secret of tokens signed with HS256, as their maker has it.", min_length=32),
    ] = None
    jwt_keys: Annotated[
        str | None,
        named("TOTALIZER_JWT_KEYS", "Public keys of tokens signed with RS256 or ES256: PEM or JWKS file, or address."),
    ] = None
    jwt_audience: Annotated[str | None, named("TOTALIZER_JWT_AUDIENCE", "What the `aud` of tokens must be.")] = None
    jwt_issuer: Annotated[str | None, named("TOTALIZER_JWT_ISSUER", "What the `iss` of tokens must be.")] = None
    jwt_leeway_ms: Annotated[
        int,
        named("TOTALIZER_JWT_LEEWAY_MS", "By how much the clock of who makes tokens may differ.", ge=0, le=600_000),
    ] = 30_000
    jwt_refresh_ms: Annotated[
        int,
        named("TOTALIZER_JWT_REFRESH_MS", "The address of keys is asked at most this often.", ge=100, le=3_600_000),
    ] = 10_000
    rate_limit_requests: Annotated[
        int, named("RATE_LIMIT_MAX_REQUESTS", "Requests of single events an organisation may send in a window.", ge=0)
    ] = 1000
    rate_limit_window_ms: Annotated[
        int, named("RATE_LIMIT_WINDOW_MS", "Length of a window.", ge=1000, le=86_400_000)
    ] = 60_000
    rate_limit_batches: Annotated[
        int | None,
        named("TOTALIZER_RATE_LIMIT_BATCHES", "Requests of batches in a window; 10 times as many.", ge=0),
    ] = None
    rate_limit_reads: Annotated[
        int | None, named("TOTALIZER_RATE_LIMIT_READS", "Queries in a window; as many as of single events.", ge=0)
    ] = None
    rate_limit_bytes: Annotated[
        int, named("TOTALIZER_RATE_LIMIT_BYTES", "Bytes of request bodies in a window.", ge=0)
    ] = 0
