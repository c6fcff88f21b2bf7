"""Which PostgreSQL and Redis-protocol server are used."""

from __future__ import annotations

from typing import Annotated

from pydantic_settings import BaseSettings

from totalizer.settings.named import named


class DatabaseSettings(BaseSettings):
    """Which PostgreSQL and Redis-protocol server are used."""

    database_url: Annotated[
        str | None,
        named(
            "DATABASE_URL",
            "PostgreSQL to use instead of the embedded one. Its user is used for `migrate` only.",
        ),
    ] = None
    db_host: Annotated[str | None, named("DB_HOST", "PostgreSQL host, if DATABASE_URL is not set.")] = None
    db_port: Annotated[int, named("DB_PORT", "PostgreSQL port.", ge=1, le=65535)] = 5432
    db_name: Annotated[str, named("DB_NAME", "PostgreSQL database.")] = "totalizer"
    db_user: Annotated[str | None, named("DB_USER", "PostgreSQL user for `migrate`.")] = None
    db_password: Annotated[str | None, named("DB_PASSWORD", "Password of DB_USER.")] = None
    db_pool_size: Annotated[int, named("DB_POOL_SIZE", "Database connections of one API process.", ge=1, le=500)] = 20
    redis_url: Annotated[
        str | None, named("REDIS_URL", "Redis-protocol server to use instead of the embedded Valkey.")
    ] = None
    secret: Annotated[
        str | None,
        named(
            "TOTALIZER_SECRET",
            "Secret from which the database passwords of the service's roles are derived. Made on first start and "
            "kept in the data folder when not set; machines that share a database must share it.",
        ),
    ] = None

    def database_configured(self) -> bool:
        """True if an own PostgreSQL was named, so that no embedded one is started."""
        return self.database_url is not None or self.db_host is not None
