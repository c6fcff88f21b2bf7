"""Spans of refreshes, for the traced batches whose marks they have settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from psycopg import Connection

from totalizer import tracing
from totalizer.clock import SYSTEM_CLOCK
from totalizer.store.traces import Announced, listen, still_marked

NAME = "refresh"
#: Announcements that wait; of more, the oldest have no span.
WAITING_MAX = 1000

#: What each connection has heard of and is not settled.
_HEARD: WeakKeyDictionary[Connection[Any], deque[Announced]] = WeakKeyDictionary()


@contextmanager
def traced(connection: Connection[Any]) -> Iterator[None]:
    """Trace a refresh, within; where nothing is traced, do nothing.

    Args:
        connection: autocommit, and the same each time: it hears of what was loaded since.
    """
    if tracing.ON is None:
        yield
        return
    heard = _HEARD.get(connection)
    if heard is None:
        heard = _HEARD[connection] = deque(maxlen=WAITING_MAX)
        listen(connection, heard.append)
    began_ns = SYSTEM_CLOCK.now_ns()
    yield
    if heard:
        _tell(connection, tracing.ON, heard, began_ns)


def _tell(connection: Connection[Any], on: tracing.Tracing, heard: deque[Announced], began_ns: int) -> None:
    left = still_marked(connection, [each.marked_at for each in heard])
    for each in list(heard):
        if each.marked_at not in left:
            heard.remove(each)
            on.done(NAME, each.spans, began_ns)
