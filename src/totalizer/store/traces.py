"""How the loader tells the rollups which traced batches they are about to compute: by a notification, kept nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from psycopg import Connection, Notify

#: Sent on commit to the sessions that listen; a lost one is a span less.
CHANNEL = "totalizer_traces"


class Announced(msgspec.Struct, frozen=True):
    """What a transaction of the loader has left to the rollups.

    Attributes:
        marked_at: of the marks it made.
        spans: its spans, as `traceparent` has them.
    """

    marked_at: str
    spans: tuple[str, ...]


_DECODE = msgspec.json.Decoder(Announced).decode


def announce(connection: Connection[Any], spans: Iterable[str]) -> None:
    """Tell who listens, on commit, that this transaction's marks are of these spans; 100 of them fit."""
    connection.execute(
        "SELECT pg_notify(%s, json_build_object('marked_at', now(), 'spans', %s::text[])::text)",
        [CHANNEL, list(spans)],
    )


def listen(connection: Connection[Any], heard: Callable[[Announced], None]) -> None:
    """Call `heard` from now on, with whatever statement of this connection comes after an announcement."""

    def take(notify: Notify) -> None:
        heard(_DECODE(notify.payload))

    connection.add_notify_handler(take)
    connection.execute(f"LISTEN {CHANNEL}".encode())


def still_marked(connection: Connection[Any], moments: Iterable[str]) -> set[str]:
    """Those of the moments of which there are live marks left."""
    rows = connection.execute(
        "SELECT moment FROM unnest(%s::text[]) AS moment WHERE EXISTS ("
        "SELECT FROM totalizer.dirty_marks WHERE priority = 0 AND marked_at = moment::timestamptz)",
        [list(moments)],
    )
    return {row[0] for row in rows}
