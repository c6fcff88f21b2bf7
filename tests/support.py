"""The real parts that tests run on: a PostgreSQL cluster, databases in it, and whole running stacks."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg
import pytest
from psycopg import Connection

from totalizer.catalog import Catalog, load_catalog
from totalizer.errors import OperationError
from totalizer.journal import Position
from totalizer.ops.embedded import EmbeddedPostgres, EmbeddedValkey
from totalizer.query.completeness import LocalJournals
from totalizer.store.keys import create_key, create_organization
from totalizer.store.migrate import migrate
from totalizer.store.password import password_for
from totalizer.store.roles import SEARCH_PATH, Role, role_dsn

SECRET = "a secret for tests"
#: Seconds after which waiting for something that should happen fails the test.
PATIENCE_S = 60.0

T = TypeVar("T")


def unavailable(reason: str) -> None:
    """Skip for want of a part; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"needed in CI: {reason}")
    pytest.skip(reason)


@contextlib.contextmanager
def running_valkey(folder: Path) -> Iterator[EmbeddedValkey]:
    """A Redis-protocol server on an existing folder; what needs it is skipped where it does not start."""
    server = EmbeddedValkey(folder)
    try:
        server.start()
    except OperationError as error:
        unavailable(str(error))
    try:
        yield server
    finally:
        server.stop()


def wait_until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition; fails the test, saying what never happened."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {patience_s} s"
        time.sleep(0.02)


def of_each(processes: Iterable[psutil.Process], read: Callable[[psutil.Process], T]) -> list[T]:
    """What `read` says of each process that still runs: PostgreSQL and pools of workers begin and end some at will."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(read(process))
    return found


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it, itself last; empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all that descend from it."""
    of_each(family_of(pid), psutil.Process.kill)


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Database:
    """A migrated database of its own for one test."""

    url: str
    secret: str = SECRET
    _open: list[Connection[Any]] = field(default_factory=list)

    def dsn(self, role: Role) -> str:
        """Connection string of one of the service's roles."""
        return role_dsn(self.url, role, self.secret)

    def connect(self, role: Role | None = None, *, autocommit: bool = True) -> Connection[Any]:
        """A connection as a role, or as the administrator; closed when the test ends."""
        connection = psycopg.connect(
            self.url if role is None else self.dsn(role), autocommit=autocommit, options="-c timezone=UTC"
        )
        self._open.append(connection)
        return connection

    def close(self) -> None:
        """Close what tests opened."""
        for connection in self._open:
            connection.close()


class Cluster:
    """A PostgreSQL cluster with a migrated template, from which a test's database is copied."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server, self._numbers = server, itertools.count(1)
        self.catalog: Catalog = load_catalog()
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            # Killed processes lose nothing that they wrote, and no test stops the machine that these databases are on.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        self.create("migrated")
        with psycopg.connect(self.url("migrated"), autocommit=True) as connection:
            migrate(connection, self.catalog, SECRET)

    def url(self, database: str) -> str:
        """The administrator's connection string for a database."""
        return psycopg.conninfo.make_conninfo(
            self._server.url, dbname=database, user="postgres", password=password_for(SECRET, "postgres")
        )

    def create(self, name: str, template: str = "template0") -> None:
        """Make a database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            # Copying files costs a tenth of what the log of every page does.
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The server is stopped for the length of a with-block, as by its administrator; every connection ends."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    @contextlib.contextmanager
    def database(self, template: str = "migrated") -> Iterator[Database]:
        """A database that exists for the length of a with-block."""
        name = f"test_{next(self._numbers)}"
        self.create(name, template)
        database = Database(self.url(name))
        if template == "migrated":
            with psycopg.connect(database.url, autocommit=True) as connection:
                for role in Role:
                    connection.execute(f"ALTER ROLE {role.value} IN DATABASE {name} SET search_path = {SEARCH_PATH}")
        try:
            yield database
        finally:
            database.close()
            self.drop(name)


class RunningStack:
    """A whole stack, started as a user does it: `totalizer up`."""

    def __init__(self, home: Path, *, outside_database: str | None = None, **environment: str) -> None:
        self.home, self.port, self._outside = home, free_port(), outside_database
        self._secret = environment.get("TOTALIZER_SECRET")
        self.url = f"http://127.0.0.1:{self.port}"
        # Tests of limits set them; all others send as much as they like.
        own = {"TOTALIZER_REFRESH_INTERVAL_MS": "100", "RATE_LIMIT_MAX_REQUESTS": "0", **environment}
        clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        self._log = (home.parent / f"{home.name}.up.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "totalizer", "up", "--home", str(home), "--port", str(self.port)],
            env={**clean, **own}, stdout=self._log, stderr=subprocess.STDOUT, cwd=home.parent,
        )  # fmt: skip
        try:
            wait_until(self._ready, "totalizer up")
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"totalizer up ended:\n{self.output()}"
        return "is ready" in self.output()

    def output(self) -> str:
        """What `totalizer up` has printed."""
        self._log.seek(0)
        return self._log.read()

    def dsn(self, role: Role | None) -> str:
        """Connection string of one of the service's roles, or of the administrator."""
        secret = self._secret or (self.home / "secret").read_text().strip()
        url = self._outside or json.loads((self.home / "run" / "state.json").read_text())["dsn"]
        if role is not None:
            return role_dsn(url, role, secret)
        return psycopg.conninfo.make_conninfo(url, user="postgres", password=password_for(secret, "postgres"))

    def connect(self, role: Role | None) -> Connection[Any]:
        """A connection as a role, or as the administrator."""
        return psycopg.connect(self.dsn(role), autocommit=True, options="-c timezone=UTC")

    def drain(self) -> None:
        """Wait until everything acknowledged so far is loaded and rolled up."""
        journals = LocalJournals(self.home / "journal")
        ends = journals.durable_ends()
        with self.connect(Role.REFRESHER) as connection:

            def drained() -> bool:
                rows = connection.execute(
                    "SELECT journal_id::text, segment, position FROM totalizer.journal_offsets"
                ).fetchall()
                loaded = {row[0]: Position(row[1], row[2]) for row in rows}
                marks = connection.execute("SELECT count(*) FROM totalizer.dirty_marks").fetchone()
                return journals.all_loaded(ends, loaded) and marks == (0,)

            wait_until(drained, "loading and rolling up")

    def stop(self) -> int:
        """End it as Ctrl-C does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        finally:
            self._log.close()


@dataclass(frozen=True)
class Stack:
    """A running stack and an organisation of the test's own in it."""

    running: RunningStack
    organization_id: str
    key: str

    @property
    def url(self) -> str:
        """Base of the API."""
        return self.running.url

    @property
    def home(self) -> Path:
        """The data folder."""
        return self.running.home

    def drain(self) -> None:
        """Wait until everything acknowledged so far is loaded and rolled up."""
        self.running.drain()

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of a query as the refresher, who sees every organisation's."""
        with self.running.connect(Role.REFRESHER) as connection:
            return connection.execute(query.encode(), parameters or None).fetchall()


_names = itertools.count(1)


def new_organization(running: RunningStack, time_zone: str = "UTC") -> Stack:
    """An organisation of its own in a running stack, with a key."""
    with running.connect(None) as connection:
        organization_id = create_organization(connection, f"organisation {os.getpid()}-{next(_names)}", time_zone)
        return Stack(running, organization_id, create_key(connection, organization_id, "test"))
