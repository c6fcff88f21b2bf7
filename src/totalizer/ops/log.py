"""Log files of the processes that `totalizer up` starts, and the supervisor's own log.

The supervisor logs through the standard library: it must stay small, and its lines are few. They have the form of all
others.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import IO

from totalizer.clock import utc_text

#: Lines of a log shown with an error.
TAIL_LINES = 12
#: Bytes read from the end of a log for those lines.
TAIL_BYTES = 8192

LOG = logging.getLogger("totalizer.ops")


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending, mode 0600."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return open(descriptor, "ab")


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, or a word that there are none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode(errors="replace").rstrip()
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"


def log_to_file(path: Path, level: str = "info", form: str = "auto") -> logging.Handler:
    """Send this package's log lines to a file from now on; returns the handler for `stop_logging`.

    Args:
        path: of the file.
        level: the least severe that is logged.
        form: `console` for text, else JSON.
    """
    handler = logging.StreamHandler(_text_log(path))
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter if form == "console" else _Lines())
    LOG.addHandler(handler)
    LOG.setLevel(level.upper())
    LOG.propagate = False
    return handler


class _Lines(logging.Formatter):
    """A JSON object a line, with the members that all parts' lines have."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "event": record.getMessage(), "component": "up", "level": record.levelname.lower(),
            "timestamp": utc_text(int(record.created * 1e9)),
        }  # fmt: skip
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _text_log(path: Path) -> IO[str]:
    open_log(path).close()  # private, and its folder made
    return open(path, "a", encoding="utf-8")


def stop_logging(handler: logging.Handler) -> None:
    """Undo `log_to_file`."""
    LOG.removeHandler(handler)
    LOG.propagate = True
    handler.close()
    if isinstance(handler, logging.StreamHandler):
        handler.stream.close()
