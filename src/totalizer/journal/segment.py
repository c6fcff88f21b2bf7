"""The segment being written: made whole before anything is put in it, and never touched again after an error."""

from __future__ import annotations

import contextlib
from pathlib import Path

from totalizer import failpoint
from totalizer.failpoint import Failpoint
from totalizer.journal.disk import Disk
from totalizer.journal.format import SEGMENT_HEADER_BYTES, SegmentHeader, segment_path


class Segment:
    """An open segment of this writer. Belongs to one thread; every method may block and raise OSError.

    Attributes:
        number: its number.
        marker: the bytes that begin its records.
        end: where its durable records end.
        size: bytes reserved for it.
    """

    def __init__(self, disk: Disk, descriptor: int, header: SegmentHeader, size: int) -> None:
        self._disk, self._descriptor = disk, descriptor
        self.number, self.marker = header.number, header.marker
        self.end, self.size = SEGMENT_HEADER_BYTES, size

    @classmethod
    def create(cls, folder: Path, header: SegmentHeader, size: int, disk: Disk) -> Segment:
        """Make a segment file of `size` bytes; when this returns, it and its header would survive a power loss."""
        path = segment_path(folder, header.number)
        draft = path.with_name(path.name + ".new")
        descriptor = disk.create(draft)
        try:
            disk.reserve(descriptor, size)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.SEGMENT_RESERVED)
            disk.write_all(descriptor, header.pack(), 0)
            disk.fsync(descriptor)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.SEGMENT_DRAFTED)
            disk.rename(draft, path)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.SEGMENT_RENAMED)
            disk.sync_folder(folder)
        except BaseException:
            disk.close(descriptor)
            # Either name may be there. A file left behind is void: the next segment does not name it as
            # previous.
            for leftover in (draft, path):
                with contextlib.suppress(OSError):
                    disk.unlink(leftover)
            raise
        return cls(disk, descriptor, header, size)

    def fits(self, length: int) -> bool:
        """True if `length` more bytes go in."""
        return self.end + length <= self.size

    def commit(self, data: bytes) -> None:
        """Write a group at the end and return when it would survive a power loss. After an OSError, `abandon`."""
        self._disk.write_all(self._descriptor, data, self.end)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.GROUP_WRITTEN)
        self._disk.fdatasync(self._descriptor)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.GROUP_SYNCED)
        self.end += len(data)

    def seal(self) -> None:
        """Give back what was reserved and not used, and close. OSError if refused; then `abandon`."""
        self._disk.truncate(self._descriptor, self.end)
        self.size = self.end
        if failpoint.ARMED:
            failpoint.hit(Failpoint.SEGMENT_CUT)
        self._disk.fsync(self._descriptor)
        self.forget()
        if failpoint.ARMED:
            failpoint.hit(Failpoint.SEGMENT_SEALED)

    def abandon(self) -> int:
        """Close after an error, without another sync: the system may have dropped what it could not write.

        What was written behind `end` is cut off where the disk still allows that. It counts for nothing in
        any case: the watermark and the next segment's header both say where this one ends.

        Returns:
            Bytes the file still takes.
        """
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._disk.truncate(self._descriptor, self.end)
                self.size = self.end
            with contextlib.suppress(OSError):
                self.forget()
        return self.size

    def forget(self) -> None:
        """Close the descriptor and nothing else."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._disk.close(descriptor)
