"""The trail of operations in `logs/`: one JSON object a line, private, and never longer than a few files."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from typing import Any

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock, utc_text
from totalizer.edge.folder import Folders

LOGGER = logging.getLogger("totalizer.edge")
#: Bytes of a file before the next one is begun, and how many full ones are kept: `aggregation.log.1` is the newest.
LOG_BYTES_MAX = 8 << 20
LOG_FILES_KEPT = 4


class Audit:
    """One log file, written by any number of processes. Make it with `audit`.

    Attributes:
        failures: lines that could not be written. The work itself is never held up for its trail.
    """

    def __init__(self, folders: Folders, name: str, clock: Clock) -> None:
        self._path, self._clock = folders.logs / f"{name}.log", clock
        self.failures = 0

    def record(self, operation: str, *, level: str = "info", **members: Any) -> None:
        """Write a line: `time`, `level`, `operation`, `pid` and the members, which JSON can hold. Does not raise."""
        head = {"time": utc_text(self._clock.now_ns()), "level": level.upper(), "operation": operation}
        line = msgspec.json.encode({**head, "pid": os.getpid(), **members}) + b"\n"
        try:
            self._append(line)
        except OSError as error:
            self.failures += 1
            LOGGER.warning("%s cannot be written: %s", self._path, error)

    def _append(self, line: bytes) -> None:
        # Opened for each line, of which there are a few for a batch: so a file that another process has put away, or
        # a descriptor that a fork has shared, is never written to.
        descriptor = self._open()
        try:
            if os.fstat(descriptor).st_size + len(line) > LOG_BYTES_MAX:
                os.close(descriptor)
                descriptor = -1
                self._put_away()
                descriptor = self._open()
            os.write(descriptor, line)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def _put_away(self) -> None:
        """Begin a new file, unless another process has done it in the meantime."""
        lock = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # The other one may have put it away a moment ago, and not have begun the new file yet.
            if not self._path.exists() or self._path.stat().st_size < LOG_BYTES_MAX // 2:
                return
            for number in range(LOG_FILES_KEPT, 0, -1):
                older = self._path.with_name(f"{self._path.name}.{number}")
                newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
                with contextlib.suppress(FileNotFoundError):
                    os.replace(newer, older)
        finally:
            os.close(lock)


def audit(folders: Folders, name: str, clock: Clock = SYSTEM_CLOCK) -> Audit:
    """The trail called `name`, such as `aggregation` or `recovery`; its folder is made by `Folders.make`."""
    return Audit(folders, name, clock)
