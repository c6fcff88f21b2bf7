"""The API process: its parts put together from the settings, and served."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from functools import partial
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

from totalizer import parts, tracing
from totalizer.app import (
    aggregation_of,
    catalog_for,
    dsn_of,
    export_limits_of,
    gatherer_of,
    health_config,
    measure,
    metrics_of,
    query_limits_of,
    secret_of,
    spool_of,
)  # fmt: skip
from totalizer.clock import SYSTEM_CLOCK
from totalizer.listener import stop_accepting
from totalizer.settings import Settings, hand_down, load_settings
from totalizer.store.roles import Role
from totalizer.telemetry import configure_logging, logger

if TYPE_CHECKING:
    from totalizer.collect import Collector
    from totalizer.web.api import Services
    from totalizer.web.front import Front
    from totalizer.web.health_routes import HealthServices
    from totalizer.web.ingest import Ingest
    from totalizer.web.live_socket import LiveSocket
    from totalizer.web.metrics_routes import MetricsServices
    from totalizer.web.receipts import Receipts
    from totalizer.web.sessions import Sessions

#: New objects between two looks of the garbage collector. Requests leave no cycles, so it seldom finds anything.
GC_THRESHOLD = 20_000
#: How soon the journal's thread gets its turn from a busy event loop. At Python's 5 ms it waits longer for the
#: interpreter than for the disk.
SWITCH_INTERVAL_S = 0.0005
#: Seconds between two looks whether the parent lives. Who killed it wants its processes and the socket gone as well.
PARENT_LOOK_S = 1.0


def run_api(settings: Settings) -> None:
    """Serve HTTP until SIGTERM or SIGINT; SIGHUP replaces the API processes one by one.

    They read the settings again, from the environment they inherit and the file `.env`.

    Raises:
        ConfigurationError: what is set cannot be used.
        OperationError: the address cannot be listened on.
    """
    from totalizer.server import Server

    hand_down(settings)
    # A wrong catalog or key stops the start here, with its message, and not in every worker.
    check(settings)
    server = Server(settings, check)
    loader: Any = partial(create_front, server.listener.fileno())
    server.serve(target_loader=loader, wrap_loader=False)


def check(settings: Settings | None = None) -> None:
    """Make sure that the API can start with these settings, or those of the environment.

    Raises:
        ConfigurationError: it cannot.
    """
    from totalizer.server import tls_of

    settings = settings or load_settings()
    catalog_for(settings)
    health_config(settings)
    parts.token_verifier_of(settings)
    tls_of(settings)


def end_with_parent() -> None:
    """Ask this process to end, as by SIGTERM, when its parent is gone. On the event loop; returns at once."""
    parent = parent_process()
    if parent is None:
        return
    if os.getppid() == parent.pid:
        asyncio.get_running_loop().call_later(PARENT_LOOK_S, end_with_parent)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def create_front(listener: int) -> Front:
    """The RSGI application of one API process. Called by the server.

    Args:
        listener: descriptor of the socket that connections are accepted from.
    """
    settings = load_settings()
    configure_logging(settings.log_level, "api", form=settings.log_format)
    measure(settings, "api")
    tracing.start(settings.traces_endpoint, "api")
    process = ApiProcess(settings, listener)
    # What is built by now lives as long as the process: the collector need not look at it again, nor look often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return process.front


class ApiProcess:
    """The parts of one API process, opened before its first request and closed after its last.

    Args:
        settings: of the service.
        listener: descriptor of the socket that connections are accepted from.

    Attributes:
        front: what the server calls.

    Raises:
        ConfigurationError, OperationError: it cannot start with these settings.
    """

    def __init__(self, settings: Settings, listener: int) -> None:
        from totalizer.health.figures import INGEST, QUERY
        from totalizer.web.api import create_api
        from totalizer.web.asgi_bridge import AsgiBridge
        from totalizer.web.body import BodyReader
        from totalizer.web.durable import JournalWaiters
        from totalizer.web.front import Front
        from totalizer.web.gauges import Gauges
        from totalizer.web.traced import TracedFront

        self._settings, self._listener = settings, listener
        self._waiters = JournalWaiters()
        self._journal = parts.claim_journal(settings, self._waiters)
        self._pool, self._redis = parts.pool_of(settings), parts.redis_of(settings)
        self._usage = parts.usage_counters_of(settings, self._pool)
        self._limiter = parts.limiter_of(settings, self._redis)
        self._bodies = BodyReader(bytes_max=settings.body_bytes_max, timeout_s=settings.body_timeout_ms / 1000)
        self._leaving: list[asyncio.Future[None]] = []
        self._gatherer = gatherer_of(settings, Role.APP)
        services = self._services()
        bridge = AsgiBridge(create_api(services), self._bodies)
        front = Front if tracing.ON is None else TracedFront
        self.front = front(services.ingest, bridge, self._socket(), self._start, self._stop)
        answered = {INGEST: self.front.taken_in, QUERY: self.front.queried}
        self._gauges = Gauges(self._journal, self._live, self._seats, self._pool, answered)
        logger().info("api ready", journal=self._journal.id)

    def _services(self) -> Services:
        """What the routes work with."""
        from totalizer.collect import Collector
        from totalizer.query.cache import AnswerCache
        from totalizer.query.completeness import LocalJournals
        from totalizer.query.exports.service import ExportService
        from totalizer.query.run import QueryService
        from totalizer.web.api import Services
        from totalizer.web.identity import Authenticator
        from totalizer.web.live_channel import Seats
        from totalizer.web.operator.session import session_key
        from totalizer.web.quarantine import Quarantine
        from totalizer.web.receipts import Receipts, receipt_key
        from totalizer.web.rejections import Rejections
        from totalizer.web.sessions import Sessions
        from totalizer.web.usage_routes import UsageServices

        settings, pool = self._settings, self._pool
        catalog = catalog_for(settings)
        self._authenticator = Authenticator(
            pool, SYSTEM_CLOCK, self._limiter, parts.token_verifier_of(settings), cache_s=settings.key_cache_ms / 1000
        )
        collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=settings.batch_events_max)
        self._rejections = Rejections(pool, SYSTEM_CLOCK, catalog.event_types)
        collector.on_rejected = self._rejections.count
        receipts = Receipts(
            receipt_key(secret_of(settings)), self._journal.id, SYSTEM_CLOCK, days=settings.receipt_days
        )
        sessions = Sessions(collector, pool, SYSTEM_CLOCK)
        cache = AnswerCache(SYSTEM_CLOCK, ttl_s=settings.cache_ttl_s, bytes_max=settings.cache_bytes, redis=self._redis)
        queries = QueryService(pool, catalog, LocalJournals(spool_of(settings)), query_limits_of(settings), cache)
        self._live = parts.live_windows_of(settings, pool, catalog, self._redis, self._journal.id)
        self._publishers = parts.live_publishers_of(settings, pool, self._redis)
        self._seats = Seats(settings.live_connections_max)
        return Services(
            authenticator=self._authenticator, queries=queries,
            exports=ExportService(pool, queries, export_limits_of(settings), spool_of(settings).parent / "exports"),
            pool=pool, catalog=catalog, ingest=self._ingest(collector, receipts, sessions),
            health=self._health(), receipts=receipts,
            quarantine=Quarantine(dsn_of(settings, Role.WRITER), collector), sessions=sessions,
            usage=UsageServices(self._authenticator, pool, self._usage, SYSTEM_CLOCK), live=self._live,
            seats=self._seats, session_key=session_key(secret_of(settings)),
            metrics=self._metrics(),
        )  # fmt: skip

    def _health(self) -> HealthServices:
        from totalizer.web.health_routes import HealthServices

        return HealthServices(
            self._gatherer, self._pool, self._redis, aggregation_of(self._settings),
            lambda: self._journal.stats().refusal,
        )  # fmt: skip

    def _metrics(self) -> MetricsServices:
        from totalizer.web.metrics_routes import MetricsServices

        return MetricsServices(
            metrics_of(self._settings) if self._settings.metrics else None, self._settings.metrics_token
        )

    def _ingest(self, collector: Collector, receipts: Receipts, sessions: Sessions) -> Ingest:
        from totalizer.web.idempotency import Repeats
        from totalizer.web.ingest import Ingest
        from totalizer.web.route_table import session_routes, usage_track_routes
        from totalizer.web.traced import TracedJournal

        on = tracing.ON
        journal = self._journal if on is None else TracedJournal(self._journal, on)
        return Ingest(
            self._authenticator, collector, journal, bodies=self._bodies, receipts=receipts,
            repeats=Repeats(SYSTEM_CLOCK, self._redis),
            more=session_routes(sessions) | usage_track_routes(collector, self._usage),
        )  # fmt: skip

    def _socket(self) -> LiveSocket:
        from totalizer.web.live_socket import LiveSocket

        return LiveSocket(
            self._authenticator, self._live, self._seats, SYSTEM_CLOCK,
            subscriptions_max=self._settings.live_subscriptions_max,
        )  # fmt: skip

    async def _start(self) -> None:
        from totalizer.server import DRAIN_SIGNAL, STOP_SIGNAL

        loop = asyncio.get_running_loop()
        self._waiters.attach(loop, self._journal)
        # Not waiting: without a database the API still starts, says so in its health, and gets ready by itself.
        await self._pool.open(wait=False)
        self._bodies.start()
        self._limiter.start()
        self._rejections.start()
        self._live.start()
        for publisher in self._publishers:
            publisher.start()
        self._gauges.start()
        loop.add_signal_handler(DRAIN_SIGNAL, self._drain)
        loop.add_signal_handler(STOP_SIGNAL, self._end)
        end_with_parent()

    def _drain(self) -> None:
        """Another process takes over: no new connections, and each open one ends with its next answer."""
        from totalizer.server import DRAIN_S

        self.front.closing = True
        stop_accepting(self._listener)
        self._leaving.append(asyncio.ensure_future(self._seats.leave(DRAIN_S)))
        asyncio.get_running_loop().call_later(DRAIN_S, os.kill, os.getpid(), signal.SIGTERM)

    def _end(self) -> None:
        self._leaving.append(asyncio.ensure_future(self._leave()))

    async def _leave(self) -> None:
        """Say goodbye over live connections, which the server would close without a word, and end."""
        from totalizer.server import LEAVE_S

        await self._seats.leave(LEAVE_S)
        os.kill(os.getpid(), signal.SIGTERM)

    async def _stop(self) -> None:
        self._bodies.stop()
        self._gatherer.close()
        await self._gauges.stop()
        await self._limiter.stop()
        await self._rejections.stop()
        await self._live.stop()
        for publisher in self._publishers:
            await publisher.stop()
        await self._authenticator.close()
        await self._usage.close()
        await self._pool.close()
        if self._redis is not None:
            await self._redis.aclose()
        self._journal.close()
        tracing.stop()
