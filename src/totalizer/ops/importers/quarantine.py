"""Lines that were not counted, kept with the reason, to be mended and imported."""

from __future__ import annotations

import os
import re
from io import BufferedWriter
from pathlib import Path

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock, utc_datetime
from totalizer.errors import OperationError
from totalizer.ops.importers.checkpoint import make_private_folder, sync_folder
from totalizer.ops.importers.source import Line


class Quarantine:
    """A file of JSON lines `{"line", "reason", "text"}`, made when the first line comes, readable by its owner only.

    Args:
        home: data folder; the file lies in `quarantine/` there.
        source: name of the input, part of the file's name.
        clock: for the time in the file's name.
    """

    def __init__(self, home: Path, source: str, clock: Clock = SYSTEM_CLOCK) -> None:
        stamp = f"{utc_datetime(clock.now_ns()):%Y%m%dT%H%M%S.%fZ}"
        label = re.sub(r"[^A-Za-z0-9._-]+", "-", source)[:80] or "input"
        self.file = home / "quarantine" / f"import-{label}-{stamp}.ndjson"
        self.lines = 0
        self._stream: BufferedWriter | None = None

    def add(self, line: Line, reason: str) -> None:
        """Keep a line. Bytes that are not UTF-8 are written as `\\xhh`.

        Raises:
            OperationError: the disk refuses.
        """
        record = {"line": line.number, "reason": reason, "text": line.raw.decode("utf-8", "backslashreplace")}
        try:
            if self._stream is None:
                self._stream = self._open()
            self._stream.write(msgspec.json.encode(record) + b"\n")
        except OSError as error:
            raise self._refused(error) from error
        self.lines += 1

    def sync(self) -> None:
        """Make what was kept durable.

        Raises:
            OperationError: the disk refuses.
        """
        if self._stream is None:
            return
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        if self._stream is not None:
            self._stream.close()

    def _open(self) -> BufferedWriter:
        make_private_folder(self.file.parent)
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        sync_folder(self.file.parent)
        return os.fdopen(descriptor, "wb")

    def _refused(self, error: OSError) -> OperationError:
        return OperationError(f"{self.file} cannot be written: {error.strerror}")
