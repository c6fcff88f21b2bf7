"""What stands in an edge journal, and what follows from it: the state is a fold over the records.

A record is a letter and its contents:

    E  an entry: when it was added (8 bytes, milliseconds since 1970 UTC, little-endian), then its JSON
    S  a seal: the entries up to a sequence are one batch, which has this id whatever happens; and, to spare a record,
       what has become of the batch before
    D  done: the entries up to a sequence are dealt with; reading goes on at a position
    M  a mark, which means nothing: once it is durable, so is everything before it

Sequences and positions are the journal's (docs/reference/journal.md). There is at most one seal that is not done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from struct import Struct

import msgspec

from totalizer.journal import BEGINNING, Position, Record

ENTRY, SEAL, DONE, MARK = b"ESDM"
MARK_PAYLOAD = b"M"

_ADDED = Struct("<cQ")
#: Bytes of an entry's record before its JSON.
ENTRY_HEADER_BYTES = _ADDED.size


class Done(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Entries that are dealt with.

    Attributes:
        batch_id: of their batch; empty for entries dropped to make room.
        through: sequence of the last of them.
        segment, offset: where the next waiting entry is, or something before it that is none.
        delivered, failed, refused, dropped: how many entries went where.
    """

    batch_id: str
    through: int
    segment: int
    offset: int
    delivered: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0

    @property
    def position(self) -> Position:
        """Where to read on."""
        return Position(self.segment, self.offset)


class Seal(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A batch that was begun.

    Attributes:
        batch_id: its id.
        timestamp: when it was sealed, milliseconds since 1970 UTC.
        through: sequence of its last entry.
        count: how many entries are in it.
        done: what became of the batch before, if that was not noted yet.
    """

    batch_id: str
    timestamp: int
    through: int
    count: int
    done: Done | None = None


_encode = msgspec.json.Encoder().encode
_decode_seal = msgspec.json.Decoder(Seal).decode
_decode_done = msgspec.json.Decoder(Done).decode


def entry_payload(encoded: bytes, now_ms: int) -> bytes:
    """The record of an entry."""
    return _ADDED.pack(b"E", now_ms) + encoded


def added_ms(payload: bytes) -> int:
    """When the entry of a record was added, milliseconds since 1970 UTC."""
    return int(_ADDED.unpack_from(payload)[1])


def seal_payload(seal: Seal) -> bytes:
    """The record of a seal."""
    return b"S" + _encode(seal)


def done_payload(done: Done) -> bytes:
    """The record of what is done."""
    return b"D" + _encode(done)


class Fold:
    """What the records of a journal come to.

    Attributes:
        through: sequence of the last entry that is dealt with; 0 if none is.
        start: where to read waiting entries from; some records there may have to be passed over.
        seal: the batch that was begun and is not done; None if none is.
        waiting: entries that are not dealt with, those of the seal included.
    """

    def __init__(self) -> None:
        self.through, self.start = 0, BEGINNING
        self.seal: Seal | None = None
        # Sequences of waiting entries as runs [first, last], so that a million of them cost no more than one.
        self._runs: deque[list[int]] = deque()

    @property
    def waiting(self) -> int:
        """How many entries wait."""
        return sum(last - first + 1 for first, last in self._runs)

    @property
    def sealed(self) -> int:
        """How many of them are in the batch that was begun."""
        if self.seal is None:
            return 0
        through = self.seal.through
        return sum(max(min(last, through) - first + 1, 0) for first, last in self._runs)

    def take(self, records: Iterable[Record]) -> None:
        """Go on with the next records. msgspec.DecodeError if one is none of ours."""
        for record in records:
            kind = record.payload[0] if record.payload else MARK
            if kind == ENTRY:
                self._add(record.sequence)
            elif kind == SEAL:
                seal = _decode_seal(record.payload[1:])
                if seal.done is not None:
                    self._finish(seal.done)
                self.seal = seal
            elif kind == DONE:
                self._finish(_decode_done(record.payload[1:]))

    def _add(self, sequence: int) -> None:
        if self._runs and self._runs[-1][1] == sequence - 1:
            self._runs[-1][1] = sequence
        elif sequence > self.through:
            self._runs.append([sequence, sequence])

    def _finish(self, done: Done) -> None:
        self.through, self.start = done.through, done.position
        if self.seal is not None and self.seal.through <= done.through:
            self.seal = None
        while self._runs and self._runs[0][1] <= done.through:
            self._runs.popleft()
        if self._runs:
            self._runs[0][0] = max(self._runs[0][0], done.through + 1)
