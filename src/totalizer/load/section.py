"""Loading the lines of one target: fast; carefully when some are duplicates; row by row when one is bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from totalizer import failpoint
from totalizer.event import DAY
from totalizer.failpoint import Failpoint
from totalizer.load.copy_text import id_of
from totalizer.load.floors import Floors
from totalizer.load.gather import Order, Origins, order_of
from totalizer.store import fates, late, loading, partitions
from totalizer.store.connect import is_rows_fault
from totalizer.store.fates import Account, Fate, Fates, Unstored
from totalizer.store.loading import Refound, Target
from totalizer.telemetry import logger

#: Above this many partitions a COPY for each costs more than one stage for all.
PARTITIONS_DIRECT_MAX = 16


class Partitions:
    """The partitions this loader knows to exist.

    Args:
        connection: for asking and for making them; outside a transaction.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self._lengths = partitions.partition_lengths(connection)
        self._known: set[str] = set()

    def ensure(
        self, connection: Connection[Any], event_type: str, days: set[bytes], floors: Floors
    ) -> dict[bytes, str] | None:
        """The partition of each day (`2025-09-05`), made if missing; None if the event type has no table.

        What is no day has no partition. That of a day below every floor is not made: all its events are late.
        """
        if event_type not in self._lengths:
            self._lengths = partitions.partition_lengths(connection)
            if event_type not in self._lengths:
                return None
        names, kept = {}, floors.kept(event_type, days)
        for day in days:
            text = day.decode()
            name = partitions.partition_name(event_type, text, self._lengths[event_type])
            try:
                if name not in self._known and day in kept:
                    self._known.add(partitions.ensure_partition(connection, event_type, text))
            except psycopg.DataError:
                continue
            names[day] = name
        return names


class Exempt(NamedTuple):
    """A line that was not stored.

    Attributes:
        place: among the lines of the section.
        fate: `duplicate`, `conflict` or `quarantined`.
        code, reason, dead_letter_id: of a quarantined one.
    """

    place: int
    fate: str
    code: str | None = None
    reason: str | None = None
    dead_letter_id: int | None = None


#: The figure of the ledger that each fate of a single event counts in.
_FIGURE = {"duplicate": "duplicate", "conflict": "conflict", "quarantined": "dead_lettered"}


class SectionLoader:
    """Loads lines of one target inside the caller's transaction.

    Args:
        connection: as writer, in a transaction.
        journal_id: noted with dead letters.
        target: where the lines go.
        partitions: partition name of each day of the lines; None if the target has no table.
        origins: where the lines come from.
        floors: held in the transaction.
    """

    def __init__(
        self,
        connection: Connection[Any],
        journal_id: str,
        target: Target,
        partitions: dict[bytes, str] | None,
        origins: Origins,
        floors: Floors,
    ) -> None:
        self._connection, self._journal_id = connection, journal_id
        self._target, self._partitions, self._origins = target, partitions, origins
        self._floors = floors
        self._unstored: list[Exempt] = []
        self.unmarked: set[bytes] = set()

    def load(self, lines: list[bytes], order: Order | None = None) -> None:
        """Store every line, find it a duplicate, or keep it as a dead letter.

        The fates are in `fates` and `unstored`. Lines that no bucket is to be recomputed for, since they are dead
        letters or late, are in `unmarked`.

        Args:
            lines: in order of arrival.
            order: of the lines, if it was worked out before.

        Raises:
            psycopg.Error: the database is to blame, not a row; the transaction must be rolled back and tried again.
        """
        days = self._partitions if self._partitions is not None else ()
        late_places = self._floors.places_of_late(self._target.event_type, days, lines)
        if not late_places:
            self._load(lines, range(len(lines)), order)
            return
        too_late = set(late_places)
        places = [place for place in range(len(lines)) if place not in too_late]
        if places:
            self._load([lines[place] for place in places], places)
        self._load_late([lines[place] for place in late_places], late_places)

    def fates(self) -> Fates:
        """What became of the lines, by account: all were stored but those that are known not to be."""
        accounts = {
            Account(organization_id, self._target.event_type, hour): Fate(loaded=rows, accepted=rows)
            for (organization_id, hour), rows in self._origins.rows().items()
        }
        for (account, fate), rows in Counter((self._account(at.place), at.fate) for at in self._unstored).items():
            accounts[account] += Fate(loaded=-rows, **{_FIGURE[fate]: rows})
        return accounts

    def unstored(self, lines: Sequence[bytes], sequences: Sequence[int]) -> list[Unstored]:
        """The lines that were not stored, together if they share record and fate.

        Args:
            lines: that were loaded.
            sequences: number of each record of the piece.
        """
        groups: dict[tuple[object, ...], Unstored] = {}
        for each in self._unstored:
            origin, place = self._origins.of(each.place)
            # A dead letter has a life of its own: it can be tried again and dropped.
            key = (origin.record, each.fate, each.dead_letter_id)
            if key not in groups:
                groups[key] = Unstored(
                    origin.organization_id, self._target.event_type, sequences[origin.record], each.fate, [], [],
                    each.code, _storable(each.reason), each.dead_letter_id,
                )  # fmt: skip
            groups[key].places.append(place)
            groups[key].ids.append(id_of(lines[each.place]))
        return list(groups.values())

    def _load(self, lines: Sequence[bytes], places: Sequence[int], order: Order | None = None) -> None:
        if self._partitions is None:
            for line, place in zip(lines, places, strict=True):
                self._bury(line, place, "TZ001", f"no event type {self._target.event_type!r} in this database")
            return
        if any(line[DAY] not in self._partitions for line in lines):
            lines, places = self._bury_undated(self._partitions, lines, places)
            order = None
        try:
            if len(set(self._partitions.values())) <= PARTITIONS_DIRECT_MAX and self._load_fast(
                order or order_of(self._target, lines)
            ):
                return
            self._load_carefully(lines, places)
        except psycopg.Error as error:
            if not is_rows_fault(error):
                raise
            self._divide(lines, places, error, self._load)

    def _bury_undated(
        self, partitions: dict[bytes, str], lines: Sequence[bytes], places: Sequence[int]
    ) -> tuple[list[bytes], list[int]]:
        dated: list[tuple[bytes, int]] = []
        for line, place in zip(lines, places, strict=True):
            if line[DAY] in partitions:
                dated.append((line, place))
            else:
                self._bury(line, place, "TZ003", f"{line[DAY].decode(errors='replace')!r} is no day")
        return [line for line, _ in dated], [place for _, place in dated]

    def _load_fast(self, order: Order) -> bool:
        assert self._partitions is not None
        by_partition: dict[str, list[bytes]] = {}
        if len(self._partitions) == 1:
            by_partition[next(iter(self._partitions.values()))] = order.lines
        else:
            for line in order.lines:
                by_partition.setdefault(self._partitions[line[DAY]], []).append(line)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.BEFORE_COPY)
        try:
            with self._connection.transaction():
                loading.copy_fast(self._connection, self._target, by_partition, order.keys)
                if failpoint.ARMED:
                    failpoint.hit(Failpoint.SECTION_COPIED)
        except psycopg.errors.UniqueViolation:
            return False
        return True

    def _load_carefully(self, lines: Sequence[bytes], places: Sequence[int]) -> None:
        if failpoint.ARMED:
            failpoint.hit(Failpoint.BEFORE_CAREFUL)
        with self._connection.transaction():
            refound = loading.load_carefully(self._connection, self._target, lines)
        self._note_refound(refound, places)

    def _load_late(self, lines: Sequence[bytes], places: Sequence[int]) -> None:
        if failpoint.ARMED:
            failpoint.hit(Failpoint.BEFORE_LATE)
        hours = [self._account(place).hour for place in places]
        try:
            with self._connection.transaction():
                refound = late.keep_late(self._connection, self._target, lines, hours)
        except psycopg.Error as error:
            if not is_rows_fault(error):
                raise
            self._divide(lines, places, error, self._load_late)
            return
        self.unmarked.update(lines)
        self._note_refound(refound, places)

    def _note_refound(self, refound: Refound, places: Sequence[int]) -> None:
        self._unstored += [Exempt(places[at], "duplicate") for at in refound.duplicates]
        self._unstored += [Exempt(places[at], "conflict") for at in refound.conflicts]

    def _divide(
        self, lines: Sequence[bytes], places: Sequence[int], error: psycopg.Error,
        load: Callable[[Sequence[bytes], Sequence[int]], None],
    ) -> None:  # fmt: skip
        """Some row is bad: halve until it stands alone."""
        if len(lines) == 1:
            self._bury(lines[0], places[0], error.sqlstate or "", str(error).strip())
            return
        if failpoint.ARMED:
            failpoint.hit(Failpoint.SECTION_DIVIDED)
        half = len(lines) // 2
        load(lines[:half], places[:half])
        load(lines[half:], places[half:])

    def _bury(self, line: bytes, place: int, sqlstate: str, reason: str) -> None:
        letter_id = self._keep(self._account(place), line, sqlstate, reason)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.LINE_BURIED)
        self.unmarked.add(line)
        self._unstored.append(Exempt(place, "quarantined", sqlstate, reason, letter_id))

    def _keep(self, account: Account, line: bytes, sqlstate: str, reason: str) -> int:
        logger().error("event dead-lettered", event_type=self._target.event_type, sqlstate=sqlstate, reason=reason)
        return fates.add_dead_letter(
            self._connection, self._target, account.organization_id, line, self._journal_id, sqlstate, reason,
            account.hour,
        )  # fmt: skip

    def _account(self, place: int) -> Account:
        origin, _ = self._origins.of(place)
        return Account(origin.organization_id, self._target.event_type, origin.hour)


def _storable(text: str | None) -> str | None:
    """PostgreSQL's texts hold no NUL, and its own words may quote one."""
    return None if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")
