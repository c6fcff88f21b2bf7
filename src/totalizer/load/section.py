"""Loading the lines of one target: fast; carefully when some are duplicates; row by row when one is bad."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
from psycopg import Connection

from totalizer import failpoint
from totalizer.event import DAY, ORGANIZATION, is_canonical_uuid
from totalizer.failpoint import Failpoint
from totalizer.load.gather import NO_ORGANIZATION
from totalizer.store import loading
from totalizer.store.connect import is_rows_fault
from totalizer.store.loading import Fate, Target
from totalizer.telemetry import logger

#: Above this many partitions a COPY for each costs more than one stage for all.
PARTITIONS_DIRECT_MAX = 16


class Partitions:
    """The partitions this loader knows to exist.

    Args:
        connection: for asking and for making them; outside a transaction.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self._lengths = loading.partition_lengths(connection)
        self._known: set[str] = set()

    def ensure(self, connection: Connection[Any], event_type: str, days: set[bytes]) -> dict[bytes, str] | None:
        """The partition of each day (`2025-09-05`), made if missing; None if the event type has no table.

        What is no day has no partition.
        """
        if event_type not in self._lengths:
            self._lengths = loading.partition_lengths(connection)
            if event_type not in self._lengths:
                return None
        names = {}
        for day in days:
            text = day.decode()
            name = loading.partition_name(event_type, text, self._lengths[event_type])
            try:
                if name not in self._known:
                    self._known.add(loading.ensure_partition(connection, event_type, text))
            except psycopg.DataError:
                continue
            names[day] = name
        return names


class SectionLoader:
    """Loads lines of one target inside the caller's transaction.

    Args:
        connection: as writer, in a transaction.
        journal_id: noted with dead letters.
        partitions: partition name of each day of the lines; None if the target has no table.
    """

    def __init__(
        self,
        connection: Connection[Any],
        journal_id: str,
        target: Target,
        partitions: dict[bytes, str] | None,
    ) -> None:
        self._connection, self._journal_id = connection, journal_id
        self._target, self._partitions = target, partitions
        self.fates: dict[tuple[str, str], Fate] = {}
        self.buried: set[bytes] = set()

    def load(self, lines: list[bytes]) -> None:
        """Store every line, find it a duplicate, or keep it as a dead letter.

        The fates are in `fates`, the lines of dead letters in `buried`.

        Raises:
            psycopg.Error: the database is to blame, not a row; the transaction must be rolled back and tried again.
        """
        if self._partitions is None:
            for line in lines:
                self._bury(line, "TZ001", f"no event type {self._target.event_type!r} in this database")
            return
        if undated := [line for line in lines if line[DAY] not in self._partitions]:
            for line in undated:
                self._bury(line, "TZ003", f"{line[DAY].decode(errors='replace')!r} is no day")
            lines = [line for line in lines if line[DAY] in self._partitions]
        try:
            if len(set(self._partitions.values())) <= PARTITIONS_DIRECT_MAX and self._load_fast(lines):
                return
            self._load_carefully(lines)
        except psycopg.Error as error:
            if not is_rows_fault(error):
                raise
            self._divide(lines, error)

    def _load_fast(self, lines: list[bytes]) -> bool:
        assert self._partitions is not None
        by_partition: dict[str, list[bytes]] = {}
        ordered = sorted(lines)
        if len(self._partitions) == 1:
            by_partition[next(iter(self._partitions.values()))] = ordered
        else:
            for line in ordered:
                by_partition.setdefault(self._partitions[line[DAY]], []).append(line)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.BEFORE_COPY)
        try:
            with self._connection.transaction():
                loading.copy_fast(self._connection, self._target, by_partition)
                if failpoint.ARMED:
                    failpoint.hit(Failpoint.SECTION_COPIED)
        except psycopg.errors.UniqueViolation:
            return False
        for organization, count in Counter(line[ORGANIZATION] for line in lines).items():
            self._note(organization.decode(), Fate(loaded=count))
        return True

    def _load_carefully(self, lines: list[bytes]) -> None:
        if failpoint.ARMED:
            failpoint.hit(Failpoint.BEFORE_CAREFUL)
        with self._connection.transaction():
            fates = loading.load_carefully(self._connection, self._target, lines)
        for organization, fate in fates.items():
            self._note(organization, fate)

    def _divide(self, lines: list[bytes], error: psycopg.Error) -> None:
        """Some row is bad: halve until it stands alone."""
        if len(lines) == 1:
            self._bury(lines[0], error.sqlstate or "", str(error).strip())
            return
        if failpoint.ARMED:
            failpoint.hit(Failpoint.SECTION_DIVIDED)
        half = len(lines) // 2
        self.load(lines[:half])
        self.load(lines[half:])

    def _bury(self, line: bytes, sqlstate: str, reason: str) -> None:
        organization = line[ORGANIZATION].decode(errors="replace")
        if not is_canonical_uuid(organization):
            organization = NO_ORGANIZATION
        self._keep(organization, line, sqlstate, reason)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.LINE_BURIED)
        self.buried.add(line)
        self._note(organization, Fate(dead_lettered=1))

    def _keep(self, organization: str, line: bytes, sqlstate: str, reason: str) -> None:
        loading.add_dead_letter(self._connection, self._target, organization, line, self._journal_id, sqlstate, reason)
        logger().error("event dead-lettered", event_type=self._target.event_type, sqlstate=sqlstate, reason=reason)

    def _note(self, organization: str, fate: Fate) -> None:
        key = (organization, self._target.event_type)
        self.fates[key] = self.fates.get(key, Fate()) + fate
