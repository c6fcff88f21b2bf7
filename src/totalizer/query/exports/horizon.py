"""Which events were stored by a moment, so exactly that two exports one after the other have each event once.

The time an event was stored is the time its transaction began, and transactions end out of order: an event may become
visible after others that were stored later. What tells is the id of the transaction. PostgreSQL says below which id all
have ended (`pg_snapshot_xmin`): events of ids below it are all there, and those of ids from it on wait for the next
export, also if they can be seen already. Ids of subtransactions are above that of theirs, so they wait with it.

A row keeps the low 32 bits of the id (`xmin`). They are read against the newest id there is, and for rows of the last
day only: rows that were stored before that are settled whatever the bits say, which after four thousand million
transactions mean something else.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg import AsyncConnection

from totalizer.errors import Refusal, Refused

#: No transaction that stores events lasts this long.
SETTLED_AFTER = timedelta(days=1)
#: Ids after which the low 32 bits could be mistaken.
AGE_MAX = 1 << 31


class Horizon(msgspec.Struct, array_like=True, frozen=True):
    """A moment in the order of transactions.

    Attributes:
        xid: all transactions with ids below it have ended.
        at: the database's clock, RFC 3339.
        cluster: whose ids these are: the cluster's identifier and its timeline, which a restore or failover changes.
    """

    xid: int
    at: str
    cluster: str

    @property
    def settled(self) -> datetime:
        """Events stored before this are settled whatever their ids."""
        return datetime.fromisoformat(self.at) - SETTLED_AFTER


async def read_horizon(connection: AsyncConnection[Any]) -> Horizon:
    """The horizon of a snapshot."""
    cursor = await connection.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, clock_timestamp(), "
        "(SELECT system_identifier FROM pg_control_system())::text || '-' || "
        "(SELECT timeline_id FROM pg_control_checkpoint())::text"
    )
    row = await cursor.fetchone()
    assert row is not None
    return Horizon(row[0], row[1].isoformat(), row[2])


def check_horizon(name: str, given: Horizon, present: Horizon) -> None:
    """Refuse a horizon that says nothing about this database any more.

    Args:
        name: of the parameter it came in.
        given: of the earlier export.
        present: of the database now.

    Raises:
        Refused: it is of another cluster, or too old.
    """
    if given.cluster != present.cluster or given.xid > present.xid:
        reason = "the database was restored, moved or failed over since"
    elif present.xid - given.xid > AGE_MAX:
        reason = "too many transactions have been made since"
    else:
        return
    raise Refused(
        Refusal.DATA_CHANGED,
        f"{name}: {reason}, and what was exported cannot be told any more; export anew, for instance with "
        f"stored_since={given.settled.isoformat()}, and drop the events whose id you have",
    )


def settled_sql(until: Horizon, since: Horizon | None, parameters: dict[str, Any]) -> str:
    """Conditions, each beginning with AND, on rows called `r`: settled by a horizon, and not by an earlier one.

    Args:
        until: the horizon.
        since: the earlier one; None for all.
        parameters: takes the values.
    """
    # The newest id, less how far back the row's low bits are behind its.
    xid = "((SELECT n.newest) - (((SELECT n.newest) - r.xmin::text::bigint) & 4294967295))"
    newest = "(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"
    xid = xid.replace("(SELECT n.newest)", newest)
    parameters |= {"until_xid": until.xid, "until_settled": until.settled}
    sql = f" AND (r.stored_at < %(until_settled)s OR {xid} < %(until_xid)s)"
    if since is not None:
        parameters |= {"since_xid": since.xid, "since_settled": since.settled}
        sql += f" AND r.stored_at >= %(since_settled)s AND {xid} >= %(since_xid)s"
    return sql
