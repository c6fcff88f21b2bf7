"""The least that acknowledges durably: one file, one writer thread, one fdatasync for all that wait.

No checksums, no segments, no bounds, no recovery: what is left is the price of waiting for a disk from Python.
Producers are woken as the journal wakes its own: threads through one gate for each group, an event loop with one call a
group.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from totalizer.errors import JournalFailed

OnCommit = Callable[[list[object], JournalFailed | None], None]
#: Reserved for the file, as the journal reserves a segment: syncing a file that grows costs more.
FILE_BYTES = 1 << 30


class Log(Protocol):
    """What is compared: the journal has this form, too."""

    def append(self, payload: bytes, token: object) -> None:
        """Accept one record; `on_commit` gets the token when it is durable."""
        ...

    def append_and_wait(self, payload: bytes) -> None:
        """Append one record and return when it is durable."""
        ...

    def close(self) -> None:
        """Finish what is pending and end."""
        ...


class Group:
    """Records that become durable together."""

    __slots__ = ("error", "gate", "payloads", "tokens")

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.tokens: list[object] = []
        self.gate = threading.Lock()
        self.gate.acquire()
        self.error: JournalFailed | None = None


class GroupCommit(ABC):
    """Collects records while the one before is written, and has `commit` make each group durable in one thread.

    Args:
        on_commit: called in that thread with the tokens of each group.
    """

    def __init__(self, on_commit: OnCommit) -> None:
        self._on_commit = on_commit
        self._lock = threading.Lock()
        self._groups: SimpleQueue[Group | None] = SimpleQueue()
        self._open: Group | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def append(self, payload: bytes, token: object) -> None:
        """Accept one record."""
        with self._lock:
            group = self._open
            if group is None:
                group = self._open = Group()
                self._groups.put(group)
            group.payloads.append(payload)
            group.tokens.append(token)

    def append_and_wait(self, payload: bytes) -> None:
        """Append one record and return when it is durable."""
        with self._lock:
            group = self._open
            if group is None:
                group = self._open = Group()
                self._groups.put(group)
            group.payloads.append(payload)
        group.gate.acquire()
        group.gate.release()
        if group.error is not None:
            raise group.error

    def close(self) -> None:
        """Finish what is pending and end the thread."""
        self._groups.put(None)
        self._thread.join()

    @abstractmethod
    def commit(self, payloads: list[bytes]) -> None:
        """Make a group durable; called in the writer thread."""

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            with self._lock:
                self._open = None
            try:
                self.commit(group.payloads)
            except Exception as error:  # noqa: BLE001 - told to those who wait
                group.error = JournalFailed(f"the group could not be written: {error}")
            group.gate.release()
            if group.tokens:
                self._on_commit(group.tokens, group.error)


class BareLog(GroupCommit):
    """Payloads one behind the other in a file.

    Args:
        folder: where the file is made.
        on_commit: told of each group.
    """

    def __init__(self, folder: Path, on_commit: OnCommit) -> None:
        self._file = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, 0, FILE_BYTES)
        self._end = 0
        os.fsync(self._file)
        super().__init__(on_commit)

    def commit(self, payloads: list[bytes]) -> None:
        """Write and sync a group."""
        data = b"".join(payloads)
        if os.pwrite(self._file, data, self._end) != len(data):
            raise OSError(f"the system wrote less than the {len(data)} bytes of a group")
        os.fdatasync(self._file)
        self._end += len(data)

    def close(self) -> None:
        """End the thread and close the file."""
        super().close()
        os.close(self._file)
