"""What an export has made and its client has not taken yet: a little in memory, the rest on disk."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, NamedTuple

from totalizer.errors import OperationError
from totalizer.telemetry import logger

#: Bytes of one export that wait in memory, beside the piece that is on its way.
MEMORY_BYTES = 1 << 20


class SpoolRoom:
    """The disk that all exports of a process share.

    Args:
        folder: where their files are; it is made when the first is.
        bytes_max: of all of them; 0 for no files.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder, self._free = folder, bytes_max

    def take(self, count: int) -> bool:
        """Take that many bytes; False if they are not free."""
        if count > self._free:
            return False
        self._free -= count
        return True

    def give_back(self, count: int) -> None:
        """Bytes that are needed no more."""
        self._free += count

    def file(self) -> IO[bytes]:
        """A new file without a name: whatever ends the process, nothing of it stays."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return TemporaryFile(dir=self._folder, buffering=0)


class _Place(NamedTuple):
    start: int
    length: int


class Spool:
    """Pieces of one export between its maker and its client, in order. Used on one event loop.

    Args:
        room: on disk.
        timeout_s: longest time to wait until the client has taken something, when there is no room; seconds.
    """

    def __init__(self, room: SpoolRoom, timeout_s: float) -> None:
        self._room, self._timeout_s = room, timeout_s
        self._waiting: deque[bytes | _Place] = deque()
        self._memory_bytes = 0
        #: The file is read and written in threads, and may be closed meanwhile.
        self._file: IO[bytes] | None = None
        self._lock = Lock()
        self._file_end = self._file_pieces = 0
        self._put, self._taken = asyncio.Event(), asyncio.Event()
        self._ended = False

    async def put(self, piece: bytes) -> None:
        """Add a piece; waits for the client where there is no room.

        Raises:
            OperationError: the client has taken nothing for too long.
        """
        while not (self._kept_in_memory(piece) or await self._kept_on_disk(piece)):
            self._taken.clear()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._taken.wait()
            except TimeoutError:
                raise OperationError(
                    f"the client has taken nothing for {self._timeout_s:g} s (TOTALIZER_EXPORT_CLIENT_TIMEOUT_MS)"
                ) from None
        self._put.set()

    def end(self, last: bytes = b"") -> None:
        """Add the last piece, room or none."""
        if last:
            self._waiting.append(last)
            self._memory_bytes += len(last)
        self._ended = True
        self._put.set()

    async def get(self) -> bytes | None:
        """The next piece, when it is there; None after the last."""
        while not self._waiting:
            if self._ended:
                return None
            self._put.clear()
            await self._put.wait()
        first = self._waiting.popleft()
        if isinstance(first, _Place):
            piece = await asyncio.to_thread(self._read, first)
            self._file_pieces -= 1
            if not self._file_pieces:
                self._empty_file()
        else:
            piece = first
            self._memory_bytes -= len(piece)
        self._taken.set()
        return piece

    def close(self) -> None:
        """Let go of what waits."""
        with self._lock:
            if self._file is not None:
                self._file.close()
        self._waiting.clear()
        self._room.give_back(self._file_end)
        self._file_end = 0

    def _kept_in_memory(self, piece: bytes) -> bool:
        if self._waiting and self._memory_bytes + len(piece) > MEMORY_BYTES:
            return False
        self._waiting.append(piece)
        self._memory_bytes += len(piece)
        return True

    async def _kept_on_disk(self, piece: bytes) -> bool:
        if not self._room.take(len(piece)):
            return False
        place = _Place(self._file_end, len(piece))
        self._file_end += len(piece)
        self._file_pieces += 1
        try:
            await asyncio.to_thread(self._write, place, piece)
        except OSError as error:
            # What has been taken of the room comes back with the rest of the file.
            self._file_pieces -= 1
            logger().warning("an export waits for its client, the disk takes no more", reason=str(error))
            return False
        self._waiting.append(place)
        return True

    def _write(self, place: _Place, piece: bytes) -> None:
        with self._lock:
            if self._file is None:
                self._file = self._room.file()
            written = 0
            while written < len(piece):
                written += os.pwrite(self._file.fileno(), piece[written:], place.start + written)

    def _read(self, place: _Place) -> bytes:
        with self._lock:
            assert self._file is not None
            piece = b""
            while len(piece) < place.length:
                piece += os.pread(self._file.fileno(), place.length - len(piece), place.start + len(piece))
            return piece

    def _empty_file(self) -> None:
        with self._lock:
            assert self._file is not None
            self._file.truncate(0)
        self._room.give_back(self._file_end)
        self._file_end = 0
