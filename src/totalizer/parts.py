"""The parts of an API process, each made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from totalizer.app import dsn_of, limits_of, spool_of
from totalizer.clock import SYSTEM_CLOCK
from totalizer.settings import Settings
from totalizer.store.roles import Role

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool
    from redis.asyncio import Redis

    from totalizer.catalog import Catalog
    from totalizer.journal import Journal
    from totalizer.live import LiveWindows, Publisher
    from totalizer.live.relay import LiveRelay
    from totalizer.web.durable import JournalWaiters
    from totalizer.web.identity_token import TokenVerifier
    from totalizer.web.limits import Limiter
    from totalizer.web.usage_counting import UsageCounters


def claim_journal(settings: Settings, waiters: JournalWaiters) -> Journal:
    """A journal of this process' own."""
    from totalizer.journal import claim

    return claim(
        spool_of(settings), "api", segment_bytes=settings.journal_segment_bytes,
        quota_bytes=settings.journal_quota_bytes, on_commit=waiters.on_commit,
    )  # fmt: skip


def pool_of(settings: Settings) -> AsyncConnectionPool[Any]:
    """Connections as the app role, not opened yet."""
    from psycopg_pool import AsyncConnectionPool

    from totalizer.query.run import configure_reader
    from totalizer.store.connect import check_open

    return AsyncConnectionPool(
        dsn_of(settings, Role.APP), min_size=1, max_size=settings.db_pool_size, open=False, timeout=5,
        configure=configure_reader, check=check_open, kwargs={"options": "-c timezone=UTC"}, name="app",
    )  # fmt: skip


def redis_of(settings: Settings) -> Redis | None:
    """The way to Redis; None if none is set."""
    from redis.asyncio import Redis

    if settings.redis_url is None:
        return None
    return Redis.from_url(settings.redis_url, socket_connect_timeout=1, socket_timeout=1)


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


def usage_counters_of(settings: Settings, pool: AsyncConnectionPool[Any]) -> UsageCounters:
    """What counts usage in Redis, if there is one."""
    from totalizer.store.usage_counters import connect_async
    from totalizer.web.usage_counting import UsageCounters

    return UsageCounters(None if settings.redis_url is None else connect_async(settings.redis_url), pool, SYSTEM_CLOCK)


def live_windows_of(
    settings: Settings, pool: AsyncConnectionPool[Any], catalog: Catalog, redis: Redis | None, asker: str
) -> LiveWindows:
    """The live windows of this process; `asker` is the id of its journal."""
    from totalizer.live import Asks, Elsewhere, Follower, Limits, LiveWindows, StoredWindows, Tails
    from totalizer.live.engine import PENDING_SHARE

    limits = Limits(
        settings.live_memory_mb << 20, settings.live_groups_max, settings.flush_interval_ms / 1000,
        settings.live_retry_attempts, settings.live_retry_delay_ms / 1000, settings.live_frame_ms / 1000,
    )  # fmt: skip
    stored = StoredWindows(pool, limits.groups_max)
    follower = Follower(
        Tails(spool_of(settings)), stored, SYSTEM_CLOCK, pending_bytes_max=int(limits.memory_bytes * PENDING_SHARE),
        failures_max=settings.live_failures_max, elsewhere=Elsewhere(relay_of(redis), asker, SYSTEM_CLOCK),
    )  # fmt: skip
    asks = Asks(catalog, settings.aggregation_windows.split(","))
    return LiveWindows(catalog, asks, stored, follower, SYSTEM_CLOCK, limits)


def live_publishers_of(settings: Settings, pool: AsyncConnectionPool[Any], redis: Redis | None) -> list[Publisher]:
    """What tells other machines of this one's records; nothing without Redis."""
    from totalizer.live import Publisher, StoredWindows, Tails

    relay = relay_of(redis)
    if relay is None:
        return []
    folder = settings.home.expanduser().resolve() / "live"
    stored = StoredWindows(pool, settings.live_groups_max)
    return [Publisher(relay, Tails(spool_of(settings)), stored, folder, SYSTEM_CLOCK)]


def relay_of(redis: Redis | None) -> LiveRelay | None:
    """The way to other machines' live windows; None without Redis."""
    from totalizer.live.relay import LiveRelay

    return None if redis is None else LiveRelay(redis)
