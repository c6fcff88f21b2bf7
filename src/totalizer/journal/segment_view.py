"""Reading one segment: records in big pieces, every checksum compared, damage stepped over."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from totalizer.journal.disk import Disk
from totalizer.journal.format import (
    CHECKED_BYTES,
    GROUP_FIRST,
    MARKER_BYTES,
    RECORD,
    RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    segment_path,
    unpack_header,
)
from totalizer.journal.position import Position, Record
from totalizer.journal.quarantine import Damage

#: Bytes read from the disk at once, at least and at most (a longer record is read whole).
_WINDOW_BYTES_MIN, _WINDOW_BYTES_MAX = 64 << 10, 8 << 20
#: Bytes looked through at once for the next good record after damage.
_SEARCH_BYTES = 1 << 20
#: Where a disk fails to read a window, it is read again in pages, and the pages it refuses count as zeros.
_PAGE_BYTES = 4096


class Piece(NamedTuple):
    """What one look at a segment gave.

    Attributes:
        records: in order; empty only if `offset` has reached the limit.
        offset: where to look next.
        damage: what had to be stepped over before the first of the records, if anything.
        group_offset: offset of the last record among these that began a group, -1 if none did.
    """

    records: list[Record]
    offset: int
    damage: Damage | None
    group_offset: int


class SegmentView:
    """An open segment file, for one thread.

    Args:
        header: None if the file has no readable one; then there is nothing to read.
        size: bytes of the file when it was opened.
    """

    def __init__(self, folder: Path, number: int, disk: Disk) -> None:
        self.number = number
        self._disk = disk
        self._descriptor = disk.open(segment_path(folder, number))
        self._window, self._window_start = b"", 0
        try:
            self.size = os.fstat(self._descriptor).st_size
            self.header = unpack_header(self.bytes_at(0, SEGMENT_HEADER_BYTES))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Nothing happens the second time."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def belongs_to(self, journal_id: bytes) -> str | None:
        """None if the file is what its name says, in the journal of that id; else the reason why not."""
        if self.header is None:
            return "neither copy of the segment's header can be read"
        if self.header.journal_id != journal_id:
            return f"the segment belongs to another journal, {self.header.journal_id.hex()}"
        if self.header.number != self.number:
            return f"the file is a copy of segment {self.header.number}"
        return None

    def bytes_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end of the file; zeros where the disk cannot read (EIO)."""
        try:
            return self._disk.pread(self._descriptor, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        first = offset // _PAGE_BYTES * _PAGE_BYTES
        pages = (self._page_at(start) for start in range(first, offset + length, _PAGE_BYTES))
        return b"".join(pages)[offset - first : offset - first + length]

    def read(
        self,
        offset: int,
        limit: int,
        expected: int | None,
        limit_sequence: int | None,
        records_max: int,
        bytes_max: int,
    ) -> Piece:
        """Records from `offset` on, none of them beyond `limit`.

        Args:
            offset: where a record begins; smaller ones than the header area's end are taken as that.
            limit: where the records end.
            expected: sequence of the record at `offset`, if known.
            limit_sequence: sequence of the one that would be at `limit`, if known; to count what damage took.
            records_max: at most so many, ≥ 1.
            bytes_max: at most so many bytes of payload, but at least one record.
        """
        offset = max(offset, SEGMENT_HEADER_BYTES)
        header = self._whole_header()
        piece = self._parse(offset, limit, expected, records_max, bytes_max)
        if piece.records or offset >= limit:
            return piece
        least = header.first_sequence if expected is None else expected
        # What was read may have been a passing failure of the disk: look again at the bytes themselves.
        self._window = b""
        found = self._next_valid(offset, limit, least)
        lost = None
        if found is None:
            if expected is not None and limit_sequence is not None:
                lost = limit_sequence - expected
            return Piece([], limit, self._damage(offset, limit, lost), -1)
        start, sequence = found
        if expected is not None:
            lost = sequence - expected
        piece = self._parse(start, limit, sequence, records_max, bytes_max)
        if start == offset and not lost and piece.records:
            return piece
        # A step forward in any case, even from a record that was good a moment ago and is not now.
        onward = max(piece.offset, offset + 1)
        return piece._replace(offset=onward, damage=self._damage(offset, start, lost))

    def _parse(self, offset: int, limit: int, expected: int | None, records_max: int, bytes_max: int) -> Piece:
        """The good records from `offset`; stops at a bad one, at the limit, or when there are enough."""
        header = self._whole_header()
        marker, number = header.marker, self.number
        window, base = self._window_for(offset, limit, bytes_max)
        records: list[Record] = []
        group_offset = -1
        at, size = offset - base, min(len(window), limit - base)
        while at + RECORD_HEADER_BYTES <= size and len(records) < records_max:
            found, flags, length, sequence, checksum = RECORD.unpack_from(window, at)
            body = at + RECORD_HEADER_BYTES
            end = body + length
            if found != marker or length > RECORD_BYTES_MAX or base + end > limit:
                break
            if end > size:
                if records:
                    break
                window, size = self.bytes_at(base + at, end - at), end - at
                base, at, body, end = base + at, 0, RECORD_HEADER_BYTES, end - at
                if len(window) < end:
                    break
            payload = window[body:end]
            if crc32(payload, crc32(window[at : at + CHECKED_BYTES])) != checksum:
                break
            if expected is None:
                expected = sequence
            if sequence != expected or (records and length > bytes_max):
                break
            if flags & GROUP_FIRST:
                group_offset = base + at
            records.append(Record(Position(number, base + end), sequence, payload))
            expected = sequence + 1
            bytes_max -= length
            at = end
        return Piece(records, base + at, None, group_offset)

    def _window_for(self, offset: int, limit: int, bytes_max: int) -> tuple[bytes, int]:
        """Bytes that hold the header at `offset`, and the offset of their first: the last ones read, if they do."""
        start, window = self._window_start, self._window
        if start <= offset and min(offset + RECORD_HEADER_BYTES, limit) <= start + len(window):
            return window, start
        length = min(max(bytes_max + RECORD_HEADER_BYTES, _WINDOW_BYTES_MIN), _WINDOW_BYTES_MAX, limit - offset)
        self._window, self._window_start = self.bytes_at(offset, max(length, 0)), offset
        return self._window, offset

    def _next_valid(self, start: int, limit: int, least: int) -> tuple[int, int] | None:
        """Offset and sequence of the first good record at or after `start`, with a sequence of `least` or higher."""
        marker = self._whole_header().marker
        limit = min(limit, self.size)
        while start + RECORD_HEADER_BYTES <= limit:
            chunk = self.bytes_at(start, min(_SEARCH_BYTES, limit - start))
            at = chunk.find(marker)
            while at >= 0:
                sequence = self._sequence_at(start + at, limit)
                if sequence is not None and sequence >= least:
                    return start + at, sequence
                at = chunk.find(marker, at + 1)
            # A marker may lie across two chunks.
            start += max(len(chunk) - MARKER_BYTES + 1, 1)
        return None

    def _sequence_at(self, offset: int, limit: int) -> int | None:
        """The sequence of the record at `offset` if it is whole, ends by `limit` and its checksum is right."""
        start = self.bytes_at(offset, RECORD_HEADER_BYTES)
        if len(start) < RECORD_HEADER_BYTES:
            return None
        _, _, length, sequence, checksum = RECORD.unpack(start)
        if length > RECORD_BYTES_MAX or offset + RECORD_HEADER_BYTES + length > limit:
            return None
        payload = self.bytes_at(offset + RECORD_HEADER_BYTES, length)
        whole = len(payload) == length and crc32(payload, crc32(start[:CHECKED_BYTES])) == checksum
        return int(sequence) if whole else None

    def _damage(self, start: int, end: int, lost: int | None) -> Damage:
        return Damage(self.number, start, end - start, lost, "no readable record where one should be")

    def _page_at(self, offset: int) -> bytes:
        try:
            return self._disk.pread(self._descriptor, _PAGE_BYTES, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return bytes(_PAGE_BYTES)

    def _whole_header(self) -> SegmentHeader:
        if self.header is None:
            raise ValueError(f"segment {self.number} has no readable header")
        return self.header
