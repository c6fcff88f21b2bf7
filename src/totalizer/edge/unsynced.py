"""Entries that were taken with durability "interval", and that the disk has refused since."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from totalizer.errors import JournalError

#: Records kept in memory for a disk that may come back.
UNSYNCED_MAX = 10_000


class Unsynced:
    """Kept until they can be appended again; for any thread.

    Attributes:
        lost: records that were too many to keep, or left at the end.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._payloads: deque[bytes] = deque()
        self._lock = threading.Lock()

    def keep(self, payloads: Sequence[object]) -> None:
        """Keep these, as far as there is room."""
        with self._lock:
            room = UNSYNCED_MAX - len(self._payloads)
            self._payloads.extend(payload for payload in payloads[:room] if isinstance(payload, bytes))
            self.lost += max(len(payloads) - room, 0)

    def try_again(self, append: Callable[[bytes], None]) -> None:
        """Append them, oldest first, until one is refused."""
        with self._lock:
            payloads, self._payloads = self._payloads, deque()
        while payloads:
            try:
                append(payloads[0])
            except JournalError:
                with self._lock:
                    self._payloads.extendleft(reversed(payloads))
                return
            payloads.popleft()

    def give_up(self) -> None:
        """There will be no other try."""
        with self._lock:
            self.lost += len(self._payloads)
            self._payloads.clear()
