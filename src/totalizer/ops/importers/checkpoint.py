"""Where an import stands, kept in a small file, so that the next start goes on from there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.prepared import prepared

#: Seconds between two writes of the file, at least.
SAVE_INTERVAL_S = 1.0


@prepared
class Mark(msgspec.Struct, frozen=True):
    """A place in an input.

    Attributes:
        lines: how many lines lie before it, all of them acknowledged or quarantined.
        digest: of those lines, so that another input is not taken for this one.
    """

    lines: int
    digest: str


class Checkpoint:
    """The file that remembers one import.

    Args:
        home: data folder.
        identity: everything that makes this import another than the next: kind, source, path, options, server, key.
            It is hashed, so no part of it can be read from the file.
        clock: for the pace of writing.
    """

    def __init__(self, home: Path, identity: Sequence[str], clock: Clock = SYSTEM_CLOCK) -> None:
        name = hashlib.blake2b("\0".join(identity).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        self.file = home / "imports" / f"{name}.json"
        self._clock = clock
        self._saved_at: float | None = None
        self._unsaved: Mark | None = None

    def load(self) -> Mark | None:
        """The last saved place.

        None if there is none or the file is damaged: then all is sent again, which changes nothing stored.

        Raises:
            OperationError: the file is there and cannot be read.
        """
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=Mark)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        except OSError as error:
            raise OperationError(f"{self.file} cannot be read: {error.strerror}") from error

    def due(self) -> bool:
        """True if the next place should be written now."""
        return self._saved_at is None or self._clock.monotonic() - self._saved_at >= SAVE_INTERVAL_S

    def advance(self, mark: Mark) -> None:
        """Remember a place in memory; `save` writes it."""
        self._unsaved = mark

    def save(self) -> None:
        """Write the last place, if there is a new one.

        After a crash the file holds the old or the new one, whole.

        Raises:
            OperationError: the disk refuses.
        """
        if self._unsaved is None:
            return
        try:
            make_private_folder(self.file.parent)
            _replace(self.file, msgspec.json.encode(self._unsaved))
        except OSError as error:
            raise OperationError(f"{self.file} cannot be written: {error.strerror}") from error
        self._saved_at, self._unsaved = self._clock.monotonic(), None

    def forget(self) -> None:
        """Start over the next time."""
        self.file.unlink(missing_ok=True)


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, for this user only; leave one that exists as it is."""
    missing = [folder, *folder.parents]
    for path in reversed(missing[: next(i for i, path in enumerate(missing) if path.is_dir())]):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names created or renamed in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(file: Path, content: bytes) -> None:
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)
