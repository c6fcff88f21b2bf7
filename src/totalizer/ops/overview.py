"""What `totalizer status` tells of a data folder: what runs there, how it is, and what to do about what is wrong.

It asks the checks itself, so that it knows as much while the API or the database is away.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from totalizer.alerts import shown
from totalizer.app import dsn_of, gatherer_of
from totalizer.errors import StoreUnavailable
from totalizer.health.report import Report
from totalizer.ops.reach import health
from totalizer.ops.state import State
from totalizer.settings import Settings
from totalizer.store.connect import connected
from totalizer.store.roles import Role


class Overview(NamedTuple):
    """How a stack is at a moment.

    Attributes:
        state: what runs.
        home: its data folder.
        api_status, api_said: the API's answer to whether it is ready; 0 and the reason if there is none.
        report: of the checks.
        alerts: those that stand: from the database, or from this machine's monitor while that is away.
    """

    state: State
    home: Path
    api_status: int
    api_said: str
    report: Report
    alerts: list[dict[str, Any]]

    @property
    def api(self) -> str:
        """Whether the API does its work, in words."""
        if self.api_status == 200:
            return "ready"
        return f"not ready ({self.api_status or 'no answer'}): {self.api_said}"

    def document(self) -> dict[str, Any]:
        """For programs."""
        state = asdict(self.state)
        running = {name: state[name] for name in ("pid", "started_at", "url", "pids")}
        ready = self.api_status == 200
        return {
            "running": True, "home": str(self.home), **running, "ready": ready, "health": self.report.document(),
            "alerts": self.alerts,
        }  # fmt: skip


class Lookout:
    """Looks a running stack over, again and again; for a with-block.

    Args:
        settings: of the stack.
        home: its data folder.
    """

    def __init__(self, settings: Settings, home: Path) -> None:
        self._settings, self._home = settings, home
        self._gatherer = gatherer_of(settings, Role.REFRESHER)

    def look(self, state: State) -> Overview:
        """How it is now; takes some seconds if something does not answer."""
        report = self._gatherer()
        host, _, port = state.url.removeprefix("http://").rpartition(":")
        status, said = health(host.strip("[]"), int(port))
        return Overview(state, self._home, status, said, report, self._alerts(report))

    def _alerts(self, report: Report) -> list[dict[str, Any]]:
        if report.facts.database.facts is not None:
            # It may have gone since the checks: then as if they had found it away.
            with suppress(StoreUnavailable), connected(dsn_of(self._settings, Role.REFRESHER)) as connection:
                return shown.rows(connection, shown.STANDING)
        return shown.standing_in(self._gatherer.folder, socket.gethostname())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gatherer.close()
