"""A process that adds entries to an aggregator, tells the ledger, and may be killed at any moment.

    python -m crash.edge_sender DATA_PATH LEDGER RUN COUNT [THREADS]

It adds COUNT entries named RUN-0, RUN-1, … in batches of three, adds what was refused again under the same id, flushes
now and then, and shuts down. It ends with 0, or with 3 if the disk never came back.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from crash.edge_accounts import entry_of
from crash.oracle import Ledger
from totalizer.edge import SmartBatchAggregator
from totalizer.errors import FlushError, JournalError

BATCH_SIZE = 3
#: How often a refused entry is added again, and the pause before, seconds.
TRIES_MAX, PAUSE_S = 60, 0.05
COULD_NOT = 3


def add(aggregator: SmartBatchAggregator, ledger: Ledger, name: str) -> None:
    """Add until it is taken; JournalError if the disk does not come back."""
    for attempt in range(TRIES_MAX):
        ledger.sent(name)
        try:
            aggregator.add(entry_of(name))
        except JournalError:
            if attempt == TRIES_MAX - 1:
                raise
            time.sleep(PAUSE_S)
        else:
            ledger.acknowledged(name)
            return


def work(aggregator: SmartBatchAggregator, ledger: Ledger, names: list[str]) -> None:
    """Add them all, flushing now and then; a flush that fails is the recovery daemon's to mend."""
    for number, name in enumerate(names, 1):
        add(aggregator, ledger, name)
        if number % 10 == 0:
            flush(aggregator)


def flush(aggregator: SmartBatchAggregator) -> None:
    """Flush; what cannot be delivered is kept."""
    try:
        aggregator.force_flush()
    except (FlushError, JournalError) as error:
        sys.stderr.write(f"{error}\n")


def main(data_path: Path, ledger: Ledger, run: str, count: int, threads: int) -> int:
    """The exit code."""
    aggregator = SmartBatchAggregator(
        data_path=data_path, batch_size=BATCH_SIZE, flush_threshold=1.0, quota_bytes=1 << 20, flush_on_sigterm=False
    )
    names = [f"{run}-{number}" for number in range(count)]
    failures: list[threading.ExceptHookArgs] = []
    threading.excepthook = failures.append
    workers = [
        threading.Thread(target=work, args=(aggregator, ledger, names[first::threads])) for first in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    try:
        aggregator.shutdown()
    except (FlushError, JournalError) as error:
        sys.stderr.write(f"{error}\n")
    for failure in failures:
        sys.stderr.write(f"{failure.exc_value}\n")
    return COULD_NOT if failures else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(
        main(
            Path(arguments[0]), Ledger(Path(arguments[1])), arguments[2], int(arguments[3]),
            int(arguments[4]) if len(arguments) > 4 else 1,
        )
    )  # fmt: skip
