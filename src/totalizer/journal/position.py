"""Where a reader is in a journal, and what it gets there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A place between two records. Position(0, 0) is before the first; order is the order of writing.

    Positions are never reused within one journal id, so one may be kept in a database beside the journal.

    Attributes:
        segment: number of the segment.
        offset: byte in it where the next record begins.
    """

    segment: int
    offset: int


#: Before the first record of any journal.
BEGINNING = Position(0, 0)


class Record(NamedTuple):
    """One durable record.

    Attributes:
        position_after: where to go on reading once it is dealt with.
        sequence: counts the journal's records from 1, without gaps.
        payload: what was appended.
    """

    position_after: Position
    sequence: int
    payload: bytes
