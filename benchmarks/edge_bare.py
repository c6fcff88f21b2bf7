"""The baseline of durable adding: nothing but group commit. One thread writes what waits, syncs once, wakes all.

No checksums, no recovery, no quota, no delivery: what a program would do that only wants its lines on the disk.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Self


class BareLog:
    """An append-only file with one fdatasync for all who wait.

    Args:
        path: of the file, which must not exist.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._group = self._synced = 0
        self._closed = False
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def add(self, line: bytes) -> None:
        """Return when the line would survive a power loss."""
        with self._changed:
            self._waiting.append(line)
            group = self._group
            self._changed.notify_all()
            while self._synced <= group:
                self._changed.wait()

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                lines, self._waiting = self._waiting, []
                self._group += 1
                group = self._group
            os.write(self._descriptor, b"".join(lines))
            os.fdatasync(self._descriptor)
            with self._changed:
                self._synced = group
                self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        os.close(self._descriptor)
