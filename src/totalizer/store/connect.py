"""Opening connections, and telling the database's faults from the data's."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import Connection

from totalizer.errors import StoreUnavailable

#: Seconds to wait for a server that does not answer.
CONNECT_TIMEOUT_S = 5


def connect(dsn: str, *, autocommit: bool = False) -> Connection[Any]:
    """A connection whose times are UTC.

    Raises:
        StoreUnavailable: the database cannot be reached or refuses the log-in; the message has its reason.
    """
    try:
        return psycopg.connect(dsn, autocommit=autocommit, connect_timeout=CONNECT_TIMEOUT_S, options="-c timezone=UTC")
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {str(error).strip()}") from None


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
