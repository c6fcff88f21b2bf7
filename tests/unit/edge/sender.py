"""A program that adds entries and then ends in some way.

    python -m unit.edge.sender DATA_PATH COUNT END

It prints each entry's number once it is taken. END: `return`, `exit` (sys.exit), `error` (an exception), `os._exit`,
`kill` (SIGKILL to itself), `wait` (until a signal ends it), `thread` (returns while a thread adds on), `shutdown`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from totalizer.edge import SmartBatchAggregator
from totalizer.errors import TotalizerError
from unit.edge.parts import entry


def tell(text: str) -> None:
    """Say a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def add_on(aggregator: SmartBatchAggregator, first: int) -> None:
    """Add until it is over."""
    number = first
    while True:
        try:
            aggregator.add(entry(number, id=f"{os.getpid()}-{number}"))
        except TotalizerError:
            return
        tell(f"{os.getpid()}-{number}")
        number += 1


def main(data_path: Path, count: int, end: str) -> None:
    """Add, and end."""
    aggregator = SmartBatchAggregator(data_path=data_path, batch_size=7, max_age_ms=600_000)
    for number in range(count):
        aggregator.add(entry(number, id=f"{os.getpid()}-{number}"))
        tell(f"{os.getpid()}-{number}")
    match end:
        case "exit":
            sys.exit(3)
        case "error":
            raise RuntimeError("as it was told")
        case "os._exit":
            os._exit(4)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            tell("waiting")
            time.sleep(600)
        case "thread":
            threading.Thread(target=add_on, args=(aggregator, count), daemon=True).start()
            time.sleep(0.2)
        case "shutdown":
            aggregator.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
