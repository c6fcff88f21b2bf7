"""Holds a run to its limits: told to stop, then cancelled again and again, then its connections are ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import Connection

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import JobStopped
from totalizer.store.connect import connect
from totalizer.store.roles import Role
from totalizer.store.runs import end_backend

#: Seconds between two attempts to cancel what a run that shall stop is at: one between two statements hits nothing.
CANCEL_S = 0.5
#: A server's session ends this soon after its client was killed, also in the middle of a statement: the lock is free
#: for the next. And a client's machine that is gone without a word is noticed after a minute.
_NOTICE_DEATH = (
    "SET client_connection_check_interval = '2s'; SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; "
    "SET tcp_keepalives_count = 3"
)


def notice_death(connection: Connection[Any]) -> None:
    """Have the server end the session soon after its client died, and with it the locks that it holds."""
    connection.execute(_NOTICE_DEATH)


class _Held(NamedTuple):
    """A connection, how it was made, and its process at the server."""

    connection: Connection[Any]
    dsn: str
    pid: int


class LimitedRun:
    """One run's connections, and the thread that watches its time.

    Used as a context manager on the thread that runs the body.

    Args:
        dsn_of: the connection string of a role.
        soft: after this it is told to stop.
        hard: after this its connections are ended.
        on_end: called on the watching thread when they have been, with the reason.
        clock: time source.
    """

    def __init__(
        self, dsn_of: Callable[[Role], str], soft: timedelta, hard: timedelta, on_end: Callable[[str], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._dsn_of, self._on_end, self._clock = dsn_of, on_end, clock
        self._soft, self._hard = soft.total_seconds(), hard.total_seconds()
        self._connections: list[_Held] = []
        self._opened, self._changing = ExitStack(), Lock()
        self._ended, self._woken = Event(), Event()
        self._stop_reason: str | None = None
        self.timed_out = self.ended_by_force = False
        self._thread = Thread(target=self._watch, name="job limits", daemon=True)

    def open(self, role: Role) -> Connection[Any]:
        """A connection, autocommit, that the limits hold; closed at the end of the run. From any thread.

        Raises:
            StoreUnavailable: the database cannot be reached.
            JobStopped: the connections were ended; there are no more.
        """
        dsn = self._dsn_of(role)
        connection = connect(dsn, autocommit=True)
        with self._changing:
            if self.ended_by_force:
                connection.close()
                raise JobStopped(self._stop_reason)
            self._opened.enter_context(connection)
            self._connections.append(_Held(connection, dsn, connection.info.backend_pid))
        notice_death(connection)
        # Should this process be stopped and its watch with it, the server keeps the limit.
        connection.execute(f"SET statement_timeout = {int(self._hard * 1000) + 1000}")
        return connection

    def check(self) -> None:
        if self._stop_reason is not None:
            raise JobStopped(self._stop_reason)

    def stop(self, reason: str) -> None:
        """Tell the run to stop, from any thread."""
        self._stop_reason = self._stop_reason or reason
        self._woken.set()

    @property
    def stop_reason(self) -> str | None:
        """Why it was told to stop; None if it was not."""
        return self._stop_reason

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._woken.set()
        self._thread.join()
        self._opened.close()

    def _watch(self) -> None:
        started = self._clock.monotonic()
        self._woken.wait(self._soft)
        if self._stop_reason is None and not self._ended.is_set():
            self.timed_out = True
            self.stop(f"it took longer than {self._soft:g} s")
        while not self._ended.is_set() and self._clock.monotonic() - started < self._hard:
            for held in self._open_ones():
                with suppress(psycopg.Error):
                    held.connection.cancel_safe(timeout=CANCEL_S)
            self._ended.wait(CANCEL_S)
        if not self._ended.is_set():
            self._end_all()

    def _end_all(self) -> None:
        reason = f"it took longer than {self._hard:g} s; its connections were ended"
        with self._changing:
            self.timed_out = self.ended_by_force = True
            self._stop_reason = reason
        open_ones = self._open_ones()
        for held in open_ones:
            _shut_down(held.connection)
        for held in open_ones:
            # Its server notices by itself when it next looks; this is sooner.
            with suppress(psycopg.Error):
                end_backend(held.dsn, held.pid)
        self._on_end(reason)

    def _open_ones(self) -> list[_Held]:
        with self._changing:
            return [held for held in self._connections if not held.connection.closed]


def _shut_down(connection: Connection[Any]) -> None:
    """End a connection that another thread is using: closing it here would pull it from under that thread."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
