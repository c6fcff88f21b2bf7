"""The composition root: from settings to the parts, put together."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from psycopg import Connection, ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from totalizer import tracing
from totalizer.catalog import Catalog, load_catalog
from totalizer.errors import OperationError
from totalizer.settings import Settings, load_settings
from totalizer.store.connect import connected
from totalizer.store.password import password_for
from totalizer.store.roles import Role, role_dsn
from totalizer.telemetry import logger

if TYPE_CHECKING:
    # Each process imports its own parts only: the loader needs no web framework, the API no Alembic.
    from totalizer.edge.folder import Folders
    from totalizer.health.config import HealthConfig
    from totalizer.health.gather import Gatherer
    from totalizer.query.cost import QueryLimits
    from totalizer.query.exports.limits import ExportLimits
    from totalizer.store.plan import Plan
    from totalizer.usage.tracker import UsageTracker
    from totalizer.web.limits import Limits

ADMINISTRATOR = "postgres"


def catalog_for(settings: Settings) -> Catalog:
    """The shipped catalogs and those the settings name."""
    return load_catalog(Path(path).expanduser() for path in settings.catalog_paths.split(":") if path)


def spool_of(settings: Settings) -> Path:
    """The folder of journal folders."""
    return settings.home.expanduser().resolve() / "journal"


def aggregation_of(settings: Settings) -> Folders:
    """The folders of the batching library on this machine, whose health the API tells."""
    from totalizer.edge.folder import Folders

    return Folders(settings.aggregation_path or settings.home.expanduser().resolve() / "aggregated")


def gatherer_of(settings: Settings, role: Role) -> Gatherer:
    """What checks the health of this machine and the installation, asking the database as a role.

    Raises:
        ConfigurationError: the file of thresholds that is set cannot be used.
    """
    from totalizer.health.gather import Gatherer, Places

    places = Places(
        lambda: dsn_of(settings, role), settings.redis_url, settings.home.expanduser().resolve(), spool_of(settings),
        aggregation_of(settings), settings.journal_quota_bytes,
    )  # fmt: skip
    return Gatherer(places, health_config(settings).levels)


def health_config(settings: Settings) -> HealthConfig:
    """Thresholds and alert rules.

    Raises:
        ConfigurationError: the file that is set cannot be used.
    """
    from totalizer.health.config import load_config

    return load_config(settings.health_file)


def metrics_of(settings: Settings) -> Path:
    """The folder in which the processes on a data folder keep what they measure."""
    from totalizer.metrics.slot import FOLDER

    return settings.home.expanduser().resolve() / FOLDER


def measure(settings: Settings, component: str) -> None:
    """Keep what this process measures, for `/metrics` and for health.

    Args:
        settings: of the service.
        component: this process' part: api, loader, scheduler or worker.
    """
    from totalizer.metrics import MEASURES

    try:
        MEASURES.open(metrics_of(settings), component)
    except OSError as error:
        logger().warning("what this process measures is not kept", reason=error.strerror or str(error))


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
        OperationError: they name none, or not in a way that can be read.
    """
    if settings.database_url is not None:
        try:
            conninfo_to_dict(settings.database_url)
        except ProgrammingError:  # its words may quote the password
            raise OperationError(
                "DATABASE_URL cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/NAME, with special characters "
                "of the password as %XX"
            ) from None
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
        StoreUnavailable: the database cannot be reached, or goes away.
        OperationError: it refuses what it is asked within the block.
    """
    with connected(administrator_dsn(settings or load_settings())) as connection:
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

    measure(settings, "loader")
    loader = Loader(dsn_of(settings, Role.WRITER), spool_of(settings), rows_max=settings.load_rows_max)
    with tracing.traced(settings.traces_endpoint, "loader"):
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


def export_limits_of(settings: Settings) -> ExportLimits:
    """How many exports run at once, and how large one may be."""
    from totalizer.query.exports.limits import ExportLimits

    return ExportLimits(
        rows=settings.export_rows_max, concurrency=settings.export_concurrency,
        # Pages are read over the connections of queries, which must not all wait for exports.
        concurrency_all=min(settings.export_concurrency_all, max(settings.db_pool_size // 2, 1)),
        timeout_ms=settings.export_timeout_ms, client_timeout_ms=settings.export_client_timeout_ms,
        spool_bytes=settings.export_spool_bytes,
    )  # fmt: skip


def query_limits_of(settings: Settings) -> QueryLimits:
    """What one query may cost."""
    from totalizer.query.cost import QueryLimits

    return QueryLimits(
        windows=settings.query_windows_max, events=settings.query_events_max,
        dirty_events=settings.query_dirty_events_max, timeout_ms=settings.query_timeout_ms,
        concurrency=settings.query_concurrency,
    )  # fmt: skip


def usage_tracker(organization: str = "default", settings: Settings | None = None) -> UsageTracker:
    """Counts usage from this process: see docs/reference/usage.md. Close it in the end, or use it in a with-block.

    Args:
        organization: its name.
        settings: those of the environment, if left out.

    Raises:
        OperationError: there is no such organisation.
        StoreUnavailable: the database is away; it is asked once, for the organisation.
    """
    from totalizer.clock import SYSTEM_CLOCK
    from totalizer.collect import Collector
    from totalizer.store.merchant_usage import organization_named
    from totalizer.store.usage_counters import connect
    from totalizer.usage.tracker import SEGMENT_BYTES, UsageTracker

    settings = settings or load_settings()
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        organization_id, plain = organization_named(connection, organization)
    collector = Collector(catalog_for(settings), SYSTEM_CLOCK, batch_events_max=settings.batch_events_max)
    return UsageTracker(
        organization_id, None if plain else organization_id,
        lambda owner, body: collector.admit_one(owner, "usage", body).payload, spool_of(settings),
        None if settings.redis_url is None else connect(settings.redis_url),
        segment_bytes=min(SEGMENT_BYTES, settings.journal_segment_bytes), quota_bytes=settings.journal_quota_bytes,
    )  # fmt: skip
