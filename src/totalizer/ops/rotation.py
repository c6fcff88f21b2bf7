"""Keeps the logs of a data folder from growing without end, while those who write them hold them open."""

from __future__ import annotations

import contextlib
import os
import shutil
from itertools import pairwise
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.ops.log import LOG

#: Seconds between two looks at the sizes.
LOOK_SECONDS = 5.0


class Rotation:
    """Sets logs aside that have grown too large: `api.log` becomes `api.log.1`, the one before `api.log.2`, and so on.

    A log is copied and then emptied, since the processes that write it, PostgreSQL and Valkey among them, go on writing
    to the file they have; all of them append. What is written in the moment between may be lost.

    Args:
        folder: of the logs.
        bytes_max: a log is set aside above this size.
        files: how many that were set aside are kept of each log; 0: none.
        clock: time source.
    """

    def __init__(self, folder: Path, bytes_max: int, files: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._folder, self._bytes_max, self._files, self._clock = folder, bytes_max, files, clock
        self._look_at = float("-inf")
        self._refused: set[Path] = set()

    def look(self) -> None:
        """Set aside what is too large, if the last look is some seconds ago; what the disk refuses is told once."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        for path in sorted(self._folder.glob("*.log")):
            try:
                if path.stat().st_size > self._bytes_max:
                    self._set_aside(path)
                self._refused.discard(path)
            except OSError as error:
                if path not in self._refused:
                    LOG.error("%s cannot be set aside, and goes on growing: %s", path, error)
                self._refused.add(path)

    def _set_aside(self, path: Path) -> None:
        aside = [path.with_name(f"{path.name}.{number}") for number in range(1, self._files + 1)]
        for newer, older in reversed(list(pairwise(aside))):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
        with open(path, "r+b") as log:
            if aside:
                descriptor = os.open(aside[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "wb") as copy:
                    shutil.copyfileobj(log, copy)
            log.truncate(0)
