"""The composition root: from settings to the parts, put together."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from totalizer.catalog import Catalog, load_catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.edge.folder import Folders
from totalizer.errors import OperationError
from totalizer.settings import Settings, hand_down, load_settings
from totalizer.store.connect import connect
from totalizer.store.password import password_for
from totalizer.store.roles import Role, role_dsn
from totalizer.telemetry import configure_logging, logger

if TYPE_CHECKING:
    # Each process imports its own parts only: the loader needs no web framework, the API no Alembic.
    from redis.asyncio import Redis

    from totalizer.store.plan import Plan
    from totalizer.web.front import Front
    from totalizer.web.identity_token import TokenVerifier
    from totalizer.web.limits import Limiter, Limits

#: Seconds a request may take to finish when the API is asked to stop.
STOP_TIMEOUT_S = 10
#: New objects between two looks of the garbage collector. Requests leave no cycles, so it seldom finds anything.
GC_THRESHOLD = 20_000
#: How soon the journal's thread gets its turn from a busy event loop. At Python's 5 ms it waits longer for the
#: interpreter than for the disk.
SWITCH_INTERVAL_S = 0.0005
#: Connections waiting to be accepted.
BACKLOG = 2048
ADMINISTRATOR = "postgres"


def catalog_for(settings: Settings) -> Catalog:
    """The shipped catalogs and those the settings name."""
    return load_catalog(Path(path).expanduser() for path in settings.catalog_paths.split(":") if path)


def spool_of(settings: Settings) -> Path:
    """The folder of journal folders."""
    return settings.home.expanduser().resolve() / "journal"


def aggregation_of(settings: Settings) -> Folders:
    """The folders of the batching library on this machine, whose health the API tells."""
    return Folders(settings.aggregation_path or settings.home.expanduser().resolve() / "aggregated")


def secret_of(settings: Settings) -> str:
    """The installation's secret: TOTALIZER_SECRET, or the one kept in the data folder.

    Raises:
        OperationError: there is none.
    """
    if settings.secret is not None:
        return settings.secret
    path = settings.home.expanduser().resolve() / "secret"
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise OperationError(f"no secret: set TOTALIZER_SECRET, or let `totalizer up` make {path} ({error})") from None


def database_url(settings: Settings) -> str:
    """The database the settings name.

    Raises:
        OperationError: they name none.
    """
    if settings.database_url is not None:
        return settings.database_url
    if settings.db_host is None:
        raise OperationError("no database: start one with `totalizer up`, or set DATABASE_URL")
    parts = {"user": settings.db_user, "password": settings.db_password}
    return make_conninfo(
        host=settings.db_host, port=settings.db_port, dbname=settings.db_name,
        **{name: value for name, value in parts.items() if value},
    )  # fmt: skip


def dsn_of(settings: Settings, role: Role) -> str:
    """The connection string of one of the service's roles."""
    return role_dsn(database_url(settings), role, secret_of(settings))


def administrator_dsn(settings: Settings) -> str:
    """The connection string of who may create roles: the URL's own user, or the embedded server's administrator."""
    url = database_url(settings)
    named = conninfo_to_dict(url)
    if named.get("user") or not str(named.get("host", "")).startswith("/"):
        return url
    return make_conninfo(url, user=ADMINISTRATOR, password=password_for(secret_of(settings), ADMINISTRATOR))


@contextmanager
def administrator_connection(settings: Settings | None = None) -> Iterator[Connection[Any]]:
    """A connection that may create roles; autocommit.

    Raises:
        StoreUnavailable: the database cannot be reached.
    """
    with connect(administrator_dsn(settings or load_settings()), autocommit=True) as connection:
        yield connection


def migrate(settings: Settings) -> list[str]:
    """Bring the database to the present; returns what was done, a line each."""
    from totalizer.store.migrate import migrate as migrate_database

    with administrator_connection(settings) as connection:
        return migrate_database(connection, catalog_for(settings), secret_of(settings))


def plan(settings: Settings) -> Plan:
    """What applying the catalog would do."""
    from totalizer.store.plan import plan_catalog

    with administrator_connection(settings) as connection:
        return plan_catalog(connection, catalog_for(settings))


def apply(settings: Settings) -> list[str]:
    """Apply the catalog; returns what was done, a line each.

    Raises:
        CatalogChangeRefused: it would destroy stored data.
    """
    from totalizer.store.plan import apply_plan, plan_catalog

    with administrator_connection(settings) as connection:
        return apply_plan(connection, plan_catalog(connection, catalog_for(settings)))


def run_loader(settings: Settings) -> None:
    """Drain the journals of this machine until SIGTERM or SIGINT."""
    from totalizer.load import Loader

    loader = Loader(dsn_of(settings, Role.WRITER), spool_of(settings), rows_max=settings.load_rows_max)
    until_stopped(loader.run)


def until_stopped(run: Callable[[Event], None]) -> None:
    """Call `run` with an event that SIGTERM and SIGINT set."""
    stop = Event()
    signals = {signal.SIGTERM, signal.SIGINT}

    def wait_for_signal() -> None:
        signal.sigwait(signals)
        stop.set()

    # A handler would run in this thread, perhaps while it holds the event's lock, and wait for itself for ever.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    Thread(target=wait_for_signal, name="signals", daemon=True).start()
    run(stop)


def run_api(settings: Settings) -> None:
    """Serve HTTP until SIGTERM or SIGINT.

    The server's worker processes read the settings again, from the environment they inherit.
    """
    from granian import Granian
    from granian.constants import Interfaces, Loops
    from granian.log import LogLevels

    hand_down(settings)
    # A wrong catalog or key stops the start here, with its message, and not in every worker.
    catalog_for(settings)
    token_verifier_of(settings)
    Granian(
        "totalizer.app:create_front", factory=True, interface=Interfaces.RSGI, address=settings.host,
        port=settings.port, workers=settings.workers, backlog=BACKLOG, respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT_S, log_level=LogLevels.warning, loop=Loops.uvloop,
    ).serve()  # fmt: skip


def limits_of(settings: Settings) -> Limits:
    """How much an organisation may send and ask in a window, if it has no limits of its own."""
    from totalizer.web.limits import Limits

    single, batches, reads = settings.rate_limit_requests, settings.rate_limit_batches, settings.rate_limit_reads
    return Limits(
        requests=single,
        batches=10 * single if batches is None else batches,
        reads=single if reads is None else reads,
        bytes=settings.rate_limit_bytes,
    )


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


def create_front() -> Front:
    """The RSGI application of one API process. Called by the server."""
    from psycopg_pool import AsyncConnectionPool
    from redis.asyncio import Redis

    from totalizer.collect import Collector
    from totalizer.journal import claim
    from totalizer.query.completeness import LocalJournals
    from totalizer.query.run import QueryService, configure_reader
    from totalizer.web.api import Services, create_api
    from totalizer.web.asgi_bridge import AsgiBridge
    from totalizer.web.durable import JournalWaiters
    from totalizer.web.front import Front
    from totalizer.web.idempotency import Repeats
    from totalizer.web.identity import Authenticator
    from totalizer.web.ingest import Ingest
    from totalizer.web.quarantine import Quarantine
    from totalizer.web.receipts import Receipts, receipt_key
    from totalizer.web.rejections import Rejections

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
    ingest = Ingest(
        authenticator, collector, journal, body_bytes_max=settings.body_bytes_max, receipts=receipts,
        repeats=Repeats(SYSTEM_CLOCK, redis),
    )  # fmt: skip
    quarantine = Quarantine(dsn_of(settings, Role.WRITER), collector)
    api = create_api(
        Services(
            authenticator, queries, pool, catalog, ingest, redis, aggregation_of(settings), receipts, quarantine,
        )
    )  # fmt: skip
    logger().info("api ready", journal=journal.id)
    # What is built by now lives as long as the process: the collector need not look at it again, nor look often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    async def start() -> None:
        waiters.attach(asyncio.get_running_loop(), journal)
        # Not waiting: without a database the API still starts, says so in its health, and gets ready by itself.
        await pool.open(wait=False)
        limiter.start()
        rejections.start()

    async def stop() -> None:
        await limiter.stop()
        await rejections.stop()
        await authenticator.close()
        await pool.close()
        if redis is not None:
            await redis.aclose()
        journal.close()

    return Front(ingest, AsgiBridge(api, settings.body_bytes_max), start, stop)
