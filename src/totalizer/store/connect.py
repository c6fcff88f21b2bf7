"""Opening connections, and telling the database's faults from the data's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection

from totalizer.errors import OperationError, StoreUnavailable
from totalizer.store.audit import Actor, command_line

#: Seconds to wait for a server that does not answer.
CONNECT_TIMEOUT_S = 5


def connect(dsn: str, *, autocommit: bool = False, actor: Actor | None = None) -> Connection[Any]:
    """A connection whose times are UTC.

    Args:
        dsn: the connection string.
        autocommit: True for transactions only where they are asked for.
        actor: who changes what is changed over it; None for the service itself.

    Raises:
        StoreUnavailable: the database cannot be reached or refuses the log-in; the message has its reason.
    """
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, options="-c timezone=UTC")
        if actor is not None:
            # Not among the options: proxies such as PgBouncer refuse those that they do not know.
            connection.execute("SELECT set_config('app.actor', %s, false)", [actor.setting])
        connection.autocommit = autocommit
        return connection
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {str(error).strip()}") from None


@contextmanager
def connected(dsn: str) -> Iterator[Connection[Any]]:
    """A connection for a command, autocommit; what goes wrong within the block is told as by `in_plain_words`.

    What is changed over it, who runs the command has changed.

    Raises:
        StoreUnavailable: the database cannot be reached, refuses the log-in, or goes away.
        OperationError: it refuses what it is asked.
    """
    with in_plain_words(), connect(dsn, autocommit=True, actor=command_line()) as connection:
        yield connection


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Errors of the driver become ours, for who runs a command.

    Raises:
        StoreUnavailable: the database went away.
        OperationError: it refused what it was asked.
    """
    try:
        yield
    except psycopg.Error as error:
        reason = str(error).strip()
        if is_gone(error):
            raise StoreUnavailable(f"the database went away; run the command again: {reason}") from error
        raise OperationError(
            f"the database refused: {reason}; `totalizer migrate` brings one to the present that is not migrated"
        ) from error


async def check_open(connection: AsyncConnection[Any]) -> None:
    """For a pool: has the server ended a connection that lay there? The socket tells, without asking the server.

    Raises:
        psycopg.OperationalError: it has; the pool then hands out another.
    """
    connection.pgconn.consume_input()  # the server's last words
    connection.pgconn.consume_input()  # and that nothing follows


def is_rows_fault(error: psycopg.Error) -> bool:
    """True if the row is to blame and would fail again: data exceptions, constraints, and rows too complex or large.

    Everything else (connection, transaction rollback, resources, operator intervention, our own SQL) is worth a retry.
    Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    if isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None:
        return False  # no such partition: it was dropped since we looked, and can be made again
    state = error.sqlstate or ""
    return state[:2] in ("22", "23") or state in ("54000", "54001")


def is_gone(error: psycopg.Error) -> bool:
    """True if the connection is of no more use."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
