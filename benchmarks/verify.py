"""Proving that the books balance, beside one plain statement; finding and repairing a number changed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from benchmarks.progress import note
from benchmarks.result import Result, less_is_better
from benchmarks.rollup import refreshed
from benchmarks.rollup_data import Books, books
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError
from totalizer.rollup.reconcile import reconcile
from totalizer.rollup.repair import repair, wrong_of
from totalizer.rollup.verify import Balance, verify

BENCH = "verify"
#: Connections that share a comparison.
CONNECTIONS = 2

_PLAINLY = """
    SELECT count(*) FROM (
        SELECT organization_id, date_bin('15 minutes', called_at, 'epoch'::timestamptz), route, count(*),
               sum(cost::numeric), max(ms)
        FROM events.calls GROUP BY 1, 2, 3
    ) AS rows"""


def run(quick: bool, data: Path | None = None) -> Iterator[Result]:
    """All cases, over 1 million events or 10 million.

    Args:
        quick: 1 million.
        data: folder that keeps the database for the next time.
    """
    events = 1_000_000 if quick else 10_000_000
    with books(data) as opened:
        if not (stored := opened.value("SELECT coalesce(sum(loaded), 0)::bigint FROM totalizer.load_ledger")):
            _prepare(opened, events)
        elif stored != events:
            raise OperationError(f"--data names a database of {stored:,} events; this is about {events:,}")
        plain = _timed(lambda: opened.value(_PLAINLY))
        yield _all_of_it(opened, events, plain)
        yield _found_and_repaired(opened, events, plain)
        yield _reconciled(opened)


def _prepare(opened: Books, events: int) -> None:
    opened.fill(events, days=events / 100_000)
    opened.empty_rollup()
    _, seconds = refreshed(opened)
    note(f"{events:,} events rolled up in {seconds:,.1f} s")
    opened.administrator.execute(
        "INSERT INTO totalizer.load_ledger (organization_id, event_type, loaded, duplicate, conflict, dead_lettered) "
        "SELECT organization_id, 'calls', count(*), 0, 0, 0 FROM events.calls GROUP BY 1"
    )
    opened.administrator.execute("VACUUM ANALYZE")


def _all_of_it(opened: Books, events: int, plain: float) -> Result:
    with psycopg.connect(opened.dsn, autocommit=True) as helper:
        seconds = _timed(lambda: _check(verify(opened.refresher, helpers=[helper])))
    case = f"{events:,} events, all grains, {CONNECTIONS} connections"
    return less_is_better(BENCH, case, "s", [seconds], "one GROUP BY of 15 minutes", [plain])


def _found_and_repaired(opened: Books, events: int, plain: float) -> Result:
    opened.administrator.execute(
        "UPDATE analytics.traffic_15m SET calls = calls + 1 "
        "WHERE ctid = (SELECT ctid FROM analytics.traffic_15m OFFSET 1000 LIMIT 1)"
    )

    def mend() -> None:
        with psycopg.connect(opened.dsn, autocommit=True) as helper:
            found = [cell for balance in verify(opened.refresher, helpers=[helper]) for cell in balance.cells]
            rows = sum(repair(opened.refresher, wrong) for wrong in wrong_of(found))
            if rows != 1:
                raise OperationError(f"one row was changed by hand, and {rows} were repaired")
            _check(verify(opened.refresher, helpers=[helper]))

    case = f"{events:,} events, a number changed by hand: found, repaired, verified again"
    return less_is_better(BENCH, case, "s", [_timed(mend)], "one GROUP BY of 15 minutes", [plain])


def _reconciled(opened: Books) -> Result:
    looked = [reconcile(opened.refresher) for _ in range(10)]
    spans = sum(each["checked"] for each in looked)
    took = sum(each["duration_ms"] for each in looked) / spans
    return less_is_better(BENCH, "a span looked at by the reconciler", "ms", [took], "a second", [1000.0])


def _timed(work: Callable[[], object]) -> float:
    started = SYSTEM_CLOCK.monotonic()
    work()
    return SYSTEM_CLOCK.monotonic() - started


def _check(balances: list[Balance]) -> None:
    wrong = [balance for balance in balances if not balance.exact]
    if wrong or not balances:
        raise OperationError(f"the books should balance, and these do not: {wrong[:3]}")
