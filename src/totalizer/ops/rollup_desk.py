"""What operators do about rollups, on the database of a stack."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from psycopg import Connection

from totalizer.app import dsn_of
from totalizer.clock import SYSTEM_CLOCK
from totalizer.rollup import parts
from totalizer.rollup.explain import Asked, Explained
from totalizer.rollup.explain import explain as explain_cell
from totalizer.rollup.parts import Portion, Standing
from totalizer.rollup.refresh import refresh
from totalizer.rollup.repair import repair, wrong_of
from totalizer.rollup.verify import Balance, Scope
from totalizer.rollup.verify import verify as verify_books
from totalizer.settings import Settings
from totalizer.store.audit import os_user
from totalizer.store.connect import connected
from totalizer.store.roles import Role
from totalizer.store.runs import database_now

#: Connections that share a comparison, at most.
CONNECTIONS_MAX = 4
#: Seconds to wait for another worker who is at the same shards.
PAUSE_S = 0.2

Progress = Callable[[int, int], None]


@contextmanager
def _refresher(settings: Settings) -> Iterator[Connection[Any]]:
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        yield connection


def verify(settings: Settings, scope: Scope, progress: Progress | None = None) -> list[Balance]:
    """Compare the books with as many connections as there are processors, up to CONNECTIONS_MAX."""
    with ExitStack() as stack:
        count = min(CONNECTIONS_MAX, os.cpu_count() or 1)
        connections = [stack.enter_context(_refresher(settings)) for _ in range(count)]
        return verify_books(connections[0], scope, helpers=connections[1:], progress=progress)


def repair_all(settings: Settings, balances: list[Balance], progress: Progress | None = None) -> int:
    """Compute everything anew that differs; returns how many rows were wrong."""
    wrong = wrong_of(cell for balance in balances for cell in balance.cells)
    rows = 0
    with _refresher(settings) as connection:
        for number, each in enumerate(wrong, 1):
            rows += repair(connection, each, repaired_by=os_user())
            if progress is not None:
                progress(number, len(wrong))
    return rows


def recompute(settings: Settings, portion: Portion | None, *, live: bool, progress: Progress | None = None) -> int:
    """Mark a part and refresh until nothing of that kind is marked that was.

    Args:
        settings: of the stack.
        portion: what to mark; None: what is marked already is worked off.
        live: before, or after everything else that waits.
        progress: told how many marks of how many are settled.

    Returns:
        How many buckets were recomputed; some may be others', taken along.
    """
    with _refresher(settings) as connection:
        if portion is not None:
            parts.mark_part(connection, portion, live=live)
        # What comes in meanwhile is left to the service: it would never end.
        until = database_now(connection)
        total = left = parts.waiting(connection, until, live=live)
        buckets = 0
        while left:
            done = refresh(connection)
            buckets += done.buckets
            if not done.buckets:
                SYSTEM_CLOCK.sleep(PAUSE_S)
            left = parts.waiting(connection, until, live=live)
            if progress is not None:
                progress(total - left, total)
        return buckets


def standings(settings: Settings) -> list[Standing]:
    """How far every rollup is."""
    with _refresher(settings) as connection:
        return parts.standings(connection)


def explain(settings: Settings, asked: Asked, rows_max: int) -> Explained:
    """What a cell is made of."""
    with _refresher(settings) as connection:
        return explain_cell(connection, asked, rows_max)
