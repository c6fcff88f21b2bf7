"""The first look of a comparison: counts and sums of hashes by organisation, in pieces that connections share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import Level
from totalizer.rollup import comparison
from totalizer.rollup.comparison import Part

#: Events of one piece, as the planner's statistics have it: their groups fit into memory.
EVENTS_PER_PIECE = 1_500_000


class Task(NamedTuple):
    """One statement.

    Attributes:
        event_type: of which events.
        rollup: name of the rollup; None: the events are counted.
        level: the grain.
        truth: True for what it should be, False for what it is.
        statement: answers organisation, count and sum.
        part: of which rows.
    """

    event_type: str
    rollup: str | None
    level: Level | None
    truth: bool
    statement: str
    part: Part


class Sums(NamedTuple):
    """Rows and the sum of their hashes, by organisation."""

    of: dict[str, tuple[int, int]]

    def add(self, other: Sums) -> None:
        """Add those of other rows."""
        for organization, (count, total) in other.of.items():
            mine = self.of.get(organization, (0, 0))
            self.of[organization] = (mine[0] + count, mine[1] + total)

    def differing(self, other: Sums) -> list[str]:
        """Organisations that have other rows there."""
        return sorted(name for name in {*self.of, *other.of} if self.of.get(name) != other.of.get(name))


def tasks_of(connection: Connection[Any], rollup: Rollup | None, event_type: EventType, part: Part) -> list[Task]:
    """What must be asked about a rollup; the events in pieces of a bounded size."""
    if rollup is None:
        return []
    tasks = []
    pieces = _pieces(connection, event_type, part)
    for level in rollup.kept:
        for truth, parts in ((True, pieces if level.source is None else [part]), (False, [part])):
            for each in parts:
                statement = comparison.sums(rollup, level, event_type, each, truth=truth)
                tasks.append(Task(event_type.name, rollup.name, level, truth, statement, each))
    return tasks


def run_all(
    connections: Sequence[Connection[Any]], tasks: Sequence[Task], progress: Callable[[int, int], None] | None
) -> dict[Task, Sums]:
    """Run every task, as many at once as there are connections."""
    waiting: SimpleQueue[Task] = SimpleQueue()
    for task in tasks:
        waiting.put(task)
    found: dict[Task, Sums] = {}

    def work(connection: Connection[Any]) -> None:
        while True:
            try:
                task = waiting.get_nowait()
            except Empty:
                return
            found[task] = _asked(connection, task)
            if progress is not None:
                progress(len(found), len(tasks))

    if len(connections) == 1:
        work(connections[0])
        return found
    with ThreadPoolExecutor(len(connections)) as pool:
        for done in [pool.submit(work, connection) for connection in connections]:
            done.result()
    return found


def _asked(connection: Connection[Any], task: Task) -> Sums:
    rows = connection.execute(task.statement.encode(), task.part.parameters(), prepare=False)
    return Sums({str(organization): (count, int(total)) for organization, count, total in rows})


def _pieces(connection: Connection[Any], event_type: EventType, part: Part) -> list[Part]:
    """A part divided at bounds of partitions; together they have no gap, whatever partitions there are."""
    rows = connection.execute(
        "SELECT p.starts, greatest(c.reltuples, 0) FROM totalizer.partitions p "
        "JOIN pg_class c ON c.relname = p.name AND c.relnamespace = 'partitions'::regnamespace "
        "WHERE p.event_type = %s ORDER BY p.starts",
        [event_type.name],
    ).fetchall()
    bounds: list[datetime] = []
    events = 0.0
    for starts, tuples in rows:
        if events and events + tuples > EVENTS_PER_PIECE and (part.starts is None or starts > part.starts):
            bounds.append(starts)
            events = 0.0
        events += tuples
    return [
        part._replace(starts=starts, ends=ends)
        for starts, ends in zip([part.starts, *bounds], [*bounds, part.ends], strict=True)
    ]
