"""Organisations whose merchants use something, over a test's database and a Redis-protocol server."""

from __future__ import annotations

from datetime import date
from typing import Any

from redis import Redis

from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.ops.embedded import EmbeddedValkey
from totalizer.store.roles import Role
from totalizer.store.usage_counters import connect
from totalizer.usage.job import UsageAggregationJob
from totalizer.usage.tracker import UsageTracker


class Shop:
    """Organisations whose merchants use something. `default` is one of them."""

    def __init__(self, feed: Any, valkey: EmbeddedValkey) -> None:
        self.feed, self.valkey = feed, valkey
        self.redis = Redis.from_url(valkey.url)
        self.redis.flushall()
        self.organization_id = feed.organization("default")
        self._open: list[Any] = []

    @property
    def today(self) -> date:
        return utc_datetime(SYSTEM_CLOCK.now_ns()).date()

    def tracker(self, organization: str = "default", url: str | None = None) -> UsageTracker:
        """A tracker of an organisation; closed in the end."""
        organization_id = self.feed.organization(organization)
        tracker = UsageTracker(
            organization_id, None if organization == "default" else organization_id,
            lambda owner, body: self.feed.collector.admit_one(owner, "usage", body).payload,
            self.feed.spool, connect(url or self.valkey.url), segment_bytes=1 << 20, quota_bytes=1 << 26,
        )  # fmt: skip
        self._open.append(tracker)
        return tracker

    def job(self, url: str | None = None, **options: Any) -> UsageAggregationJob:
        """An aggregation job; closed in the end."""
        job = UsageAggregationJob(
            self.feed.database.dsn(Role.REFRESHER), connect(url or self.valkey.url), **{"attempts": 2, **options}
        )
        self._open.append(job)
        return job

    def counter(self, key: str) -> int | None:
        """What a counter holds."""
        value = self.redis.get(key)
        assert value is None or isinstance(value, bytes)
        return None if value is None else int(value)

    def table(self) -> dict[tuple[str, str, str], int]:
        """What the default organisation's merchants used: by merchant, day and metric."""
        return {key[1:]: value for key, value in self.tables().items() if key[0] == self.organization_id}

    def tables(self) -> dict[tuple[str, str, str, str], int]:
        """The same of all organisations."""
        rows = self.feed.rows(
            "SELECT organization_id::text, merchant_id, date::text, metric_type, metric_value "
            "FROM totalizer.merchant_usage"
        )
        return {row[:4]: row[4] for row in rows}

    def close(self) -> None:
        for each in self._open:
            each.close()
        self.redis.close()
