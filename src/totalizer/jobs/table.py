"""Every job: its name, what it does, how often, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.rollup.refresh import refresh
from totalizer.store import ledger
from totalizer.store.partitions import make_ahead


class Job(NamedTuple):
    """Something done again and again.

    Attributes:
        name: what it is called in logs and records.
        run: does it once, over a connection as refresher; returns what it did, empty if there was nothing to do.
        every: from one start to the next.
        limit: how long one run may take; PostgreSQL ends its statements after that.
        recorded: True to keep a record of each run that did something; failures are recorded of all jobs. A job that
            runs all the time would fill the table.
    """

    name: str
    run: Callable[[Connection[Any]], dict[str, Any]]
    every: timedelta
    limit: timedelta
    recorded: bool = True


def refresh_rollups(connection: Connection[Any]) -> dict[str, Any]:
    """Recompute the rollups' marked buckets."""
    done = refresh(connection)
    return {"buckets": done.buckets, "skipped_shards": done.skipped} if done.buckets else {}


def make_partitions(connection: Connection[Any]) -> dict[str, Any]:
    """Make the partitions of the coming days, so that none is missing when the first event of a day arrives."""
    made = make_ahead(connection)
    return {"made": made} if made else {}


def compact_ledger(connection: Connection[Any]) -> dict[str, Any]:
    """Sum up the older rows of the ledger by the hour."""
    rows = ledger.compact(connection)
    return {"rows": rows} if rows else {}


def forget_fates(days: int, connection: Connection[Any]) -> dict[str, Any]:
    """Remove the fates that no receipt can ask for any more."""
    rows = ledger.forget_fates(connection, days)
    return {"rows": rows} if rows else {}


def jobs(refresh_every: timedelta, receipt_days: int) -> list[Job]:
    """The table of jobs.

    Args:
        refresh_every: pause between two looks for dirty buckets.
        receipt_days: how long receipts are good for.
    """
    forget = partial(forget_fates, receipt_days)
    forget.__doc__ = forget_fates.__doc__
    return [
        Job("make_partitions", make_partitions, timedelta(hours=1), timedelta(minutes=10)),
        Job("refresh_rollups", refresh_rollups, refresh_every, timedelta(hours=1), recorded=False),
        Job("compact_ledger", compact_ledger, timedelta(hours=1), timedelta(minutes=30)),
        Job("forget_fates", forget, timedelta(hours=6), timedelta(minutes=30)),
    ]
