"""How far a journal is durable: told by its writer to readers in other processes, which have the file mapped.

The file `durable` holds two slots, written in turn, each with its own checksum: a reader takes the further
one that is whole, so a writer killed in the middle of a slot takes nothing back. What a slot says was true
when it was written and stays true, for durable bytes do not change; after a power loss it may only say less
than there is.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from totalizer.journal.disk import Disk

WATERMARK_NAME = "durable"
# segment, offset, next sequence, ended (0 or 1), CRC-32 of these begun with that of the journal id
_FIELDS = Struct("<QQQI")
_CHECKSUM = Struct("<I")
_SLOT_BYTES = _FIELDS.size + _CHECKSUM.size
#: The slots lie on cache lines of their own.
_SLOT_STARTS = (0, 64)
WATERMARK_BYTES = 128


class DurableEnd(NamedTuple):
    """Where the durable records end. Compares as further along.

    Attributes:
        segment: the newest segment with durable records; those before it are sealed.
        offset: where they end in it.
        sequence: of the next record.
        ended: 1 if nothing will follow in this segment, and what lies behind the offset was refused.
    """

    segment: int
    offset: int
    sequence: int
    ended: int


def decode(raw: bytes, journal_id: bytes) -> DurableEnd | None:
    """The further of the two slots in `raw`, or None if neither is whole or they belong to another journal."""
    salt = crc32(journal_id)
    ends = []
    for start in _SLOT_STARTS:
        fields = raw[start : start + _FIELDS.size]
        checksum = raw[start + _FIELDS.size : start + _SLOT_BYTES]
        if _CHECKSUM.pack(crc32(fields, salt)) == checksum:
            ends.append(DurableEnd._make(_FIELDS.unpack(fields)))
    return max(ends, default=None)


class Watermark:
    """The writer's side: one process at a time, the one that holds the journal's lock.

    The file is never shortened nor replaced: readers have it mapped. The writer itself does not: storing to a mapped
    page of a frozen file system would hold up every thread of the process, and of a failed one end it.
    """

    def __init__(self, folder: Path, journal_id: bytes, disk: Disk) -> None:
        path = folder / WATERMARK_NAME
        try:
            descriptor = disk.create(path)
        except FileExistsError:
            descriptor = disk.open(path, writable=True)
        try:
            size = os.fstat(descriptor).st_size
            if size < WATERMARK_BYTES:
                # Written, not extended, so that a full disk shows here and not at a later slot.
                disk.write_all(descriptor, bytes(WATERMARK_BYTES - size), size)
        except BaseException:
            disk.close(descriptor)
            raise
        self._disk, self._descriptor = disk, descriptor
        self._journal_id = journal_id
        self._salt = crc32(journal_id)
        self._turn = 0

    def read(self) -> DurableEnd | None:
        """What is there now."""
        return decode(os.pread(self._descriptor, WATERMARK_BYTES, 0), self._journal_id)

    def publish(self, end: DurableEnd) -> None:
        """Let readers see as far as `end`, which must not be behind what was published before. OSError if refused."""
        start = _SLOT_STARTS[self._turn]
        self._turn = 1 - self._turn
        fields = _FIELDS.pack(*end)
        slot = fields + _CHECKSUM.pack(crc32(fields, self._salt))
        # Not one of the disk's writes that a sync makes durable: memory shared with readers, through the file.
        if os.pwrite(self._descriptor, slot, start) != len(slot):
            raise OSError(errno.EIO, "the watermark was written in part")

    def reset(self, end: DurableEnd) -> None:
        """Make `end` the only thing said, even if it is behind."""
        self.publish(end)
        self.publish(end)

    def close(self) -> None:
        """Close the file; the content stays. Nothing happens the second time."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._disk.close(descriptor)


class WatermarkView:
    """The reader's side. `raw` costs no system call once the file is mapped."""

    def __init__(self, folder: Path, journal_id: bytes) -> None:
        self._path = folder / WATERMARK_NAME
        self._journal_id = journal_id
        self._map: mmap.mmap | None = None

    def raw(self) -> bytes:
        """The slots as they are; equal bytes mean that nothing has become durable in between."""
        if self._map is None and not self._open():
            return b""
        assert self._map is not None
        return self._map[:]

    def decode(self, raw: bytes) -> DurableEnd | None:
        """What `raw` says, None if nothing valid."""
        return decode(raw, self._journal_id)

    def close(self) -> None:
        """Unmap the file. A later `raw` maps it again."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def _open(self) -> bool:
        """Map the file if it is there in full length: a journal not yet recovered may have none."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(descriptor).st_size < WATERMARK_BYTES:
                return False
            self._map = mmap.mmap(descriptor, WATERMARK_BYTES, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        return True
