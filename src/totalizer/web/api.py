"""The API behind the hot path: queries, health, the page, OpenAPI."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from litestar import Litestar, Request, Response, get
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from redis.asyncio import Redis
from redis.exceptions import RedisError

from totalizer import __version__
from totalizer.catalog import Catalog
from totalizer.edge.folder import Folders
from totalizer.edge.health_endpoint import folder_health
from totalizer.errors import Refusal, Refused
from totalizer.live import LiveWindows
from totalizer.query.run import QueryService
from totalizer.telemetry import logger
from totalizer.web import problem
from totalizer.web.fate_routes import FateServices, fate_routes
from totalizer.web.gate import tell_limits
from totalizer.web.identity import Authenticator
from totalizer.web.ingest import Ingest
from totalizer.web.ingest_routes import ingest_routes
from totalizer.web.job_routes import job_routes
from totalizer.web.key_routes import key_routes
from totalizer.web.live_channel import Seats
from totalizer.web.live_routes import live_routes
from totalizer.web.metrics_routes import MetricsServices, metrics_routes
from totalizer.web.page import page_routes
from totalizer.web.quarantine import Quarantine
from totalizer.web.query_routes import QueryRoutes, query_routes
from totalizer.web.receipts import Receipts
from totalizer.web.session_updates import session_updates
from totalizer.web.sessions import Sessions
from totalizer.web.usage_routes import UsageServices, usage_routes

#: HTTP status → refusal, for errors that the framework raises itself.
_REFUSALS = {404: Refusal.NOT_FOUND, 405: Refusal.METHOD_NOT_ALLOWED, 413: Refusal.BODY_TOO_LARGE}


class Services(msgspec.Struct, frozen=True):
    """What the routes work with."""

    authenticator: Authenticator
    queries: QueryService
    pool: AsyncConnectionPool[Any]
    catalog: Catalog
    ingest: Ingest
    redis: Redis | None
    aggregation: Folders
    receipts: Receipts
    quarantine: Quarantine
    sessions: Sessions
    usage: UsageServices
    live: LiveWindows
    seats: Seats
    metrics: MetricsServices


def create_api(services: Services) -> Litestar:
    """The application. Its parts are opened and closed by who made them."""
    fates = FateServices(services.authenticator, services.pool, services.receipts, services.quarantine)
    return Litestar(
        route_handlers=[
            *_routes(services),
            *query_routes(QueryRoutes(services.authenticator, services.queries)),
            *fate_routes(fates),
            *ingest_routes(services.ingest),
            session_updates(services.ingest, services.sessions),
            *key_routes(services.authenticator, services.pool),
            *usage_routes(services.usage),
            *job_routes(services.authenticator, services.pool),
            *live_routes(services.authenticator, services.live, services.seats),
            *metrics_routes(services.metrics),
            *page_routes(),
        ],
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _unexpected},
        openapi_config=OpenAPIConfig(title="Totalizer", version=__version__, path="/api/docs"),
        before_send=[tell_limits],
        logging_config=None,
        debug=False,
    )


def _routes(services: Services) -> list[Any]:
    @get("/health/live", summary="Is the process up?", sync_to_thread=False)
    def live() -> dict[str, str]:
        return {"status": "ok"}

    @get(["/health", "/health/ready", "/api/metrics/health"], summary="Can it answer?")
    async def ready() -> Response[dict[str, str]]:
        database = await _database_status(services.pool)
        # Redis holds nothing that cannot be rebuilt: without it the service is slower, not unavailable.
        answer = {"database": database, "redis": await _redis_status(services.redis), "version": __version__}
        status = 200 if database == "ok" else 503
        return Response({"status": "ok" if status == 200 else "unavailable", **answer}, status_code=status)

    @get("/health/aggregation", summary="Do the batches of the batching library arrive?", sync_to_thread=True)
    def aggregation() -> Response[dict[str, Any]]:
        """What the recovery daemon on this machine found last; 200 with `unknown` where none has run."""
        status, answer = folder_health(services.aggregation)
        return Response(answer, status_code=status)

    return [live, ready, aggregation]


async def _database_status(pool: AsyncConnectionPool[Any]) -> str:
    try:
        async with pool.connection(timeout=2) as connection:
            await connection.execute("SELECT 1 FROM totalizer.journal_offsets LIMIT 1")
    except (psycopg.OperationalError, PoolTimeout):
        return "cannot be reached"
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


def _problem(refused: Refused) -> Response[bytes]:
    status, headers, body = problem.response(refused)
    return Response(body, status_code=status, headers=dict(headers), media_type=problem.MEDIA_TYPE)


def _refused(_: Request[Any, Any, Any], error: Refused) -> Response[bytes]:
    return _problem(error)


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    refusal = _REFUSALS.get(error.status_code)
    if refusal is None:
        return _problem(Refused(Refusal.BAD_REQUEST if error.status_code < 500 else Refusal.INTERNAL, error.detail))
    response = _problem(Refused(refusal, f"{request.method} {request.url.path}: {error.detail}"))
    response.headers.update(error.headers or {})
    return response


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    request_id = request.scope["state"].get("request_id")
    logger().error(
        "request failed", request_id=request_id, method=request.method, path=request.url.path, exc_info=error
    )
    return _problem(Refused(Refusal.INTERNAL, "something went wrong here; it has been logged"))
