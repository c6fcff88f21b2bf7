"""Proving that the books balance: ledger = events = every grain of every rollup = bills, for every organisation.

All of it is read in one snapshot, which several connections share. Each grain is compared with what it is made from:
minutes and quarters with events, hours and days with quarters, weeks and months with days; and `merchant_usage` with
the events of usage. What a mark says is behind is left out; everything else must be equal to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection, IsolationLevel

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import LEVELS, Level
from totalizer.errors import OperationError
from totalizer.rollup.cell import NAMES, Cell, find_cells
from totalizer.rollup.comparison import Part
from totalizer.rollup.summing import Sums, Task, run_all, tasks_of
from totalizer.rollup.usage_books import SOURCE, find_usage_cells, only_late
from totalizer.rollup.verify_floors import ACCOUNTED_FOR
from totalizer.store.dead_letters import organization_id_of
from totalizer.store.plan import Applied, read_applied

#: Differing cells that are named of one organisation and grain, and of one grain of all organisations.
CELLS_MAX, ROWS_MAX = 1_000, 100_000


class Scope(NamedTuple):
    """What is compared; None stands for all.

    Attributes:
        organization: name of whose books.
        event_type, rollup: of which.
        since: only what begins then or later. What was loaded is counted whole all the same.
    """

    organization: str | None = None
    event_type: str | None = None
    rollup: str | None = None
    since: datetime | None = None


class Balance(NamedTuple):
    """The books of one organisation and event type.

    Attributes:
        organization_id, organization: whose they are.
        event_type: of which events.
        events: stored, kept beside the tables since they came late, or removed since they were older than is kept.
        ledger: rows the loader says it stored.
        dirty_buckets: base buckets that are marked, and so not compared.
        mismatches: for each rollup and grain with any, and for `merchant_usage`, how many rows differ from what they
            are made from.
        cells: those rows, the first of each grain.
    """

    organization_id: str
    organization: str
    event_type: str
    events: int
    ledger: int
    dirty_buckets: int
    mismatches: dict[str, int]
    cells: tuple[Cell, ...] = ()

    @property
    def exact(self) -> bool:
        """True if nothing differs."""
        return self.events == self.ledger and not self.mismatches

    @property
    def only_late_usage(self) -> bool:
        """True if nothing differs but that `merchant_usage` lacks usage which came when its day was over."""
        return self.events == self.ledger and bool(self.cells) and only_late(self.cells)


def verify(
    connection: Connection[Any], scope: Scope | None = None, *, helpers: Sequence[Connection[Any]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Balance]:  # fmt: skip
    """The balance of every organisation and event type that has any events.

    Args:
        connection: as the refresher role, not in a transaction.
        scope: what is compared; everything if None.
        helpers: connections like the first, which share its work and its snapshot.
        progress: told how many of how many pieces are done.

    Raises:
        OperationError: there is no organisation, event type or rollup of that name.
        psycopg.Error: the database is away.
    """
    scope = scope or Scope()
    with _one_snapshot([connection, *helpers]):
        applied = _chosen(read_applied(connection), scope)
        part = Part(_organizations(connection, scope), scope.since)
        tasks = [task for rollup, event_type in applied for task in tasks_of(connection, rollup, event_type, part)]
        counts = [_count_task(event_type, part) for event_type in _types(applied)]
        with _by_hashes([connection, *helpers]):
            found = run_all([connection, *helpers], [*counts, *tasks], progress)
        stored = {key.event_type: rows for key, rows in found.items() if key.rollup is None}
        cells = [cell for each in _differing(connection, applied, part, found) for cell in each]
        if any(rollup is not None and rollup.name == SOURCE for rollup, _ in applied):
            cells += find_usage_cells(connection, part, CELLS_MAX, ROWS_MAX)
        return [
            balance
            for event_type in _types(applied)
            for balance in _balances(connection, event_type, part, stored[event_type.name], cells)
        ]


def _chosen(applied: Applied, scope: Scope) -> list[tuple[Rollup | None, EventType]]:
    """The rollups to be compared with their event types; an event type without any has None."""
    for name, names in ((scope.event_type, applied.event_types), (scope.rollup, applied.rollups)):
        if name is not None and name not in names:
            raise OperationError(f"there is no {name!r} in this database; there are {', '.join(sorted(names))}")
    chosen: list[tuple[Rollup | None, EventType]] = []
    for event_type in applied.event_types.values():
        if scope.event_type not in (None, event_type.name):
            continue
        mine = [rollup for rollup in applied.rollups.values() if rollup.event_type == event_type.name]
        if scope.rollup is not None:
            chosen += [(rollup, event_type) for rollup in mine if rollup.name == scope.rollup]
        else:
            chosen += [(rollup, event_type) for rollup in mine or (None,)]
    return chosen


def _types(chosen: Sequence[tuple[Rollup | None, EventType]]) -> list[EventType]:
    return list({event_type.name: event_type for _, event_type in chosen}.values())


def _organizations(connection: Connection[Any], scope: Scope) -> tuple[str, ...] | None:
    if scope.organization is None:
        return None
    return (organization_id_of(connection, scope.organization),)


@contextmanager
def _one_snapshot(connections: Sequence[Connection[Any]]) -> Iterator[None]:
    """A transaction on each connection; all of them see the database as it is now."""
    before = [connection.isolation_level for connection in connections]
    first, *others = connections
    for connection in connections:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with first.transaction():
            row = first.execute("SELECT pg_export_snapshot()").fetchone()
            assert row is not None
            with _imported(others, row[0]):
                for connection in connections:
                    # Groups of a piece stay in memory mostly.
                    connection.execute("SET LOCAL work_mem = '128MB'; SET LOCAL jit = off")
                    if others:
                        # They are the parallel workers.
                        connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
                yield
    finally:
        for connection, isolation in zip(connections, before, strict=True):
            connection.isolation_level = isolation


@contextmanager
def _by_hashes(connections: Sequence[Connection[Any]]) -> Iterator[None]:
    """Without sorts and loops over an index: whole tables are summed up, and the planner expects some hundred rows."""
    for on in (False, True):
        for connection in connections:
            connection.execute(f"SET LOCAL enable_sort = {on}; SET LOCAL enable_nestloop = {on}".encode())
        if not on:
            yield


@contextmanager
def _imported(connections: Sequence[Connection[Any]], snapshot: str) -> Iterator[None]:
    if not connections:
        yield
        return
    with connections[0].transaction():
        connections[0].execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())
        with _imported(connections[1:], snapshot):
            yield


def _differing(
    connection: Connection[Any], chosen: Sequence[tuple[Rollup | None, EventType]], part: Part,
    found: dict[Task, Sums],
) -> Iterator[list[Cell]]:  # fmt: skip
    """The cells of those organisations whose sums differ."""
    sides: dict[tuple[str, Level], tuple[Sums, Sums]] = {}
    for task, sums in found.items():
        if task.rollup is not None and task.level is not None:
            pair = sides.setdefault((task.rollup, task.level), (Sums({}), Sums({})))
            pair[task.truth].add(sums)
    for rollup, event_type in chosen:
        for level in LEVELS:
            if rollup is None or not rollup.keeps(level):
                continue
            kept, truth = sides[rollup.name, level]
            if different := truth.differing(kept):
                narrowed = part._replace(organizations=tuple(different))
                yield find_cells(connection, rollup, level, event_type, narrowed, CELLS_MAX, ROWS_MAX)


def _count_task(event_type: EventType, part: Part) -> Task:
    """How many events are stored, by organisation."""
    statement = (
        f'SELECT organization_id, count(*), 0 FROM events."{event_type.name}" '
        "WHERE %(organizations)s::uuid[] IS NULL OR organization_id = ANY (%(organizations)s::uuid[]) GROUP BY 1"
    )
    return Task(event_type.name, None, None, False, statement, part)


def _balances(
    connection: Connection[Any], event_type: EventType, part: Part, stored: Sums, cells: Sequence[Cell]
) -> Iterator[Balance]:
    events = {organization: count for organization, (count, _) in stored.of.items()}
    mine: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.event_type == event_type.name:
            mine.setdefault(cell.organization_id, []).append(cell)
    rows = connection.execute(
        f"""
        WITH elsewhere AS ({ACCOUNTED_FOR}), ledger AS (
            SELECT organization_id, sum(loaded)::bigint AS loaded FROM totalizer.ledger
            WHERE event_type = %(type)s GROUP BY 1
        ), dirty AS (
            SELECT organization_id, count(DISTINCT bucket) AS buckets FROM totalizer.dirty_marks
            WHERE event_type = %(type)s GROUP BY 1
        ), known AS (
            SELECT id FROM totalizer.organizations
            UNION SELECT organization_id FROM elsewhere UNION SELECT organization_id FROM ledger
            UNION SELECT unnest(%(named)s::uuid[])
        )
        SELECT k.id::text, coalesce(o.name, k.id::text), coalesce(e.events, 0), coalesce(loaded, 0),
               coalesce(buckets, 0)
        FROM known k LEFT JOIN totalizer.organizations o USING (id)
        LEFT JOIN elsewhere e ON e.organization_id = k.id
        LEFT JOIN ledger l ON l.organization_id = k.id
        LEFT JOIN dirty d ON d.organization_id = k.id
        WHERE %(organizations)s::uuid[] IS NULL OR k.id = ANY (%(organizations)s::uuid[])
        ORDER BY 2""",
        {"type": event_type.name, "named": [*events, *mine], "organizations": part.parameters()["organizations"]},
    ).fetchall()
    for organization_id, name, elsewhere, ledger, dirty in rows:
        count = events.get(organization_id, 0) + elsewhere
        own = [cell._replace(organization=name) for cell in mine.get(organization_id, ())]
        if count or ledger or own:
            mismatches = {f"{cell.rollup} ({NAMES[cell.level]})": cell.differing for cell in own}
            yield Balance(organization_id, name, event_type.name, count, ledger, dirty, mismatches, tuple(own))
