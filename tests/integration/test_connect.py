"""Connections to PostgreSQL that the server has ended meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg_pool import AsyncConnectionPool

from support import wait_until
from totalizer.store.connect import check_open
from totalizer.store.roles import Role


def test_a_connection_that_was_ended_in_the_pool_is_not_handed_out(database: Any) -> None:
    administrator = database.connect()

    def gone(backend: int) -> bool:
        return bool(
            administrator.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [backend]).fetchone() is None
        )

    async def ask() -> tuple[int, int]:
        async with AsyncConnectionPool(
            database.dsn(Role.APP), min_size=1, max_size=1, open=False, check=check_open
        ) as pool:
            async with pool.connection() as connection:
                before = connection.info.backend_pid
            administrator.execute("SELECT pg_terminate_backend(%s)", [before])
            wait_until(lambda: gone(before), "the connection's end")
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
                return before, connection.info.backend_pid

    before, after = asyncio.run(ask())
    assert before != after
