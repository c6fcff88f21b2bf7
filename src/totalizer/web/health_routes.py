"""How the service is. What needs no key names no secret and no customer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import psycopg
from litestar import Response, get
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from redis.asyncio import Redis
from redis.exceptions import RedisError

from totalizer import __version__
from totalizer.edge.folder import Folders
from totalizer.edge.health_endpoint import folder_health
from totalizer.health.gather import Gatherer
from totalizer.health.report import UNHEALTHY, Report
from totalizer.web.answer import json_answer
from totalizer.web.described import run as answers
from totalizer.web.described.forms import Form
from totalizer.web.described.operation import described

#: Seconds that the database gets to show that it is ready.
READY_S = 2.0
_NO_STORE = {"cache-control": "no-store"}


class HealthServices(NamedTuple):
    """What the routes work with.

    Attributes:
        gatherer: makes the checks.
        pool: connections as the app role.
        redis: None if there is none.
        aggregation: folders of the batching library.
        refusal: why the journal takes no events at present; None if it does.
    """

    gatherer: Gatherer
    pool: AsyncConnectionPool[Any]
    redis: Redis | None
    aggregation: Folders
    refusal: Callable[[], str | None]


def health_routes(services: HealthServices) -> list[Any]:
    """The routes."""
    # Sources that hang must not take the threads of other routes.
    threads = ThreadPoolExecutor(2, thread_name_prefix="checks")

    async def checked() -> Report:
        return await asyncio.get_running_loop().run_in_executor(threads, services.gatherer)

    @get("/health/live", summary="Is the process up?", sync_to_thread=False, **_of(answers.ALIVE))
    def live() -> dict[str, str]:
        """Asks nobody else: a database that is away is no reason to start this process again."""
        return {"status": "ok"}

    @get("/health/ready", summary="Can it do its work?", **_of(answers.READY, 503))
    async def ready() -> Response[dict[str, Any]]:
        """503 names in `missing` what it waits for."""
        database, redis = await asyncio.gather(_database_status(services.pool), _redis_status(services.redis))
        missing = [] if database == "ok" else [f"database: {database}"]
        if services.refusal() is not None:
            missing.append("journal: the disk refuses, or it is full")
        # Redis holds nothing that cannot be rebuilt: without it the service is slower, not unavailable.
        answer: dict[str, Any] = {"status": "unavailable" if missing else "ok", "database": database, "redis": redis}
        answer |= {"missing": missing, "version": __version__}
        return Response(answer, status_code=503 if missing else 200, headers=_NO_STORE)

    @get(["/health", "/api/metrics/health"], summary="Is all well?", **_of(answers.HEALTH, 503))
    async def health() -> Response[bytes]:
        """Every check with its figure, its levels and what to do. 503 if any of them is critical."""
        report = await checked()
        database = report.facts.database
        answer = json_answer(
            {**report.document(), "database": database.problem or "ok", "redis": report.facts.redis,
             "version": __version__}
        )  # fmt: skip
        answer.status_code = 503 if report.status == UNHEALTHY else 200
        answer.headers.update(_NO_STORE)
        return answer

    @get(
        "/health/aggregation", summary="Do the batches of the batching library arrive?", sync_to_thread=True,
        **_of(answers.AGGREGATION, 503),
    )  # fmt: skip
    def aggregation() -> Response[dict[str, Any]]:
        """What the recovery daemon on this machine found last; 200 with `unknown` where none has run."""
        status, answer = folder_health(services.aggregation)
        return Response(answer, status_code=status, headers=_NO_STORE)

    @get("/api/metrics/performance", summary="Six figures of the last minute", **_of(answers.PERFORMANCE))
    async def performance() -> Response[bytes]:
        """Measured, in sum or on average over the API processes of this machine."""
        answer = json_answer((await checked()).performance_document())
        answer.headers.update(_NO_STORE)
        return answer

    return [live, ready, health, aggregation, performance]


def _of(form: Form, *statuses: int) -> dict[str, Any]:
    """Anybody may ask; the answer has one form, whatever its status."""
    return described(answers.HEALTH_TAG, None, dict.fromkeys((200, *statuses), form))


async def _database_status(pool: AsyncConnectionPool[Any]) -> str:
    try:
        async with asyncio.timeout(READY_S + 1), pool.connection(timeout=READY_S) as connection:
            await connection.execute("SELECT 1 FROM totalizer.journal_offsets LIMIT 1")
    except (psycopg.OperationalError, PoolTimeout):
        return "cannot be reached"
    except TimeoutError:
        return "does not answer"
    except psycopg.Error as error:
        return f"not migrated: {error.sqlstate}; run `totalizer migrate`"
    return "ok"


async def _redis_status(redis: Redis | None) -> str:
    if redis is None:
        return "not configured"
    try:
        await redis.ping()
    except (RedisError, OSError):
        return "cannot be reached"
    return "ok"
