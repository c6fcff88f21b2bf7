"""The batch files of the edge library, shipped by hand: each entry is one `time_entries` event."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec

from totalizer.edge.batch import Entry, decode_batch_file
from totalizer.edge.event_of import EVENT_TYPE, event_of
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, OperationError
from totalizer.ops.importers.reading import KEPT_BYTES, LINE_BYTES_MAX, DamageError, Input, Lines
from totalizer.ops.importers.source import Broken, Event, Line, Progress

#: Names of the files looked for in a folder; one that is named itself may be called anything.
NAMES = ("batch_*.json", "*.failed.json", "*.abandoned.json")
#: Bytes of the largest file that is read, unpacked: it is held in memory whole.
FILE_BYTES_MAX = 256 << 20
#: Damaged files named at the end of the report; the rest are counted.
_NAMED_MAX = 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, object]).decode


class _Found(NamedTuple):
    """An entry, or what cannot be read: part of a file, or if `file` the whole of it."""

    raw: bytes
    damage: str | None = None
    file: bool = False


class BatchFilesSource:
    """Batch files: delivered, failed, abandoned. Contract: `source.Source`; a line is an entry, or a file that is none.

    Entries carry the ids they were given before they were first sent, so a batch that comes again, in another file or
    straight from the library, is counted once.

    Args:
        paths: files, and folders, which are searched for batch files with all folders below them.

    Raises:
        OperationError: a folder cannot be read.
    """

    kind = "batch-files"
    noun = "record"
    resumable = True

    def __init__(self, paths: Sequence[str]) -> None:
        self.name = os.path.basename(os.path.realpath(paths[0]))
        self.scope: tuple[str, ...] = tuple(dict.fromkeys(os.path.realpath(path) for path in paths))
        self._files = find_files(paths)
        self._sizes = {path: _size(path) for path in self._files}
        self.notes: list[str] = []
        self._done = 0

    def lines(self) -> Lines:
        self.notes, self._done = [], 0
        damaged: list[str] = []
        number = 0
        for path in self._files:
            for found in self._of_file(path):
                number += 1
                if found.file:
                    damaged.append(str(path))
                yield Line(number, found.raw, found.damage)
            self._done += self._sizes[path]
        if damaged:
            named = ", ".join(damaged[:_NAMED_MAX])
            rest = f" and {len(damaged) - _NAMED_MAX} more" if len(damaged) > _NAMED_MAX else ""
            self.notes.append(f"{len(damaged)} of {len(self._files)} files were not read, and are left: {named}{rest}")

    def progress(self) -> Progress:
        return Progress(self._done, sum(self._sizes.values()), "bytes")

    def read(self, line: Line) -> Event | Broken:
        return Event(EVENT_TYPE, event_of(_decode(line.raw)))

    def _of_file(self, path: Path) -> Iterator[_Found]:
        content = b""
        try:
            content = _content(path)
            batch = decode_batch_file(content, str(path))
        except FileNotFoundError:
            self.notes.append(f"{path} went away before it was read; if it was delivered meanwhile, it is counted")
        except (BatchFileDamaged, BatchVersionUnknown) as error:
            yield _Found(content[:KEPT_BYTES], str(error), file=True)
        else:
            yield from map(_entry, batch.entries)


def find_files(paths: Sequence[str]) -> list[Path]:
    """The files to import, each once: within a folder by the batch's name, which begins with its time.

    Raises:
        OperationError: a folder cannot be read.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if os.path.isdir(path):
            below = sorted(_below(os.path.realpath(path)), key=lambda file: (file.name, file.parent))
            found.update(dict.fromkeys(below))
        else:
            found[Path(os.path.realpath(path))] = None
    return list(found)


def _below(folder: str) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        raise OperationError(f"{error.filename} cannot be read: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=refused):
        folders.sort()
        for name in names:
            if any(fnmatchcase(name, pattern) for pattern in NAMES) and Path(parent, name).is_file():
                yield Path(parent, name)


def _entry(entry: Entry) -> _Found:
    raw = _encode(entry)
    if len(raw) > LINE_BYTES_MAX:
        return _Found(raw[:KEPT_BYTES], f"it is longer than {LINE_BYTES_MAX} bytes")
    return _Found(raw)


def _content(path: Path) -> bytes:
    """A file's content, unpacked if it is gzip.

    Raises:
        FileNotFoundError: it is gone.
        BatchFileDamaged: it cannot be read, or not be unpacked, or is too large.
    """
    parts, size = [], 0
    try:
        with closing(Input(str(path)).chunks()) as chunks:
            for chunk in chunks:
                size += len(chunk or b"")
                if size > FILE_BYTES_MAX:
                    raise BatchFileDamaged(f"{path}: it is larger than {FILE_BYTES_MAX} bytes")
                parts.append(chunk or b"")
    except (OSError, OperationError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, FileNotFoundError):
            raise cause from None
        raise BatchFileDamaged(f"{path}: it cannot be read: {getattr(cause, 'strerror', None) or cause}") from error
    except DamageError as error:
        raise BatchFileDamaged(f"{path}: {error}") from error
    return b"".join(parts)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # gone, or not to be looked at: reading it says so
