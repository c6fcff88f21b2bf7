"""Folders and a daemon for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.folder import Folders
from unit.edge.daemon.parts import HandClock, ScriptedSink


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "aggregated")
    made.make()
    return made


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def sink() -> ScriptedSink:
    return ScriptedSink()


@pytest.fixture
def make(folders: Folders, sink: ScriptedSink, clock: HandClock) -> Iterator[Callable[..., CronRecoveryDaemon]]:
    """Makes daemons on the test's folders; those that still run are stopped at its end."""
    made: list[CronRecoveryDaemon] = []

    def daemon(config: Any = None, aggregator: Any = None, **options: Any) -> CronRecoveryDaemon:
        given = {"data_path": folders.data, "sink": sink, "clock": clock, **options}
        made.append(CronRecoveryDaemon(config, aggregator, **given))
        return made[-1]

    yield daemon
    for one in made:
        one.stop()


@pytest.fixture
def daemon(make: Callable[..., CronRecoveryDaemon]) -> CronRecoveryDaemon:
    return make()
