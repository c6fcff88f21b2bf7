"""Bytes in, bounded lines out: files, pipes, gzip; never more than one line and one chunk in memory."""

from __future__ import annotations

import os
import re
import select
import stat
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from totalizer.errors import OperationError
from totalizer.ops.importers.source import Line, Progress

#: Bytes asked of the operating system at a time.
CHUNK_BYTES = 256 * 1024
#: Bytes of the longest line that is read; a longer one is reported as broken.
LINE_BYTES_MAX = 1024 * 1024
#: Bytes kept of a line that is too long, for the quarantine.
KEPT_BYTES = 64 * 1024
#: Seconds without input after which a reader says so, so that a half-full batch is not held back.
IDLE_S = 0.25
#: The path that means standard input.
STDIN = "-"

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
#: What rotation appends to a log's name: `.1`, `.gz`, `-20250101`, `.2025-01-01`, `-20250101-1735689600`.
_ROTATED = re.compile(r"(?:\.gz|\.\d{1,3}|[-.](?:\d{8}|\d{4}-\d\d-\d\d)(?:[-_]?\d{2,10})?)\Z", re.ASCII)

Chunks = Generator[bytes | None, None, None]
Lines = Generator[Line | None, None, None]


class DamageError(Exception):
    """Compressed input that cannot be unpacked further."""


class Splitter(Protocol):
    """Turns chunks into lines. Holds at most one unfinished line."""

    def feed(self, chunk: bytes) -> Iterable[Line]:
        """The lines that `chunk` completes."""
        ...

    def end(self, damage: str | None = None) -> Iterable[Line]:
        """What is left when the input is over, or cannot be read further because of `damage`."""
        ...


class Input:
    """A file, or standard input, unpacked if it is gzip.

    Args:
        path: of the file; `-` for standard input.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.seekable = path != STDIN and stat.S_ISREG(os.stat(path).st_mode)
        self._size = os.stat(path).st_size if self.seekable else None
        self._read = 0

    @property
    def location(self) -> str:
        """The absolute path, or `-`."""
        return self.path if self.path == STDIN else str(Path(self.path).resolve())

    def progress(self) -> Progress:
        """Bytes of the file read so far, as stored."""
        return Progress(self._read, self._size, "bytes")

    def chunks(self) -> Chunks:
        """The content from the start, without a byte order mark.

        Raises:
            OperationError: the file cannot be read.
            DamageError: it is gzip, and cut short or damaged.
        """
        self._read = 0
        try:
            descriptor = 0 if self.path == STDIN else os.open(self.path, os.O_RDONLY)
            try:
                yield from _without_bom(_unpacked(self._counted(chunks_of(descriptor))))
            finally:
                if self.path != STDIN:
                    os.close(descriptor)
        except OSError as error:
            raise OperationError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def _counted(self, chunks: Chunks) -> Chunks:
        for chunk in chunks:
            self._read += len(chunk or b"")
            yield chunk


def source_name(path: str) -> str:
    """The name of a file without what log rotation adds, so that a rotated line keeps its identity."""
    name = "stdin" if path == STDIN else Path(path).resolve().name
    while (shorter := _ROTATED.sub("", name)) not in ("", name):
        name = shorter
    return name[:255]


def chunks_of(descriptor: int) -> Chunks:
    """What can be read from a descriptor until its end; None after every `IDLE_S` seconds without input."""
    waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    while True:
        if waits and not select.select([descriptor], [], [], IDLE_S)[0]:
            yield None
            continue
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def split(chunks: Iterator[bytes | None], splitter: Splitter) -> Lines:
    """The lines that `splitter` finds in `chunks`."""
    try:
        for chunk in chunks:
            if chunk is None:
                yield None
            else:
                yield from splitter.feed(chunk)
    except DamageError as error:
        yield from splitter.end(damage=str(error))
    else:
        yield from splitter.end()


class Pieces:
    """Cuts chunks at a one-byte separator; of a piece longer than the limit it keeps the head.

    Args:
        separator: one byte.
    """

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self._rest = b""
        self._cut = False

    def feed(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        """The pieces that `chunk` completes, each with True if it was cut to `KEPT_BYTES`."""
        parts = chunk.split(self._separator)
        self._extend(parts[0])
        if len(parts) == 1:
            return []
        first = (self._rest, self._cut)
        self._rest, self._cut = b"", False
        self._extend(parts[-1])
        return [first, *((part, False) for part in parts[1:-1])]

    def rest(self) -> tuple[bytes, bool]:
        """What follows the last separator."""
        return self._rest, self._cut

    def _extend(self, part: bytes) -> None:
        if self._cut:
            return
        self._rest = self._rest + part if self._rest else part
        if len(self._rest) > LINE_BYTES_MAX:
            self._rest, self._cut = self._rest[:KEPT_BYTES], True


class LineSplitter:
    """Text lines. Blank ones are counted, not given."""

    def __init__(self) -> None:
        self._pieces = Pieces(b"\n")
        self._number = 0

    def feed(self, chunk: bytes) -> Iterable[Line]:
        for piece, cut in self._pieces.feed(chunk):
            self._number += 1
            raw = piece.rstrip(b"\r")
            if raw.strip():
                yield Line(self._number, raw, f"it is longer than {LINE_BYTES_MAX} bytes" if cut else None)

    def end(self, damage: str | None = None) -> Iterable[Line]:
        piece, cut = self._pieces.rest()
        too_long = f"it is longer than {LINE_BYTES_MAX} bytes" if cut else None
        if damage is not None or piece.strip():
            yield Line(self._number + 1, piece.rstrip(b"\r"), damage or too_long, whole=False)


def _with_head(chunks: Chunks, size: int) -> Chunks:
    """The same content, the first chunk at least `size` bytes long where there are as many."""
    head = b""
    for chunk in chunks:
        if chunk is None or len(head) >= size:
            yield chunk
            continue
        head += chunk
        if len(head) >= size:
            yield head
    if len(head) < size:
        yield head


def _without_bom(chunks: Chunks) -> Chunks:
    first = True
    for chunk in _with_head(chunks, len(_BOM)):
        if chunk is not None and first:
            first = False
            yield chunk.removeprefix(_BOM)
        else:
            yield chunk


def _unpacked(chunks: Chunks) -> Chunks:
    """The content of gzip input, all its members; other input as it is. Format: RFC 1952."""
    headed = _with_head(chunks, len(_GZIP_MAGIC))
    unpacker: Unpacker | None = None
    first = True
    for chunk in headed:
        if chunk is None:
            yield None
            continue
        if first:
            first = False
            unpacker = Unpacker() if chunk.startswith(_GZIP_MAGIC) else None
        if unpacker is None:
            yield chunk
        else:
            yield from unpacker.feed(chunk)
    if unpacker is not None:
        unpacker.end()


class Unpacker:
    """Streams gzip in pieces of `CHUNK_BYTES`, so that highly packed input cannot fill the memory."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def feed(self, chunk: bytes) -> Chunks:
        """What `chunk` unpacks to.

        Raises:
            DamageError: it is not gzip, or its checksum is wrong.
        """
        while chunk:
            if self._member.eof:
                chunk = chunk.lstrip(b"\0")  # padding between or after members is allowed
                if not chunk:
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                yield self._member.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise DamageError(f"the compressed data is damaged from here on ({error})") from error
            chunk = self._member.unconsumed_tail or self._member.unused_data

    def end(self) -> None:
        """Check that the last member was complete.

        Raises:
            DamageError: it was not.
        """
        if not self._member.eof:
            raise DamageError("the compressed data ends too early, so what follows is missing")
