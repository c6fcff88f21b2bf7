"""A program that brings failed batches to a target, to be ended or refused at each of its system calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from totalizer.edge.batch import Batch, Entry, RefusedEntry
from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.file import FileSink
from totalizer.edge.sinks.sink import Delivery, Sink
from totalizer.errors import ConfigurationError, DaemonError, SinkUnavailable

#: What the program ends with when the disk keeps it from doing anything.
COULD_NOT = 3
#: While this file is there, the target takes no entry whose id begins with "later".
AWAY = "away"


class EntrySink:
    """A target that keeps each entry under its id, durably, and so counts it once; what it answers, the ids say.

    `good-…` is taken, `later-…` is taken unless the file `away` is there, `bad-…` is refused.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return str(self._folder)

    def deliver(self, batch: Batch) -> Delivery:
        refused, undelivered = [], []
        for index, entry in enumerate(batch.entries):
            if entry["id"].startswith("bad"):
                refused.append(RefusedEntry(index, "invalid_event", f"{entry['id']} is wrong"))
            elif entry["id"].startswith("later") and (self._folder / AWAY).exists():
                undelivered.append(index)
            else:
                self._take(entry)
        if undelivered:
            raise SinkUnavailable("away", undelivered=tuple(undelivered), refused=tuple(refused))
        return Delivery(len(batch.entries) - len(refused), tuple(refused))

    def close(self) -> None:
        """Nothing is held open."""

    def _take(self, entry: Entry) -> None:
        # A target is another machine: its calls are none that the sweeps count.
        os.close(os.open(self._folder / entry["id"], os.O_CREAT | os.O_WRONLY, 0o600))


def main(data_path: Path, target: Path) -> int:
    """Deliver what can be, twice, put back what was given up, and deliver again; the exit code."""
    folders = Folders(data_path)
    sink: Sink = EntrySink(target) if target.exists() else FileSink(data_path)
    daemon = CronRecoveryDaemon(data_path=folders.data, sink=sink)
    try:
        daemon.initialize()
        daemon.reprocess_failed_batches(force=True)
        daemon.reprocess_failed_batches(force=True)
        daemon.requeue()
        daemon.reprocess_failed_batches(force=True)
    except (OSError, DaemonError, ConfigurationError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return COULD_NOT
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
