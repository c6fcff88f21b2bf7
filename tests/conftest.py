"""Fixtures of the real parts: a PostgreSQL cluster for the session, a database for a test, a running stack."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from crash import tally
from support import SECRET, Cluster, Database, RunningStack, Stack, new_organization, running_valkey
from totalizer.catalog import Catalog, load_catalog
from totalizer.ops.embedded import EmbeddedPostgres, EmbeddedValkey

#: Lines of a failure that are told at once.
REPORT_LINES = 12

# How long something takes is no matter of a test: machines are slow at times.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """Who starts the tests in the background has these two ignored, and whatever a test starts inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes hold keys and times that differ from process to process, and all must agree on the names of tests."""
    return "bytes" if isinstance(val, bytes) else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where several processes share the tests, each hands over what faults it injected."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = tally.figures()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of these processes counted; one that died counted nothing."""
    if "tally" in getattr(node, "workeroutput", {}):
        tally.add(node.workeroutput["tally"])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure is told when it happens: whoever ends a long run before its end has seen it."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        end = "\n".join(report.longreprtext.splitlines()[-REPORT_LINES:])
        print(f"\nFAILED {report.nodeid} ({report.when})\n{end}", file=sys.__stderr__, flush=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What faults this run really injected."""
    if (line := tally.line()) is not None:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """What a test makes of the logs is undone after it: others read them from where they go by default."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The session's PostgreSQL."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("cluster"), SECRET) as server:
        yield Cluster(server)


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A migrated, empty database."""
    with cluster.database() as database:
        yield database


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """A database that was never migrated."""
    with cluster.database("template0") as database:
        yield database


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A module's own server."""
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The shipped catalog."""
    return load_catalog()


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack for all tests that need no other."""
    stack = RunningStack(tmp_path_factory.mktemp("stack") / "home")
    try:
        yield stack
    finally:
        assert stack.stop() == 0, "totalizer up did not stop cleanly"


@pytest.fixture
def stack(running_stack: RunningStack) -> Stack:
    """The session's stack, with an organisation of the test's own."""
    return new_organization(running_stack)
