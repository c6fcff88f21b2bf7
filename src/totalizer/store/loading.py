"""SQL of the loader: fenced offsets, two ways into the event tables, marks."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.store import traces

Rows = Connection[Any]


class Target(NamedTuple):
    """Where lines go.

    Attributes:
        event_type: name of the type.
        columns: the columns of every line, in order.
        keyed: True if senders chose the ids.
    """

    event_type: str
    columns: tuple[str, ...]
    keyed: bool

    @property
    def time(self) -> str:
        """The column that says when an event happened."""
        return self.columns[1]

    @property
    def table(self) -> str:
        """The event table."""
        return f"events.{quoted(self.event_type)}"

    @property
    def keys(self) -> str:
        """The table of ids that senders chose."""
        return f"events.{quoted(self.event_type + '_keys')}"


class Offset(NamedTuple):
    """How far a journal is loaded, and the loader that may load it.

    Attributes:
        epoch: of the loader.
        segment, position: behind the last record loaded.
        sequence: number of that record; 0 if no version has noted it.
    """

    epoch: int
    segment: int
    position: int
    sequence: int


def take_over(connection: Rows, journal_id: str) -> Offset:
    """Become the journal's loader: raises its epoch, so that any earlier loader is fenced off."""
    row = connection.execute(
        "INSERT INTO totalizer.journal_offsets (journal_id, epoch) VALUES (%s, 1) "
        "ON CONFLICT (journal_id) DO UPDATE SET epoch = journal_offsets.epoch + 1 "
        "RETURNING epoch, segment, position, sequence",
        [journal_id],
    ).fetchone()
    assert row is not None
    return Offset(*row)


def fence(connection: Rows, journal_id: str, epoch: int) -> Offset | None:
    """Lock the journal's offset for this transaction; None if another loader has taken the journal over.

    Once committed, the journal's records are discarded: so the commit waits for the disk, even in a database that is
    set up not to. What is set up to wait for more, a standby for example, stays.
    """
    row = connection.execute(
        "SELECT epoch, segment, position, sequence, CASE WHEN current_setting('synchronous_commit') = 'off' "
        "THEN set_config('synchronous_commit', 'on', true) END "
        "FROM totalizer.journal_offsets WHERE journal_id = %s AND epoch = %s FOR UPDATE",
        [journal_id, epoch],
    ).fetchone()
    return None if row is None else Offset(*row[:4])


def advance(connection: Rows, journal_id: str, segment: int, position: int, batches: int, sequence: int = 0) -> None:
    """Move the journal's offset, in the transaction that stored what lies before it.

    Args:
        segment, position: behind the last record.
        batches: how many records it moves over.
        sequence: number of the last record; 0 leaves it as it is.
    """
    connection.execute(
        "UPDATE totalizer.journal_offsets SET segment = %s, position = %s, batches = batches + %s, "
        "sequence = CASE WHEN %s = 0 THEN sequence ELSE %s END, updated_at = now() WHERE journal_id = %s",
        [segment, position, batches, sequence, sequence, journal_id],
    )


def copy_lines(connection: Rows, table: str, columns: Iterable[str], lines: Iterable[bytes]) -> None:
    """COPY whole lines into a table."""
    statement = f"COPY {table} ({quoted_list(list(columns))}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.write(b"".join(lines))


def copy_fast(connection: Rows, target: Target, by_partition: dict[str, list[bytes]], keys: Sequence[bytes]) -> None:
    """COPY lines straight into their partitions, and their keys into the key table.

    COPY into the parent is refused for a role under row-level security, and routing costs more; partitions have no
    policy, and only the writer may touch them.

    Args:
        connection: in a transaction, at a savepoint.
        target: where the lines go.
        by_partition: partition name → lines sorted by key.
        keys: of all of them, rows of the key table by organisation and id, the order of its index.

    Raises:
        psycopg.errors.UniqueViolation: some of the lines are duplicates; roll back to the savepoint and load carefully.
    """
    if target.keyed:
        copy_lines(connection, target.keys, ("organization_id", "event_time", "id"), keys)
    for partition, lines in by_partition.items():
        copy_lines(connection, f"partitions.{quoted(partition)}", target.columns, lines)


class Refound(NamedTuple):
    """Which lines were not stored, since their ids were; by their places among the lines.

    Attributes:
        duplicates: stored before, or further up, with the same contents.
        conflicts: with other contents.
    """

    duplicates: list[int]
    conflicts: list[int]


def load_carefully(connection: Rows, target: Target, lines: Sequence[bytes]) -> Refound:
    """Load lines of which some may be stored already, or stand in `lines` twice; the first of each id is kept.

    Args:
        connection: in a transaction.
        target: where the lines go.
        lines: in order of arrival.
    """
    with staged(connection, target, lines) as stage:
        return stage.refound([row[0] for row in connection.execute(_insert_new(target, stage.table))])


class Stage:
    """Lines in a table of this session, each with the columns of its event and an ordinal, in order of arrival.

    Args:
        connection: in a transaction.
        target: what they are lines of.
        table: where they are.
        first: ordinal of the first.
    """

    def __init__(self, connection: Rows, target: Target, table: str, first: int) -> None:
        self._connection, self._target = connection, target
        self.table, self.first = table, first

    def refound(self, ordinals: Sequence[int]) -> Refound:
        """Lines that were not stored since their ids are known, told apart by their contents."""
        conflicts: set[int] = set()
        if self._target.keyed and ordinals:
            rows = self._connection.execute(_conflicts(self._target, self.table))
            conflicts = {row[0] for row in rows}.intersection(ordinals)
        duplicates = [ordinal - self.first for ordinal in ordinals if ordinal not in conflicts]
        return Refound(duplicates, sorted(ordinal - self.first for ordinal in conflicts))


@contextmanager
def staged(connection: Rows, target: Target, lines: Sequence[bytes]) -> Iterator[Stage]:
    """Lines in a stage for the length of a with-block, within a transaction.

    Raises:
        psycopg.Error: one of them is no line of the target's.
    """
    table = _stage(connection, target)
    copy_lines(connection, table, target.columns, lines)
    connection.execute(f"ANALYZE {table}")
    row = connection.execute(f"SELECT min(ordinal) FROM {table}").fetchone()
    assert row is not None
    yield Stage(connection, target, table, row[0])
    connection.execute(f"TRUNCATE {table}")


def _stage(connection: Rows, target: Target) -> str:
    """This session's stage for a target; its name carries the columns, which may grow while the session lives."""
    columns_mark = zlib.crc32(",".join(target.columns).encode())
    name = quoted(f"stage_{columns_mark:08x}_{target.event_type}"[:63])
    connection.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS {name} (ordinal bigint GENERATED ALWAYS AS IDENTITY, "
        f"LIKE {target.table} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    return f"pg_temp.{name}"


def _insert_new(target: Target, stage: str) -> str:
    """Stores what is new; answers the ordinals of the other lines, in order."""
    columns = quoted_list(target.columns)
    of_stage = ", ".join(f"s.{quoted(column)}" for column in target.columns)
    time = quoted(target.time)
    if target.keyed:
        source = f"""
            WITH first AS (
                SELECT DISTINCT ON (organization_id, id) ordinal, organization_id, id, {time} AS event_time
                FROM {stage} ORDER BY organization_id, id, ordinal
            ), new AS (
                INSERT INTO {target.keys} (organization_id, id, event_time)
                SELECT organization_id, id, event_time FROM first ORDER BY organization_id, id
                ON CONFLICT DO NOTHING RETURNING organization_id, id
            ), fresh AS (SELECT ordinal FROM first JOIN new USING (organization_id, id))"""
    else:
        source = f"""
            WITH fresh AS (
                SELECT DISTINCT ON (organization_id, {time}, id) ordinal
                FROM {stage} ORDER BY organization_id, {time}, id, ordinal
            )"""
    return f"""{source}, stored AS (
            INSERT INTO {target.table} ({columns})
            SELECT {of_stage} FROM {stage} s JOIN fresh USING (ordinal) ORDER BY s.organization_id, s.{time}, s.id
            ON CONFLICT DO NOTHING RETURNING organization_id, {time}, id
        ) SELECT s.ordinal FROM {stage} s WHERE NOT EXISTS (
            SELECT FROM fresh f JOIN stored e ON e.organization_id = s.organization_id AND e.{time} = s.{time}
                AND e.id = s.id WHERE f.ordinal = s.ordinal
        ) ORDER BY s.ordinal"""


def _conflicts(target: Target, stage: str) -> str:
    """The ordinals of lines whose id is stored with other contents.

    Times are left out, since a resend may be stamped anew.
    """
    fields = target.columns[6:]
    sent, kept = (", ".join(f"{alias}.{quoted(field)}" for field in fields) for alias in ("s", "e"))
    return f"""
        SELECT s.ordinal
        FROM {stage} s
        JOIN {target.keys} k ON k.organization_id = s.organization_id AND k.id = s.id
        JOIN {target.table} e
          ON e.organization_id = k.organization_id AND e.{quoted(target.time)} = k.event_time AND e.id = k.id
        WHERE ROW({sent}) IS DISTINCT FROM ROW({kept})"""


def add_marks(connection: Connection[Any], marks: Iterable[tuple[str, str, str]], spans: Sequence[str] = ()) -> None:
    """Append dirty marks.

    Args:
        connection: in a transaction.
        marks: (organisation, event type, start of the base bucket); one at least.
        spans: of the transaction, as `traceparent` has them, if it is traced.
    """
    organizations, event_types, buckets = zip(*marks, strict=True)
    connection.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
        "SELECT * FROM unnest(%s::uuid[], %s::text[], %s::timestamptz[])",
        [list(organizations), list(event_types), list(buckets)],
    )
    if spans:
        traces.announce(connection, spans)
