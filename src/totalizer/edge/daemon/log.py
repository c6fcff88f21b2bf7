"""What the daemon says: one line in logs/recovery.log and one log record for each thing it does."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from totalizer.edge.daemon.document import camel

LOGGER = logging.getLogger("totalizer.edge.daemon")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Trail(Protocol):
    """Where operations are kept for whoever asks later."""

    def record(self, operation: str, **members: Any) -> None:
        """Keep one operation with its members, which JSON can hold."""
        ...


class Log:
    """Tells both the audit trail and Python's logging.

    Args:
        trail: the audit trail; None to tell logging alone.
        level: least severe level that is told: debug, info, warning or error.
    """

    def __init__(self, trail: Trail | None, level: str) -> None:
        self._trail, self._least = trail, _LEVELS[level]

    def debug(self, operation: str, **members: Any) -> None:
        """Tell what is of interest only when something is looked into."""
        self._tell(logging.DEBUG, operation, members)

    def info(self, operation: str, **members: Any) -> None:
        """Tell what was done."""
        self._tell(logging.INFO, operation, members)

    def warning(self, operation: str, **members: Any) -> None:
        """Tell what somebody should look at."""
        self._tell(logging.WARNING, operation, members)

    def error(self, operation: str, **members: Any) -> None:
        """Tell what could not be done."""
        self._tell(logging.ERROR, operation, members)

    def failed(self, operation: str, error: BaseException) -> None:
        """Note an error nobody expected in the audit trail; the caller gives its traceback to `LOGGER`."""
        self._keep(logging.ERROR, operation, {"error": f"{type(error).__name__}: {error}"})

    def _tell(self, level: int, operation: str, members: dict[str, Any]) -> None:
        if level < self._least:
            return
        LOGGER.log(level, "%s %s", operation, " ".join(f"{name}={value}" for name, value in members.items()))
        self._keep(level, operation, members)

    def _keep(self, level: int, operation: str, members: dict[str, Any]) -> None:
        if self._trail is not None:
            said = {camel(name): value for name, value in members.items()}
            self._trail.record(operation.replace("_", "-"), level=logging.getLevelName(level).lower(), **said)
