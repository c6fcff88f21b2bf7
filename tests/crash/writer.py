"""A process that appends to a journal, tells the ledger, and may be killed at any moment.

    python -m crash.writer FOLDER LEDGER RUN COUNT [MUTANT]

It appends COUNT records named RUN-0, RUN-1, …, waits for the answers of each few, sends what was refused again under
the same name, as a client does, and half-way through reads and discards what is there. It ends with 0, or with 3 if
the journal could not be opened or the disk never came back.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from crash.oracle import Ledger, payload_of
from totalizer.errors import JournalError, JournalFailed
from totalizer.journal import Journal, JournalReader
from totalizer.journal.disk import DISK, Disk

SEGMENT_BYTES, QUOTA_BYTES = 24 << 10, 4 << 20
#: Records that wait for their answers together: one to three.
GROUPS = (1, 3, 2)
#: How often a refused record is sent again, and the pause before, seconds.
TRIES_MAX, PAUSE_S = 40, 0.05
COULD_NOT = 3


class Sender:
    """Hands records over and hears the answers."""

    def __init__(self, folder: Path, ledger: Ledger, disk: Disk = DISK) -> None:
        self._ledger = ledger
        self._waiting: set[str] = set()
        self._refused: list[str] = []
        self._changed = threading.Condition()
        self.journal = Journal.open(
            folder, segment_bytes=SEGMENT_BYTES, quota_bytes=QUOTA_BYTES, on_commit=self._on_commit, disk=disk
        )

    def _on_commit(self, tokens: list[object], error: JournalFailed | None) -> None:
        names = [str(token) for token in tokens]
        if error is None:
            self._ledger.acknowledged(*names)
        with self._changed:
            self._waiting.difference_update(names)
            if error is not None:
                self._refused += names
            self._changed.notify_all()

    def send(self, names: list[str]) -> None:
        """Append, and wait until each is acknowledged; JournalFailed if the disk does not come back."""
        for _ in range(TRIES_MAX):
            names = self._try(names)
            if not names:
                return
            time.sleep(PAUSE_S)
        raise JournalFailed(f"refused {TRIES_MAX} times")

    def _try(self, names: list[str]) -> list[str]:
        """Names that were refused."""
        self._refused = []
        self._ledger.sent(*names)
        for name in names:
            with self._changed:
                self._waiting.add(name)
            try:
                self.journal.append(payload_of(name), name)
            except JournalError:
                with self._changed:
                    self._waiting.discard(name)
                    self._refused.append(name)
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            return list(self._refused)


def read_and_discard(folder: Path, ledger: Ledger, disk: Disk = DISK) -> None:
    """Deal with all that is durable, note it, and only then discard it."""
    with JournalReader(folder, disk=disk) as reader:
        position = ledger.known().position
        while records := reader.read(position, records_max=100, bytes_max=1 << 20):
            position = records[-1].position_after
            names = [record.payload.split(b"|", 1)[0].decode() for record in records]
            ledger.read_to(position, *names)
        reader.discard(position)


def main(folder: Path, ledger: Ledger, run: str, count: int, *, disk: Disk = DISK) -> int:
    """Append `count` records; the exit code."""
    try:
        sender = Sender(folder, ledger, disk)
        names = [f"{run}-{number}" for number in range(count)]
        turn, halfway = 0, count // 2
        while names:
            size = GROUPS[turn % len(GROUPS)]
            sender.send(names[:size])
            names, turn = names[size:], turn + 1
            if len(names) <= halfway:
                halfway = -1
                read_and_discard(folder, ledger, disk)
        sender.journal.close()
    except JournalError as error:
        sys.stderr.write(f"{error}\n")
        return COULD_NOT
    return 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with ExitStack() as stack:
        if len(arguments) > 4:
            # Imports the loader and its driver too, which takes longer than everything else here.
            from crash.mutants import applied

            stack.enter_context(applied(arguments[4]))
        sys.exit(main(Path(arguments[0]), Ledger(Path(arguments[1])), arguments[2], int(arguments[3])))
