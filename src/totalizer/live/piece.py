"""A piece of journal: what one organisation sent in a few records, line by line, until the database has it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from totalizer.clock import utc_text
from totalizer.event import ID, TIME, decode_batch
from totalizer.journal import Position, Record
from totalizer.live.shape import Cells, Shape

#: (event type, record, place in the request's list of that type) of an event that was not stored.
Place = tuple[str, int, int]
#: Told of an event or record that cannot be understood: journal, record, why.
OnFailure = Callable[[str, int, str], None]

#: The second in a line.
SECOND = slice(TIME.start, TIME.start + 19)

_numbers = count(1)


class Lines(NamedTuple):
    """The events of one section of one record.

    Attributes:
        at: behind their record.
        sequence: the record's number.
        event_type: their type.
        columns: of each line.
        lines: of COPY text.
        places: where each event stood in the request; None: 0, 1, 2 and so on.
        repeated: which of the lines are of events that were counted before, by their ids.
    """

    at: Position
    sequence: int
    event_type: str
    columns: tuple[str, ...]
    lines: list[bytes]
    places: tuple[int, ...] | None
    repeated: frozenset[int]


class Piece:
    """Consecutive records of one journal, as far as they are of one organisation.

    Args:
        journal_id: of the journal.
        on_failure: see there.

    Attributes:
        number: unlike any other's in this process.
        lines: the events.
        end: behind its last record.
        events: how many are counted.
        bytes: of the lines.
        settled: True once the database has it; `unstored` says what it did not store.
    """

    def __init__(self, journal_id: str, on_failure: OnFailure) -> None:
        self.journal_id, self.number = journal_id, next(_numbers)
        self.lines: list[Lines] = []
        self.start = self.end = Position(0, 0)
        self.events = self.bytes = 0
        self.settled, self.unstored = False, frozenset[Place]()
        self._on_failure = on_failure
        # (rollup, settled) → since when, and what.
        self._cells: dict[tuple[str, bool], tuple[int, Cells]] = {}

    @property
    def corrected(self) -> bool:
        """True if not just what was counted is stored."""
        return bool(self.unstored) or any(lines.repeated for lines in self.lines)

    @property
    def sequences(self) -> tuple[int, int]:
        """Numbers of its first and its last record."""
        return self.lines[0].sequence, self.lines[-1].sequence

    def add(self, record: Record, seen: Seen) -> None:
        """Take a record in, which must be a batch of the organisation.

        Args:
            record: the record.
            seen: the ids that were counted before; gets those of these events.

        Raises:
            ValueError: it is no batch.
        """
        header, blocks = decode_batch(record.payload)
        if not self.lines:
            self.start = record.position_after
        for section, block in zip(header.sections, blocks, strict=True):
            lines = block.splitlines(keepends=True)
            repeated = seen.repeated(section.event_type, lines) if section.keyed else frozenset[int]()
            self.lines.append(
                Lines(
                    record.position_after, record.sequence, section.event_type, section.columns, lines, section.places,
                    repeated,
                )
            )  # fmt: skip
            self.bytes += len(block)
            self.events += len(lines) - len(repeated)
        self.end = record.position_after

    def cells(self, shape: Shape, after: Position, since: int) -> Cells:
        """What it adds to windows of a rollup, by group and second: as stored if it is settled, else as expected.

        Args:
            shape: what they keep.
            after: leave out the records up to there.
            since: events before this second may be left out.
        """
        if after >= self.start:
            return self._count(shape, after, since)
        key = shape.rollup.name, self.settled
        known = self._cells.get(key)
        if known is None or known[0] > since:
            known = self._cells[key] = since, self._count(shape, after, since)
        return known[1]

    def join(self, following: Piece) -> None:
        """Take the piece that follows it in, which is no piece of its own any more. Neither is settled."""
        self.lines += following.lines
        self.end = following.end
        self.events += following.events
        self.bytes += following.bytes
        self._cells.clear()

    def settle(self, unstored: frozenset[Place]) -> None:
        """The database has it now, but for some of its events."""
        self.unstored, self.settled = unstored, True
        if not self.corrected:
            self._cells = {(name, True): cells for (name, _), cells in self._cells.items()}

    def _count(self, shape: Shape, after: Position, since: int) -> Cells:
        cells: Cells = {}
        earliest = utc_text(since * 1_000_000_000).encode()[:19]
        for lines in self.lines:
            if lines.event_type == shape.event_type.name and lines.at > after:
                try:
                    self._count_lines(shape, lines, cells, earliest)
                except ValueError as error:
                    self._on_failure(self.journal_id, lines.sequence, str(error))
        return cells

    def _count_lines(self, shape: Shape, lines: Lines, cells: Cells, earliest: bytes) -> None:
        read, merge = shape.reader(lines.columns), shape.merge
        left_out = self._left_out(lines)
        for number, line in enumerate(lines.lines):
            # Most of what is imported is old: it is not looked at any further.
            if number in left_out or line[SECOND] < earliest:
                continue
            try:
                second, group, state = read(line)
            except (ValueError, ArithmeticError) as error:
                self._on_failure(self.journal_id, lines.sequence, str(error))
                continue
            seconds = cells.get(group)
            if seconds is None:
                cells[group] = {second: state}
            elif second in seconds:
                merge(seconds[second], state)
            else:
                seconds[second] = state

    def _left_out(self, lines: Lines) -> frozenset[int] | set[int]:
        if not self.settled:
            return lines.repeated
        if not self.unstored:
            return frozenset()
        places = lines.places or range(len(lines.lines))
        return {
            number for number, place in enumerate(places) if (lines.event_type, lines.sequence, place) in self.unstored
        }


class Seen:
    """The ids of an organisation's latest events, so that one that is sent again is not counted before it is loaded.

    Args:
        ids_max: ids of one event type that are remembered at least; beyond twice as many the oldest are forgotten.
    """

    def __init__(self, ids_max: int) -> None:
        self._ids: dict[str, dict[bytes, None]] = {}
        self._ids_max = ids_max

    def repeated(self, event_type: str, lines: list[bytes]) -> frozenset[int]:
        """Which lines, by number, have ids that were seen before or further up; all are remembered."""
        known = self._ids.setdefault(event_type, {})
        ids = [line[ID] for line in lines]
        fresh = dict.fromkeys(ids)
        found: set[int] = set()
        # Nearly always all are new.
        if len(fresh) < len(ids) or not known.keys().isdisjoint(fresh):
            own: set[bytes] = set()
            for number, each in enumerate(ids):
                if each in known or each in own:
                    found.add(number)
                own.add(each)
        known.update(fresh)
        if len(known) > 2 * self._ids_max:
            self._ids[event_type] = dict.fromkeys(list(known)[-self._ids_max :])
        return frozenset(found)
