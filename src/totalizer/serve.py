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

from totalizer.app import aggregation_of, catalog_for, dsn_of, limits_of, secret_of, spool_of
from totalizer.clock import SYSTEM_CLOCK
from totalizer.listener import stop_accepting
from totalizer.settings import Settings, hand_down, load_settings
from totalizer.store.roles import Role
from totalizer.telemetry import configure_logging, logger

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool
    from redis.asyncio import Redis

    from totalizer.catalog import Catalog
    from totalizer.live import LiveWindows
    from totalizer.web.front import Front
    from totalizer.web.identity_token import TokenVerifier
    from totalizer.web.limits import Limiter

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
    token_verifier_of(settings)
    tls_of(settings)


def limiter_of(settings: Settings, redis: Redis | None) -> Limiter:
    """What counts the requests of organisations, with the machine's other API processes and other machines'."""
    from totalizer.store.leases import RedisLeases
    from totalizer.web.limits import Limiter

    return Limiter(
        limits_of(settings), window_ms=settings.rate_limit_window_ms,
        leases=None if redis is None else RedisLeases(redis), processes=settings.workers, clock=SYSTEM_CLOCK,
    )  # fmt: skip


def token_verifier_of(settings: Settings) -> TokenVerifier | None:
    """What checks tokens; None if neither a secret nor keys are set.

    Raises:
        ConfigurationError: the keys cannot be used.
    """
    from totalizer.web.identity_sources import key_source
    from totalizer.web.identity_token import TokenVerifier

    if settings.jwt_secret is None and settings.jwt_keys is None:
        return None
    keys = None
    if settings.jwt_keys is not None:
        keys = key_source(settings.jwt_keys, SYSTEM_CLOCK, refresh_s=settings.jwt_refresh_ms / 1000)
    return TokenVerifier(
        SYSTEM_CLOCK, secret=settings.jwt_secret, keys=keys, audience=settings.jwt_audience,
        issuer=settings.jwt_issuer, leeway_s=settings.jwt_leeway_ms / 1000,
    )  # fmt: skip


def live_windows_of(settings: Settings, pool: AsyncConnectionPool[Any], catalog: Catalog) -> LiveWindows:
    """The live windows of this process."""
    from totalizer.live import Asks, Follower, Limits, LiveWindows, StoredWindows, Tails
    from totalizer.live.engine import PENDING_SHARE

    limits = Limits(
        settings.live_memory_mb << 20, settings.live_groups_max, settings.flush_interval_ms / 1000,
        settings.live_retry_attempts, settings.live_retry_delay_ms / 1000, settings.live_frame_ms / 1000,
    )  # fmt: skip
    stored = StoredWindows(pool, limits.groups_max)
    follower = Follower(
        Tails(spool_of(settings)), stored, SYSTEM_CLOCK, pending_bytes_max=int(limits.memory_bytes * PENDING_SHARE),
        failures_max=settings.live_failures_max,
    )  # fmt: skip
    asks = Asks(catalog, settings.aggregation_windows.split(","))
    return LiveWindows(catalog, asks, stored, follower, SYSTEM_CLOCK, limits)


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
    from psycopg_pool import AsyncConnectionPool
    from redis.asyncio import Redis

    from totalizer.collect import Collector
    from totalizer.journal import claim
    from totalizer.query.completeness import LocalJournals
    from totalizer.query.run import QueryService, configure_reader
    from totalizer.server import DRAIN_S, DRAIN_SIGNAL, LEAVE_S, STOP_SIGNAL
    from totalizer.web.api import Services, create_api
    from totalizer.web.asgi_bridge import AsgiBridge
    from totalizer.web.body import BodyReader
    from totalizer.web.durable import JournalWaiters
    from totalizer.web.front import Front
    from totalizer.web.idempotency import Repeats
    from totalizer.web.identity import Authenticator
    from totalizer.web.ingest import Ingest
    from totalizer.web.live_channel import Seats
    from totalizer.web.live_socket import LiveSocket
    from totalizer.web.quarantine import Quarantine
    from totalizer.web.receipts import Receipts, receipt_key
    from totalizer.web.rejections import Rejections
    from totalizer.web.route_table import session_routes
    from totalizer.web.sessions import Sessions

    settings = load_settings()
    configure_logging(settings.log_level, "api")
    catalog = catalog_for(settings)
    waiters = JournalWaiters()
    journal = claim(
        spool_of(settings), "api", segment_bytes=settings.journal_segment_bytes,
        quota_bytes=settings.journal_quota_bytes, on_commit=waiters.on_commit,
    )  # fmt: skip
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        dsn_of(settings, Role.APP), min_size=1, max_size=settings.db_pool_size, open=False, timeout=5,
        configure=configure_reader, kwargs={"options": "-c timezone=UTC"}, name="app",
    )  # fmt: skip
    redis = None
    if settings.redis_url is not None:
        redis = Redis.from_url(settings.redis_url, socket_connect_timeout=1, socket_timeout=1)
    limiter = limiter_of(settings, redis)
    authenticator = Authenticator(
        pool, SYSTEM_CLOCK, limiter, token_verifier_of(settings), cache_s=settings.key_cache_ms / 1000
    )
    collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=settings.batch_events_max)
    rejections = Rejections(pool, SYSTEM_CLOCK, catalog.event_types)
    collector.on_rejected = rejections.count
    queries = QueryService(pool, catalog, LocalJournals(spool_of(settings)))
    receipts = Receipts(receipt_key(secret_of(settings)), journal.id, SYSTEM_CLOCK, days=settings.receipt_days)
    sessions = Sessions(collector, pool, SYSTEM_CLOCK)
    bodies = BodyReader(SYSTEM_CLOCK, bytes_max=settings.body_bytes_max, timeout_s=settings.body_timeout_ms / 1000)
    ingest = Ingest(
        authenticator, collector, journal, bodies=bodies, receipts=receipts,
        repeats=Repeats(SYSTEM_CLOCK, redis), more=session_routes(sessions),
    )  # fmt: skip
    quarantine = Quarantine(dsn_of(settings, Role.WRITER), collector)
    live, seats = live_windows_of(settings, pool, catalog), Seats(settings.live_connections_max)
    api = create_api(
        Services(
            authenticator, queries, pool, catalog, ingest, redis, aggregation_of(settings), receipts, quarantine,
            sessions, live, seats,
        )
    )  # fmt: skip
    socket = LiveSocket(
        authenticator, live, seats, SYSTEM_CLOCK, subscriptions_max=settings.live_subscriptions_max
    )  # fmt: skip
    logger().info("api ready", journal=journal.id)
    # What is built by now lives as long as the process: the collector need not look at it again, nor look often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    leaving: list[asyncio.Future[None]] = []

    async def start() -> None:
        waiters.attach(asyncio.get_running_loop(), journal)
        # Not waiting: without a database the API still starts, says so in its health, and gets ready by itself.
        await pool.open(wait=False)
        bodies.start()
        limiter.start()
        rejections.start()
        live.start()

        asyncio.get_running_loop().add_signal_handler(DRAIN_SIGNAL, drain)
        asyncio.get_running_loop().add_signal_handler(STOP_SIGNAL, end)
        end_with_parent()

    def drain() -> None:
        front.closing = True
        stop_accepting(listener)
        leaving.append(asyncio.ensure_future(seats.leave(DRAIN_S)))
        asyncio.get_running_loop().call_later(DRAIN_S, os.kill, os.getpid(), signal.SIGTERM)

    def end() -> None:
        leaving.append(asyncio.ensure_future(leave()))

    async def leave() -> None:
        # The server closes live connections without a word.
        await seats.leave(LEAVE_S)
        os.kill(os.getpid(), signal.SIGTERM)

    async def stop() -> None:
        bodies.stop()
        await limiter.stop()
        await rejections.stop()
        await live.stop()
        await authenticator.close()
        await pool.close()
        if redis is not None:
            await redis.aclose()
        journal.close()

    front = Front(ingest, AsgiBridge(api, bodies), socket, start, stop)
    return front
