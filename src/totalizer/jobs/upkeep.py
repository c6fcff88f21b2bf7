"""The bodies of upkeep: partitions, ledger, fates, dead letters, books, and the record of runs itself."""

from __future__ import annotations

from typing import Any

from totalizer.errors import OperationError
from totalizer.jobs.job import Context
from totalizer.load.retry import DeadLetterLoader
from totalizer.metrics import MEASURES
from totalizer.metrics.table import BUCKETS, REFRESH
from totalizer.rollup.minutes import clear_minutes as clear_old_minutes
from totalizer.rollup.reconcile import reconcile as look_at_some
from totalizer.rollup.refresh import refresh
from totalizer.rollup.repair import repair, wrong_of
from totalizer.rollup.traced import traced
from totalizer.rollup.verify import verify as verify_books
from totalizer.store import dead_letters, ledger, runs
from totalizer.store.partitions import make_ahead
from totalizer.store.roles import Role

#: A dead letter is tried again by itself this often; then a person has to look.
RETRIES_MAX = 5
#: Dead letters tried in one run.
LETTERS_MAX = 10_000
#: Books that do not balance and are named in a result.
NAMED_MAX = 20


def refresh_rollups(context: Context) -> dict[str, Any]:
    """Recompute the rollups' marked buckets."""
    began = context.clock.monotonic()
    with traced(context.connection):
        done = refresh(context.connection)
    if done.buckets:
        MEASURES.observe(REFRESH, context.clock.monotonic() - began)
        MEASURES.count(BUCKETS, by=done.buckets)
    return {"buckets": done.buckets, "skipped_shards": done.skipped}


def make_partitions(context: Context) -> dict[str, Any]:
    """Make the partitions of the coming days, so that none is missing when the first event of a day arrives."""
    return {"made": make_ahead(context.connection)}


def compact_ledger(context: Context) -> dict[str, Any]:
    """Sum up the older rows of the ledger by the hour."""
    return {"rows": ledger.compact(context.connection)}


def forget_fates(context: Context) -> dict[str, Any]:
    """Remove the fates that no receipt can ask for any more."""
    return {"rows": ledger.forget_fates(context.connection, context.settings.receipt_days)}


def forget_runs(context: Context) -> dict[str, Any]:
    """Remove the record of runs that ended long ago."""
    return {"rows": runs.forget(context.connection, context.settings.job_history_days)}


def dead_letter_retry(context: Context) -> dict[str, Any]:
    """Try events that the database refused again, each five times at most."""
    ids = dead_letters.ids_to_retry(context.connection, RETRIES_MAX, LETTERS_MAX)
    loader = DeadLetterLoader(context.open(Role.WRITER))
    stored = refused = 0
    for number, letter_id in enumerate(ids):
        context.progress(number, len(ids))
        retried = loader.retry(letter_id)
        refused += bool(retried.reason)
        stored += not retried.reason
    return {"tried": len(ids), "rows": stored, "refused_again": refused}


def verify(context: Context) -> dict[str, Any]:
    """Prove that what was loaded, stored, rolled up and billed agree; fails if anything differs.

    Usage that came when its day was over is brought into `merchant_usage`, if that is filled at all: nothing is wrong.
    """
    balances = verify_books(context.connection, helpers=[context.open(Role.REFRESHER)])
    filled = context.settings.usage_aggregation_enabled
    late = [balance for balance in balances if filled and balance.only_late_usage]
    raised = sum(repair(context.connection, each) for balance in late for each in wrong_of(balance.cells))
    wrong = [balance for balance in balances if not balance.exact and balance not in late]
    if wrong:
        named = ", ".join(f"{each.organization}/{each.event_type}" for each in wrong[:NAMED_MAX])
        raise OperationError(f"{len(wrong)} of {len(balances)} do not balance: {named}; see `totalizer verify`")
    return {
        "balances": len(balances), "events": sum(balance.events for balance in balances), "late_usage_rows": raised,
    }  # fmt: skip


def reconcile(context: Context) -> dict[str, Any]:
    """Hold some rows of every rollup against what they are made from; repairs and tells of those that are wrong."""
    looked = look_at_some(context.connection, clock=context.clock)
    return {**looked, "rows": looked["repaired"]}


def clear_minutes(context: Context) -> dict[str, Any]:
    """Remove rows of single minutes that are older than their rollups promise."""
    return clear_old_minutes(context.connection)
