"""What `totalizer status` tells of a data folder: what runs there, how it is, and what to do about what is wrong.

It makes the checks itself, so that it knows as much while the API or the database is away. What runs is a whole stack
of `totalizer up`, or processes that something else starts, one by one.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from totalizer.alerts import shown
from totalizer.app import dsn_of, gatherer_of, metrics_of
from totalizer.errors import StoreUnavailable
from totalizer.health.report import Report
from totalizer.metrics.slot import slots
from totalizer.ops.reach import health, local_url
from totalizer.ops.state import State
from totalizer.settings import Settings
from totalizer.store.connect import connected
from totalizer.store.roles import Role


class Overview(NamedTuple):
    """How it is at a moment.

    Attributes:
        home: data folder.
        state: what `totalizer up` runs on it; None if it does not.
        components: which parts run on it, whoever has started them: api, loader, scheduler, worker.
        url: base of page and API.
        api_status, api_said: the API's answer to whether it is ready; 0 and the reason if there is none.
        report: of the checks.
        alerts: those that stand: from the database, or from this machine's monitor while that is away.
    """

    home: Path
    state: State | None
    components: tuple[str, ...]
    url: str
    api_status: int
    api_said: str
    report: Report
    alerts: list[dict[str, Any]]

    @property
    def running(self) -> bool:
        """True if anything runs here."""
        return self.state is not None or bool(self.components)

    @property
    def api(self) -> str:
        """Whether the API does its work, in words."""
        if self.api_status == 200:
            return "ready"
        return f"not ready ({self.api_status or 'no answer'}): {self.api_said}"

    def document(self) -> dict[str, Any]:
        """For programs."""
        stack = {} if self.state is None else asdict(self.state)
        return {
            "running": self.running, "home": str(self.home), "url": self.url, "ready": self.api_status == 200,
            "components": self.components, **{name: stack.get(name) for name in ("pid", "started_at", "pids")},
            "alerts": self.alerts, "health": self.report.document(),
        }  # fmt: skip


class Lookout:
    """Looks an installation over, again and again; for a with-block.

    Args:
        settings: of the stack, or of the environment if that names a database.
        home: its data folder.
    """

    def __init__(self, settings: Settings, home: Path) -> None:
        self._settings, self._home = settings, home
        self._gatherer = gatherer_of(settings, Role.REFRESHER)

    def look(self, state: State | None) -> Overview:
        """How it is now; takes some seconds if something does not answer.

        Args:
            state: of what `totalizer up` runs; None if it does not.
        """
        report = self._gatherer()
        url = local_url(self._settings.host, self._settings.port) if state is None else state.url
        host, _, port = url.removeprefix("http://").rpartition(":")
        status, said = health(host.strip("[]"), int(port))
        running = tuple(sorted({each.component for each in slots(metrics_of(self._settings)) if each.alive}))
        return Overview(self._home, state, running, url, status, said, report, self._alerts(report))

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
