"""Bringing rollups up to their events: take marks, recompute what they name, all in one transaction.

The order is what makes it exact. The shard's lock comes before any snapshot, so an older recompute cannot overwrite a
newer one. Marks are deleted by one statement and events read by a later one: whatever is committed in between is read
now, and its own mark, not yet taken, only has it read once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer import failpoint
from totalizer.catalog import EventType, Rollup
from totalizer.catalog.quoting import quoted
from totalizer.failpoint import Failpoint
from totalizer.rollup.marks import BACKFILL, LIVE, WORK_TABLES, Turn, Work, keep_within, look, newest, settle, turns
from totalizer.rollup.statements import Form, recompute
from totalizer.store.plan import SHARDS, read_rollups
from totalizer.window import BASE

#: Marks and events of one transaction: they bound its length and how long its shard is locked, to about a second.
MARKS_MAX = 20_000
EVENTS_MAX = 500_000
#: Shards of one transaction: half of them all, so that two workers share what there is, and few marks need few
#: statements.
SHARDS_TOGETHER = SHARDS // 2
#: The same for a transaction of a backfill, which reads events in bulk and has all shards.
BACKFILL_MARKS_MAX = 200_000
BACKFILL_EVENTS_MAX = 500_000
#: Spans of time that a transaction of a backfill may have, the longest that holds few enough events first. Whole days,
#: weeks and months are computed once instead of once for each piece.
BACKFILL_SPANS = tuple(timedelta(minutes=minutes) for minutes in (44640, 10080, 1440, 360, 60, 15))
#: Reading one event of a span costs as much as one of so many parts of finding a bucket's events by the index.
EVENTS_PER_PROBE = 25
#: Below so many buckets the index is always asked: choosing would cost more than it gains.
DENSE_BUCKETS_MIN = 200
#: The share of an organisation's buckets that must be marked for its events to be read all at once.
DENSE_SHARE = 0.5
#: Above so many organisations all events of a span are read, instead of those organisations' by the index.
DENSE_ORGANIZATIONS_MAX = 50
#: Sorts and hashes of a large piece stay in memory; there is one piece a worker.
_MEMORY = "SET LOCAL work_mem = '64MB'"
#: Weeks begin there, and so do the spans of a backfill.
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
#: Nothing is marked so late.
_END = datetime.max.replace(tzinfo=UTC)


class Refreshed(NamedTuple):
    """What one look for marks did.

    Attributes:
        buckets: base buckets recomputed, once for each event type.
        skipped: shards that another worker had locked.
    """

    buckets: int = 0
    skipped: int = 0


class Piece(NamedTuple):
    """What one transaction did.

    Attributes:
        buckets: base buckets recomputed.
        shards: of how many shards.
        more: True if its bounds, and not the end of the marks, may have ended it.
        starts: where its span of time begins; None if it took no span.
    """

    buckets: int
    shards: int
    more: bool
    starts: datetime | None = None


def refresh(connection: Connection[Any]) -> Refreshed:
    """Recompute every bucket that is marked now: live ones first, then backfills until a live one waits.

    Event types take turns. Where more live marks wait than a transaction takes, the next ones are taken in spans of
    time, as those of a backfill are: the newest of many organisations may lie in many days and weeks, and each of these
    would be computed once for each transaction.

    Args:
        connection: autocommit, as the refresher role.

    Raises:
        psycopg.Error: the database is away; marks of unfinished work are kept.
    """
    waiting = turns(connection)
    if not waiting:
        return Refreshed()
    connection.execute(WORK_TABLES)
    buckets, reached = 0, dict[str, datetime]()
    while True:
        live = _by_type(waiting, LIVE)
        pieces = [_refresh_live(connection, event_type, shards, reached) for event_type, shards in live.items()]
        buckets += sum(piece.buckets for piece in pieces)
        if not any(piece.more for piece in pieces):
            skipped = sum(len(shards) for shards in live.values()) - sum(piece.shards for piece in pieces)
            return Refreshed(buckets + _backfill_all(connection), skipped)
        waiting = turns(connection)


def _refresh_live(
    connection: Connection[Any], event_type: str, shards: Sequence[int], reached: dict[str, datetime]
) -> Piece:
    """One turn of an event type with live marks.

    Args:
        connection, event_type, shards: as of `refresh_shards`.
        reached: by event type that is worked off in spans of time, how far back; the next turn is noted there.
    """
    if event_type in reached:
        pieces = _two_spans(connection, event_type, shards, reached.pop(event_type))
        buckets, starts = sum(piece.buckets for piece in pieces), pieces[-1].starts
        more = buckets > 0
        if buckets >= DENSE_BUCKETS_MIN and starts is not None:
            reached[event_type] = starts
    else:
        together = [shards[first : first + SHARDS_TOGETHER] for first in range(0, len(shards), SHARDS_TOGETHER)]
        pieces = [piece for each in together if (piece := refresh_shards(connection, event_type, each))]
        buckets, more = sum(piece.buckets for piece in pieces), any(piece.more for piece in pieces)
        if more:
            reached[event_type] = _END
    return Piece(buckets, sum(piece.shards for piece in pieces), more)


def _two_spans(connection: Connection[Any], event_type: str, shards: Sequence[int], reached: datetime) -> list[Piece]:
    """Work off the newest span of time and, if that is not next to what is done, the one that is.

    Else those who send all the time would keep what is older from ever being computed.
    """
    first = backfill(connection, event_type, shards, LIVE)
    if first.starts is None or first.starts < reached:
        return [first]
    return [first._replace(shards=0), backfill(connection, event_type, shards, LIVE, before=reached)]


def _by_type(waiting: Sequence[Turn], priority: int) -> dict[str, list[int]]:
    shards: dict[str, list[int]] = {}
    for turn in waiting:
        if turn.priority == priority:
            shards.setdefault(turn.event_type, []).append(turn.shard)
    return shards


def _backfill_all(connection: Connection[Any]) -> int:
    """Work off backfills until none is left that nobody else is at, or live marks wait."""
    buckets = 0
    while True:
        waiting = turns(connection)
        shards = _by_type(waiting, BACKFILL)
        if not shards or (buckets and waiting[0].priority == LIVE):
            return buckets
        pieces = (backfill(connection, event_type, each) for event_type, each in shards.items())
        done = next((piece.buckets for piece in pieces if piece.buckets), 0)
        if not done:
            return buckets
        buckets += done


def refresh_shards(connection: Connection[Any], event_type: str, shards: Sequence[int]) -> Piece | None:
    """Recompute the newest live marked buckets of one event type and some shards of organisations, within bounds.

    Returns:
        What was done; None if other workers are at all of them.
    """
    with connection.transaction():
        mine = _lock(connection, event_type, shards)
        if not mine:
            return None
        _passed(Failpoint.SHARD_LOCKED)
        limit = max(1, MARKS_MAX // len(mine))
        found = look(connection, event_type, mine, LIVE, limit)
        if not found:
            return Piece(0, len(mine), more=False)
        if found >= DENSE_BUCKETS_MIN:
            connection.execute(_MEMORY)
        declared = read_rollups(connection, event_type)
        cut = keep_within(connection, declared[0], EVENTS_MAX)
        more = cut or found > limit // 2
        buckets = _recompute(connection, *declared, more=more)
    _passed(Failpoint.SHARD_COMMITTED)
    return Piece(buckets, len(mine), more)


def backfill(
    connection: Connection[Any], event_type: str, shards: Sequence[int], priority: int = BACKFILL,
    before: datetime | None = None,
) -> Piece:  # fmt: skip
    """Recompute the newest marked buckets of a priority, of those shards that nobody else is at.

    All of a span of time is done at once, so that its events are read once and not once for each shard.

    Args:
        connection, event_type, shards, priority: whose marks.
        before: only what is older than this; None for any.
    """
    with connection.transaction():
        mine = _lock(connection, event_type, shards)
        last = newest(connection, event_type, mine, priority, before or _END) if mine else None
        if last is None:
            return Piece(0, len(mine), more=False)
        _passed(Failpoint.SHARD_LOCKED)
        declared = read_rollups(connection, event_type)
        since = _piece(connection, declared[0], last)
        connection.execute(_MEMORY)
        look(connection, event_type, mine, priority, max(1, BACKFILL_MARKS_MAX // len(mine)), since, last)
        buckets = _recompute(connection, *declared, more=True)
    _passed(Failpoint.SHARD_COMMITTED)
    return Piece(buckets, len(mine), more=True, starts=since)


def _lock(connection: Connection[Any], event_type: str, shards: Sequence[int]) -> list[int]:
    """Those of the shards whose locks nobody had; they are this transaction's now."""
    rows = connection.execute(
        "SELECT shard FROM unnest(%s::integer[]) AS shard "
        "WHERE pg_try_advisory_xact_lock(hashtext('rollup ' || %s), shard)",
        [list(shards), event_type],
    )
    return [row[0] for row in rows]


def _piece(connection: Connection[Any], event_type: EventType, last: datetime) -> datetime:
    """Where the piece of a backfill begins that ends with the bucket `last`."""
    for span in BACKFILL_SPANS:
        starts = last - (last - _MONDAY) % span
        if _estimate(connection, event_type, starts, last + BASE) <= BACKFILL_EVENTS_MAX:
            break
    return starts


def _estimate(connection: Connection[Any], event_type: EventType, starts: datetime, ends: datetime) -> int:
    """How many events a span holds, as the planner's statistics have it."""
    time = quoted(event_type.time_field)
    row = connection.execute(
        f"EXPLAIN (FORMAT JSON) SELECT FROM events.{quoted(event_type.name)} "
        f"WHERE {time} >= %s AND {time} < %s".encode(),
        [starts, ends],
    ).fetchone()
    assert row is not None
    return int(row[0][0]["Plan"]["Plan Rows"])


def _recompute(connection: Connection[Any], event_type: EventType, rollups: Sequence[Rollup], *, more: bool) -> int:
    """Settle the marks in `work` and compute what they stand for; returns how many buckets.

    Args:
        connection: in a transaction that has the shards' locks.
        event_type, rollups: as read under the lock: who adds a rollup waits for it, so none is forgotten here.
        more: True if marks may be left.
    """
    work = settle(connection, event_type.name, more=more)
    _passed(Failpoint.MARKS_TAKEN)
    form = _form(connection, event_type, work)
    span = {"starts": work.starts, "ends": work.ends}
    for rollup in rollups:
        if None not in work.rollups and rollup.name not in work.rollups:
            continue
        for level, delete, insert in recompute(rollup, event_type, form):
            if level.local or work.of_events:
                connection.execute(delete.encode(), prepare=False)
                _passed(Failpoint.LEVEL_DELETED)
                connection.execute(insert.encode(), span if level.source is None else None, prepare=False)
                _passed(Failpoint.LEVEL_INSERTED)
    return work.rows


def _form(connection: Connection[Any], event_type: EventType, work: Work) -> Form:
    """The form that costs less, by what was measured: script/bench rollup."""
    if work.of_events < DENSE_BUCKETS_MIN or work.starts is None or work.ends is None:
        return Form.SPARSE
    if work.organizations > DENSE_ORGANIZATIONS_MAX:
        events = _estimate(connection, event_type, work.starts, work.ends)
        return Form.DENSEST if events < work.of_events * EVENTS_PER_PROBE else Form.SPARSE
    # Of few organisations the index gives their own events only: how full of marks their span is decides.
    buckets = work.organizations * ((work.ends - work.starts) // BASE)
    return Form.DENSE if work.of_events >= DENSE_SHARE * buckets else Form.SPARSE


def _passed(point: Failpoint) -> None:
    if failpoint.ARMED:
        failpoint.hit(point)
