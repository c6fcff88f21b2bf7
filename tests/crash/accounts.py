"""The oracle's look into a database: rows against names, and the database's own books against each other."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from crash.oracle import Known, Verdict, event_of, judge
from totalizer.rollup.refresh import refresh
from totalizer.rollup.verify import verify
from totalizer.store.ledger import balance


def row_of(name: str) -> tuple[Any, ...]:
    """What the database must have of an event."""
    event = event_of(name)
    fields = ("user_id", "command_name", "execution_time_ms", "status", "error_message")
    return (*(event[field] for field in fields), json.dumps(event["context"], sort_keys=True))


def judge_database(connection: Connection[Any], organization_id: str, known: Known, *, lines: int | None) -> Verdict:
    """Read the rows of one organisation and judge them; then bring its rollups up and compare the books.

    Args:
        connection: as the refresher, autocommit.
        organization_id: whose events the ledger tells of.
        known: the ledger.
        lines: how many lines were journalled, if no others can be: each of them must have exactly one fate.
    """
    dead = _dead_letters(connection, organization_id)
    rows = connection.execute(
        "SELECT context->>'of', user_id::text, command_name, execution_time_ms, status, error_message, context "
        "FROM events.command_executions WHERE organization_id = %s",
        [organization_id],
    ).fetchall()
    found = [(str(row[0]), (*row[1:-1], json.dumps(row[-1], sort_keys=True))) for row in rows]
    # What no table can hold is kept aside, whole: that is its one fate.
    found += [(name, row_of(name)) for name in dead.keys() & set(known.sent)]
    verdict = judge(known, found, row_of)
    times = Counter(known.sent)
    wrong = {name: count for name, count in dead.items() if count != times[name]}
    graves = tuple(f"{name} was sent {times[name]} times, {count} are dead" for name, count in wrong.items())
    books = (*graves, *_books(connection, organization_id, lines))
    return Verdict(verdict.lost, verdict.doubled, verdict.altered, verdict.invented, books)


_NAME = re.compile(rb'"of":\s*"([^"\\]+)')


def _dead_letters(connection: Connection[Any], organization_id: str) -> Counter[str]:
    """How often each event is kept as a dead letter."""
    rows = connection.execute(
        "SELECT line FROM totalizer.dead_letters WHERE organization_id = %s", [organization_id]
    ).fetchall()
    return Counter(found[1].decode() if (found := _NAME.search(bytes(row[0]))) else "?" for row in rows)


def _books(connection: Connection[Any], organization_id: str, lines: int | None) -> Iterable[str]:
    row = connection.execute(
        "SELECT coalesce(sum(loaded + duplicate + conflict + dead_lettered + dropped), 0)::int "
        "FROM totalizer.ledger "
        "WHERE organization_id = %s",
        [organization_id],
    ).fetchone()
    assert row is not None
    if lines is not None and row[0] != lines:
        yield f"{lines} lines were journalled and {row[0]} have a fate"
    hours, letters = balance(connection, organization_id=organization_id)
    yield from (f"the ledger differs: {hour}" for hour in hours if hour.difference)
    yield from (f"the dead letters differ: {each}" for each in letters)
    if lines is not None and (accepted := sum(hour.accepted for hour in hours)) != lines:
        yield f"{lines} lines were journalled and {accepted} are accepted in the ledger"
    while refresh(connection).buckets:
        pass
    for each in verify(connection):
        if each.organization_id == organization_id and not each.exact:
            yield f"the books differ: {each}"
