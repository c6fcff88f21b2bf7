"""The API behind the hot path: queries, health, the page, OpenAPI."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from psycopg_pool import AsyncConnectionPool

from totalizer import __version__
from totalizer.catalog import Catalog
from totalizer.errors import Refusal, Refused
from totalizer.live import LiveWindows
from totalizer.query.exports.service import ExportService
from totalizer.query.run import QueryService
from totalizer.telemetry import logger
from totalizer.web import problem
from totalizer.web.alert_routes import alert_routes
from totalizer.web.audit_routes import audit_routes
from totalizer.web.described.operation import components
from totalizer.web.export_routes import ExportRoutes, export_routes
from totalizer.web.fate_routes import FateServices, fate_routes
from totalizer.web.gate import tell_limits
from totalizer.web.health_routes import HealthServices, health_routes
from totalizer.web.identity import Authenticator
from totalizer.web.ingest import Ingest
from totalizer.web.ingest_routes import ingest_routes
from totalizer.web.job_routes import job_routes
from totalizer.web.key_routes import key_routes
from totalizer.web.live_channel import Seats
from totalizer.web.live_routes import live_routes
from totalizer.web.metrics_routes import MetricsServices, metrics_routes
from totalizer.web.operator.routes import OperatorServices, operator_routes
from totalizer.web.page import page_routes
from totalizer.web.quarantine import Quarantine
from totalizer.web.query_routes import QueryRoutes, query_routes
from totalizer.web.receipts import Receipts
from totalizer.web.session_updates import session_updates
from totalizer.web.sessions import Sessions
from totalizer.web.usage_routes import UsageServices, usage_routes

#: HTTP status → refusal, for errors that the framework raises itself.
_REFUSALS = {404: Refusal.NOT_FOUND, 405: Refusal.METHOD_NOT_ALLOWED, 413: Refusal.BODY_TOO_LARGE}
_DESCRIPTION = OpenAPIConfig(
    title="Totalizer", version=__version__, path="/api/docs", components=components(), use_handler_docstrings=True
)


class Services(msgspec.Struct, frozen=True):
    """What the routes work with."""

    authenticator: Authenticator
    queries: QueryService
    exports: ExportService
    pool: AsyncConnectionPool[Any]
    catalog: Catalog
    ingest: Ingest
    health: HealthServices
    receipts: Receipts
    quarantine: Quarantine
    sessions: Sessions
    usage: UsageServices
    live: LiveWindows
    seats: Seats
    session_key: bytes
    metrics: MetricsServices


def create_api(services: Services) -> Litestar:
    """The application. Its parts are opened and closed by who made them."""
    fates = FateServices(services.authenticator, services.pool, services.receipts, services.quarantine)
    operator = OperatorServices(
        services.authenticator, services.pool, services.health.gatherer, services.quarantine, services.session_key
    )
    return Litestar(
        route_handlers=[
            *health_routes(services.health),
            *query_routes(QueryRoutes(services.authenticator, services.queries)),
            *export_routes(ExportRoutes(services.authenticator, services.exports)),
            *fate_routes(fates),
            *ingest_routes(services.ingest),
            session_updates(services.ingest, services.sessions),
            *key_routes(services.authenticator, services.pool),
            *usage_routes(services.usage),
            *job_routes(services.authenticator, services.pool),
            *alert_routes(services.authenticator, services.pool, services.health.gatherer.folder),
            *audit_routes(services.authenticator, services.pool),
            *live_routes(services.authenticator, services.live, services.seats),
            *metrics_routes(services.metrics),
            *page_routes(),
            operator_routes(operator),
        ],
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _unexpected},
        openapi_config=_DESCRIPTION,
        before_send=[tell_limits],
        logging_config=None,
        debug=False,
    )


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
