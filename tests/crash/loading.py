"""A process that loads what is durable below a folder and ends.

    python -m crash.loading DSN SPOOL ROWS_MAX [FOREVER]

With a fourth argument it goes on loading, as the service does, until it is ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

from totalizer.app import until_stopped
from totalizer.load import Loader


def main(arguments: list[str]) -> None:
    """Load once, or until SIGTERM."""
    loader = Loader(arguments[0], Path(arguments[1]), rows_max=int(arguments[2]))
    if len(arguments) > 3:
        until_stopped(loader.run)
    else:
        loader.drain()
        loader.close()


if __name__ == "__main__":
    main(sys.argv[1:])
