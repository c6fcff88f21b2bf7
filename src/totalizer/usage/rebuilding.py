"""Rebuilding counters that are behind what is stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from totalizer.store import merchant_usage
from totalizer.store.merchant_usage import Usage
from totalizer.store.usage_counters import Counters
from totalizer.store.usage_keys import Counter
from totalizer.usage.workers import Connections


def rebuild(counters: Counters, connections: Connections, day: date, check: Callable[[], None]) -> int:
    """Raise a day's counters to the table; returns how many were behind.

    The table is read before: what it holds was on disk by then, so whoever may still be about to add that has read a
    generation that ends now.

    Args:
        counters: the counters.
        connections: this thread's is used.
        day: UTC.
        check: raises if nothing more shall be done; asked before each page.

    Raises:
        StoreUnavailable: Redis is away.
        psycopg.Error: the database is.
    """
    connection = connections.get()
    _, default = merchant_usage.organizations(connection)
    raised = 0
    for usages in merchant_usage.usages_of(connection, day):
        check()
        wanted = {_key(usage, default, day): usage.value for usage in usages}
        present = counters.read([key.encode() for key in wanted])
        behind = {
            key: value
            for (key, value), found in zip(wanted.items(), present, strict=True)
            if found is None or (isinstance(found, bytes) and found.isdigit() and int(found) < value)
        }
        raised += counters.raise_to(behind)
    return raised


def _key(usage: Usage, default: str | None, day: date) -> str:
    owner = None if usage.organization_id == default else usage.organization_id
    return Counter(owner, usage.merchant_id, day.isoformat(), usage.metric_type).key
