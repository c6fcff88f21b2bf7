"""A transaction with one view of the data, as the organisation that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.errors import Refusal, Refused
from totalizer.store.tenant import reading_as

Pool = AsyncConnectionPool[Any]
#: The setting that limits the time of a query's statement.
QUERY_TIMEOUT = "TOTALIZER_QUERY_TIMEOUT_MS"


async def configure_reader(connection: AsyncConnection[Any]) -> None:
    """Make every transaction of a pooled connection a read-only one with one view of the data."""
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)


@asynccontextmanager
async def snapshot(
    pool: Pool, organization_id: str, *, timeout_ms: int | None = None, setting: str = QUERY_TIMEOUT
) -> AsyncIterator[AsyncConnection[Any]]:
    """A transaction that sees that organisation's rows and no others.

    Args:
        pool: of connections that `configure_reader` has seen.
        organization_id: whose.
        timeout_ms: longest time of a statement, milliseconds; None for that of the database.
        setting: which says so, for who was refused.

    Raises:
        Refused: the database is away, or a statement took too long.
    """
    try:
        async with reading_as(pool, organization_id, statement_timeout_ms=timeout_ms) as connection:
            yield connection
    except psycopg.errors.InvalidParameterValue as error:
        # The one parameter that Python and PostgreSQL may judge differently: their time zone databases differ.
        raise Refused(Refusal.INVALID_QUERY, f"time_zone: PostgreSQL says: {str(error).strip()}") from error
    except psycopg.errors.QueryCanceled as error:
        longest = "the database allows" if timeout_ms is None else f"{timeout_ms} ms ({setting})"
        raise Refused(
            Refusal.QUERY_TIMEOUT,
            f"finding the answer took longer than {longest}; ask for a shorter range, longer windows or fewer "
            "dimensions",
        ) from error
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise Refused(
            Refusal.DATABASE_UNAVAILABLE, "the database cannot answer at present; try again", retry_after_s=5
        ) from error
