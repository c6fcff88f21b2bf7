"""Transactions of the app role, as one organisation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.errors import StoreUnavailable
from totalizer.store.audit import Actor


@asynccontextmanager
async def reading_as(
    pool: AsyncConnectionPool[Any],
    organization_id: str,
    *,
    timeout_s: float | None = None,
    statement_timeout_ms: int | None = None,
) -> AsyncIterator[AsyncConnection[Any]]:
    """A transaction that sees that organisation's rows and no others, and changes nothing.

    Args:
        pool: connections as the app role, whose transactions only read unless they say otherwise.
        organization_id: whose.
        timeout_s: longest wait for a connection; None for the pool's own.
        statement_timeout_ms: longest time of a statement, which runs in one process of the database; None for what the
            database has by itself.

    Raises:
        psycopg.OperationalError, PoolTimeout: the database is away.
    """
    settings, values = "SELECT set_config('app.current_org_id', %s, true)", [organization_id]
    if statement_timeout_ms is not None:
        # Starting parallel workers takes several times as long as most answers, and one query shall not take all cores.
        settings += (
            ", set_config('statement_timeout', %s, true), set_config('max_parallel_workers_per_gather', '0', true)"
        )
        values.append(str(statement_timeout_ms))
    async with pool.connection(timeout=timeout_s) as connection, connection.transaction():
        await connection.execute(settings.encode(), values)
        yield connection


@asynccontextmanager
async def writing_as(
    pool: AsyncConnectionPool[Any], organization_id: str, by: Actor
) -> AsyncIterator[AsyncConnection[Any]]:
    """A transaction that sees and changes that organisation's rows and no others.

    Args:
        pool: connections as the app role.
        organization_id: whose.
        by: who does it, for the audit trail.

    Raises:
        StoreUnavailable: the database is away. Whether what was written stays is not known then.
    """
    try:
        async with pool.connection() as connection, connection.transaction():
            # The pool's transactions only read, unless they say otherwise first.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
            await connection.execute(
                "SELECT set_config('app.current_org_id', %s, true), set_config('app.actor', %s, true)",
                [organization_id, by.setting],
            )
            yield connection
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {str(error).strip()}") from error
