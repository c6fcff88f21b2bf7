"""The bytes of a segment: its header, kept twice, and the records after it.

docs/reference/journal.md draws them.

A segment's marker is six random bytes that begin every record in it. It is the salt of the checksums, it
tells a record from whatever an earlier file left on the same blocks, and since a sender cannot know it, no
payload can pass for a record when the scanner looks for the next good one after damage.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from zlib import crc32

from totalizer.errors import JournalFailed

MAGIC = b"TOTALJNL"
FORMAT_VERSION = 1
#: Bytes before the first record: the header at 0 and its copy at 4096, on two pages so that one bad page
#: spares one.
SEGMENT_HEADER_BYTES = 8192
HEADER_COPIES = (0, 4096)
#: Largest payload, bytes. A length above it is damage, found before anything is allocated for it.
RECORD_BYTES_MAX = 512 << 20
#: Flag of a record that is the first of its group: everything before it was durable when it was written.
GROUP_FIRST = 1
#: Segment number of "none yet"; the first segment is 1.
NO_SEGMENT = 0

# magic, version, marker, number, journal id, first sequence, previous segment, its end, created (ns since
# 1970 UTC)
_HEADER = Struct("<8sH6sQ16sQQQQ")
_CHECKSUM = Struct("<I")
# marker, flags, payload length, sequence, CRC-32 of these and the payload
RECORD = Struct("<6sHIQI")
_RECORD_START = Struct("<6sHIQ")
RECORD_HEADER_BYTES = RECORD.size
CHECKED_BYTES = _RECORD_START.size
MARKER_BYTES = 6

_SEGMENT_NAME = re.compile(r"[0-9a-f]{16}\.segment").fullmatch


@dataclass(frozen=True)
class SegmentHeader:
    """What a segment says of itself and of the one before it.

    Attributes:
        number: its number, as in the file's name.
        journal_id: 16 bytes, those of the journal it belongs to.
        marker: the six bytes that begin each of its records.
        first_sequence: sequence of its first record.
        previous: number of the segment the writer used before it; NO_SEGMENT if none was left.
        previous_end: offset where that one's acknowledged records end. Bytes beyond it were refused.
        created_ns: wall-clock time, nanoseconds since 1970 UTC; for people.
    """

    number: int
    journal_id: bytes
    marker: bytes
    first_sequence: int
    previous: int
    previous_end: int
    created_ns: int

    def pack(self) -> bytes:
        """The whole header area, SEGMENT_HEADER_BYTES long, both copies in it."""
        fields = _HEADER.pack(
            MAGIC, FORMAT_VERSION, self.marker, self.number, self.journal_id,
            self.first_sequence, self.previous, self.previous_end, self.created_ns,
        )  # fmt: skip
        copy = fields + _CHECKSUM.pack(crc32(fields))
        area = bytearray(SEGMENT_HEADER_BYTES)
        for start in HEADER_COPIES:
            area[start : start + len(copy)] = copy
        return bytes(area)


def unpack_header(area: bytes) -> SegmentHeader | None:
    """The header of a segment's first SEGMENT_HEADER_BYTES, from whichever copy is whole; None if neither is.

    Raises:
        JournalFailed: a later version of the format, which this one must not touch.
    """
    for start in HEADER_COPIES:
        fields = area[start : start + _HEADER.size]
        checksum = area[start + _HEADER.size : start + _HEADER.size + _CHECKSUM.size]
        if len(checksum) < _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != crc32(fields):
            continue
        magic, version, marker, number, journal_id, sequence, previous, previous_end, created = _HEADER.unpack(fields)
        if magic != MAGIC:
            continue
        if version != FORMAT_VERSION:
            raise JournalFailed(f"segment {number} has format {version}; this version reads {FORMAT_VERSION}: upgrade")
        return SegmentHeader(number, journal_id, marker, sequence, previous, previous_end, created)
    return None


def new_marker() -> bytes:
    """Six random bytes, the first not zero, so that a tail of zeros is never taken for a record."""
    while True:
        marker = os.urandom(MARKER_BYTES)
        if marker[0]:
            return marker


def encode_group(payloads: Sequence[bytes], marker: bytes, sequence: int) -> bytes:
    """The records of one group, one after the other, ready to be written in one piece.

    Args:
        payloads: what they carry, each at most RECORD_BYTES_MAX bytes.
        marker: the segment's.
        sequence: of the first; the others count on from it.
    """
    parts: list[bytes] = []
    flags = GROUP_FIRST
    pack_start, pack_checksum, checksum = _RECORD_START.pack, _CHECKSUM.pack, crc32
    for payload in payloads:
        start = pack_start(marker, flags, len(payload), sequence)
        parts += (start, pack_checksum(checksum(payload, checksum(start))), payload)
        flags = 0
        sequence += 1
    return b"".join(parts)


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` of the journal in `folder` lies."""
    return folder / f"{number:016x}.segment"


def segment_numbers(folder: Path) -> list[int]:
    """Numbers of the segment files in `folder`, ascending. Whether they are good is not looked at.

    A folder, link, pipe or socket by such a name is no segment: nobody here makes one, and opening it can hang.
    """
    with os.scandir(folder) as entries:
        names = [each.name for each in entries if _SEGMENT_NAME(each.name) and each.is_file(follow_symlinks=False)]
    return sorted(int(name[:16], 16) for name in names)
