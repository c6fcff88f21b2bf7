"""The oldest waiting entries, read from the journal once and held until they are dealt with."""

from __future__ import annotations

from collections import deque
from itertools import islice

from totalizer.edge.records import ENTRY
from totalizer.journal import JournalReader, Position, Record

#: Records read at once at least, and bytes at most, unless one is longer.
READ_RECORDS_MIN, READ_BYTES_MAX = 64, 256 << 10


class Lookahead:
    """For one thread.

    Args:
        reader: of the journal.
        start: where to begin.
        through: entries up to this sequence are dealt with.
    """

    def __init__(self, reader: JournalReader, start: Position, through: int) -> None:
        self._reader, self._position, self._through = reader, start, through
        self._records: deque[Record] = deque()

    def peek(self, count: int, *, bytes_max: int, last: int | None = None) -> list[Record]:
        """The oldest records of waiting entries.

        Args:
            count: at most so many.
            bytes_max: at most so many bytes of payload, unless the first has more.
            last: none with a higher sequence; None for any.

        Raises:
            JournalFailed: the disk refuses.
        """
        chosen: list[Record] = []
        size = 0
        while len(chosen) < count:
            if len(chosen) == len(self._records) and not self._read_on(count - len(chosen)):
                break
            for record in islice(self._records, len(chosen), count):
                size += len(record.payload)
                if (last is not None and record.sequence > last) or (chosen and size > bytes_max):
                    return chosen
                chosen.append(record)
        return chosen

    def drop(self, through: int) -> None:
        """Entries up to this sequence are dealt with."""
        self._through = max(self._through, through)
        while self._records and self._records[0].sequence <= through:
            self._records.popleft()

    def _read_on(self, count: int) -> bool:
        """Read some more; False if there is nothing more that is durable."""
        wanted = len(self._records) + 1
        while len(self._records) < wanted:
            records = self._reader.read(
                self._position, records_max=max(count, READ_RECORDS_MIN), bytes_max=READ_BYTES_MAX
            )
            if not records:
                return False
            self._position = records[-1].position_after
            through = self._through
            self._records.extend(
                record for record in records if record.payload[0] == ENTRY and record.sequence > through
            )
        return True
