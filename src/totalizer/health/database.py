"""Asking the database: one statement, in bounded time, whatever state the server is in."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Timer
from typing import Any

import msgspec
import psycopg
from psycopg import Connection
from psycopg.rows import tuple_row

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.health.facts import DatabaseAnswer, DatabaseFacts

#: Seconds that connecting and asking may take.
CONNECT_S, ASK_S = 2, 2.0
_ASK = "SELECT totalizer.health_facts()::text"


class DatabaseProbe:
    """Asks over a connection of its own, opened when needed. One thread at a time.

    Args:
        dsn: gives the connection string, as any of the service's roles; asked again for each connection.
        clock: for the answer's time, and against the database's.
    """

    def __init__(self, dsn: Callable[[], str], clock: Clock = SYSTEM_CLOCK) -> None:
        self._dsn, self._clock = dsn, clock
        self._connection: Connection[Any] | None = None
        self._lock = Lock()

    def __call__(self) -> DatabaseAnswer:
        """Ask once; a connection that has broken meanwhile is replaced by a new one first."""
        with self._lock:
            kept = self._connection is not None
            answer = self._ask()
            return self._ask() if kept and answer.facts is None and self._connection is None else answer

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._forget()

    def _ask(self) -> DatabaseAnswer:
        began = self._clock.monotonic()
        try:
            connection = self._open()
            with bounded(connection, ASK_S + 0.5):
                return self._asked(connection, began)
        except psycopg.Error as error:
            self._forget()
            return DatabaseAnswer(None, problem_of(error))

    def _asked(self, connection: Connection[Any], began: float) -> DatabaseAnswer:
        before_ns = self._clock.now_ns()
        facts = facts_of(connection)
        after_ns = self._clock.now_ns()
        skew_s = (before_ns + after_ns) / 2e9 - facts.now_s
        return DatabaseAnswer(facts, "", (self._clock.monotonic() - began) * 1000, skew_s)

    def _open(self) -> Connection[Any]:
        if self._connection is None:
            options = f"-c timezone=UTC -c statement_timeout={int(ASK_S * 1000)}"
            self._connection = psycopg.connect(
                self._dsn(), autocommit=True, connect_timeout=CONNECT_S, options=options,
                application_name="totalizer health",
            )  # fmt: skip
        return self._connection

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def facts_of(connection: Connection[Any]) -> DatabaseFacts:
    """The figures of the installation.

    Raises:
        psycopg.Error: the database cannot tell.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_ASK).fetchone()
    assert row is not None
    return msgspec.json.decode(row[0], type=DatabaseFacts)


def problem_of(error: psycopg.Error) -> str:
    """What is wrong, in words that may be shown to anybody: the server's own name users, hosts and folders."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return f"did not answer within {ASK_S:g} s"
    if error.sqlstate in ("3F000", "42883", "42P01", "42703"):
        return f"is not migrated ({error.sqlstate}): run `totalizer migrate`"
    if error.sqlstate is not None and not isinstance(error, psycopg.OperationalError):
        return f"refuses what it is asked ({error.sqlstate})"
    return "cannot be reached"


@contextmanager
def bounded(connection: Connection[Any], seconds: float) -> Iterator[None]:
    """End a connection if the block takes longer: a server that is frozen keeps none of its own time limits."""
    watch = Timer(seconds, _shut_down, [connection])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _shut_down(connection: Connection[Any]) -> None:
    """End a connection that a thread waits on."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
