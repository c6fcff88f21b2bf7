"""What waits in a journal, read by whatever process: nothing here changes it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from totalizer.edge.batch import Entry
from totalizer.edge.records import ENTRY, ENTRY_HEADER_BYTES, Fold
from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, JournalReader, Position, Record

#: Records and bytes read at once.
_RECORDS_MAX, _READ_BYTES_MAX = 4096, 1 << 20

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def fold(reader: JournalReader) -> Fold:
    """The state of a journal, from all its records.

    Raises:
        JournalFailed: the disk refuses, or a record is none that this program writes.
    """
    state, position = Fold(), BEGINNING
    while records := reader.read(position, records_max=_RECORDS_MAX, bytes_max=_READ_BYTES_MAX):
        try:
            state.take(records)
        except msgspec.DecodeError as error:
            raise JournalFailed(f"{reader.folder} has records of a later version, upgrade totalizer: {error}") from None
        position = records[-1].position_after
    return state


def waiting_records(reader: JournalReader, start: Position, through: int) -> Iterator[Record]:
    """The records of waiting entries: those from a position on, and after a sequence. JournalFailed as reading."""
    for record in records_after(reader, start):
        if record.payload[0] == ENTRY and record.sequence > through:
            yield record


def read_waiting(folder: Path, limit: int | None) -> list[Entry]:
    """Entries that wait in a journal, oldest first; at most `limit`. JournalFailed if the disk refuses."""
    with JournalReader(folder) as reader:
        state = fold(reader)
        records = islice(waiting_records(reader, state.start, state.through), limit)
        return [entry_of(record) for record in records]


def records_after(reader: JournalReader, position: Position) -> Iterator[Record]:
    """Every durable record from a position on. JournalFailed as reading."""
    while records := reader.read(position, records_max=_RECORDS_MAX, bytes_max=_READ_BYTES_MAX):
        yield from records
        position = records[-1].position_after


def entry_of(record: Record) -> Entry:
    """The entry in its record."""
    return _decode(record.payload[ENTRY_HEADER_BYTES:])
