"""SQL of the loader: fenced offsets, two ways into the event tables, marks, ledger, dead letters."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg import Connection, sql

from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.event import KEY

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


class Fate(NamedTuple):
    """What became of lines of one organisation and type.

    Attributes:
        loaded: stored.
        duplicate: stored before.
        conflict: stored before with other contents.
        dead_lettered: refused, and kept. Less than 0 for what was a dead letter and has another fate now.
        dropped: dead letters that somebody removed.
    """

    loaded: int = 0
    duplicate: int = 0
    conflict: int = 0
    dead_lettered: int = 0
    dropped: int = 0

    def __add__(self, other: object) -> Fate:
        assert isinstance(other, Fate)
        return Fate(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Offset(NamedTuple):
    """How far a journal is loaded, and the loader that may load it."""

    epoch: int
    segment: int
    position: int


def take_over(connection: Rows, journal_id: str) -> Offset:
    """Become the journal's loader: raises its epoch, so that any earlier loader is fenced off."""
    row = connection.execute(
        "INSERT INTO totalizer.journal_offsets (journal_id, epoch) VALUES (%s, 1) "
        "ON CONFLICT (journal_id) DO UPDATE SET epoch = journal_offsets.epoch + 1 RETURNING epoch, segment, position",
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
        "SELECT epoch, segment, position, CASE WHEN current_setting('synchronous_commit') = 'off' "
        "THEN set_config('synchronous_commit', 'on', true) END "
        "FROM totalizer.journal_offsets WHERE journal_id = %s AND epoch = %s FOR UPDATE",
        [journal_id, epoch],
    ).fetchone()
    return None if row is None else Offset(*row[:3])


def advance(connection: Rows, journal_id: str, segment: int, position: int, batches: int) -> None:
    """Move the journal's offset, in the transaction that stored what lies before it."""
    connection.execute(
        "UPDATE totalizer.journal_offsets SET segment = %s, position = %s, batches = batches + %s, updated_at = now() "
        "WHERE journal_id = %s",
        [segment, position, batches, journal_id],
    )


def partition_lengths(connection: Rows) -> dict[str, str]:
    """`day` or `month` for each event type the database knows."""
    return dict(connection.execute("SELECT name, partition FROM totalizer.event_types").fetchall())


def ensure_partition(connection: Rows, event_type: str, day: str) -> str:
    """Make the partition that holds `day` (ISO date, UTC) if there is none; returns its name."""
    row = connection.execute("SELECT totalizer.ensure_partition(%s, %s::date)", [event_type, day]).fetchone()
    assert row is not None
    return str(row[0])


def partition_name(event_type: str, day: str, length: str) -> str:
    """The name `ensure_partition` gives the partition of an ISO date."""
    return f"{event_type}_p{day[:4]}{day[5:7]}{day[8:10] if length == 'day' else ''}"


def copy_lines(connection: Rows, table: str, columns: Iterable[str], lines: Iterable[bytes]) -> None:
    """COPY whole lines into a table."""
    statement = f"COPY {table} ({quoted_list(list(columns))}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.write(b"".join(lines))


def copy_fast(connection: Rows, target: Target, by_partition: dict[str, list[bytes]]) -> None:
    """COPY lines straight into their partitions, and their keys into the key table.

    COPY into the parent is refused for a role under row-level security, and routing costs more; partitions have no
    policy, and only the writer may touch them.

    Args:
        connection: in a transaction, at a savepoint.
        target: where the lines go.
        by_partition: partition name → lines sorted by key.

    Raises:
        psycopg.errors.UniqueViolation: some of the lines are duplicates; roll back to the savepoint and load carefully.
    """
    if target.keyed:
        keys = [line[KEY] + b"\n" for lines in by_partition.values() for line in lines]
        # By organisation and id, the order of the key table's index.
        keys.sort(key=lambda key: key[:37] + key[65:])
        copy_lines(connection, target.keys, ("organization_id", "event_time", "id"), keys)
    for partition, lines in by_partition.items():
        copy_lines(connection, f"partitions.{quoted(partition)}", target.columns, lines)


def load_carefully(connection: Rows, target: Target, lines: Sequence[bytes]) -> dict[str, Fate]:
    """Load lines of which some may be stored already, or stand in `lines` twice; the first of each id is kept.

    Args:
        connection: in a transaction.
        target: where the lines go.
        lines: in order of arrival.

    Returns:
        The fate by organisation.
    """
    stage = _stage(connection, target)
    copy_lines(connection, stage, target.columns, lines)
    connection.execute(f"ANALYZE {stage}")
    loaded = connection.execute(_insert_new(target, stage)).fetchall()
    conflicts = dict(connection.execute(_count_conflicts(target, stage)).fetchall()) if target.keyed else {}
    staged = connection.execute(f"SELECT organization_id, count(*) FROM {stage} GROUP BY 1").fetchall()
    connection.execute(f"TRUNCATE {stage}")
    loaded_by = dict(loaded)
    return {
        str(organization): Fate(
            loaded_by.get(organization, 0),
            count - loaded_by.get(organization, 0) - conflicts.get(organization, 0),
            conflicts.get(organization, 0),
        )
        for organization, count in staged
    }


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
            ON CONFLICT DO NOTHING RETURNING organization_id
        ) SELECT organization_id, count(*) FROM stored GROUP BY 1"""


def _count_conflicts(target: Target, stage: str) -> str:
    """Lines whose id is stored with other contents; times are left out, since a resend may be stamped anew."""
    fields = target.columns[6:]
    sent, kept = (", ".join(f"{alias}.{quoted(field)}" for field in fields) for alias in ("s", "e"))
    return f"""
        SELECT s.organization_id, count(*)
        FROM {stage} s
        JOIN {target.keys} k ON k.organization_id = s.organization_id AND k.id = s.id
        JOIN {target.table} e
          ON e.organization_id = k.organization_id AND e.{quoted(target.time)} = k.event_time AND e.id = k.id
        WHERE ROW({sent}) IS DISTINCT FROM ROW({kept})
        GROUP BY 1"""


def add_marks(connection: Rows, marks: Iterable[tuple[str, str, str]]) -> None:
    """Append dirty marks: (organisation, event type, start of the base bucket)."""
    organizations, event_types, buckets = zip(*marks, strict=True)
    connection.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
        "SELECT * FROM unnest(%s::uuid[], %s::text[], %s::timestamptz[])",
        [list(organizations), list(event_types), list(buckets)],
    )


def add_ledger(connection: Rows, fates: dict[tuple[str, str], Fate]) -> None:
    """Append the fate of what this transaction loaded, by (organisation, event type)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO totalizer.load_ledger "
            "(organization_id, event_type, loaded, duplicate, conflict, dead_lettered, dropped) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(*key, *fate) for key, fate in fates.items()],
        )


def add_dead_letter(
    connection: Rows,
    target: Target,
    organization_id: str,
    line: bytes,
    journal_id: str,
    sqlstate: str,
    reason: str,
) -> None:
    """Keep an acknowledged line that cannot be stored, with the reason."""
    connection.execute(
        sql.SQL(
            "INSERT INTO totalizer.dead_letters "
            "(organization_id, event_type, columns, keyed, line, sqlstate, reason, journal_id) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        ),
        [
            organization_id,
            target.event_type,
            list(target.columns),
            target.keyed,
            line,
            sqlstate,
            reason,
            journal_id,
        ],
    )
