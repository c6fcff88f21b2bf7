"""An API process beside that of the stack, as it is or without all that it tells of itself.

python -m benchmarks.plain HOME PORT as-it-is|plain
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from totalizer import serve
from totalizer.metrics.measures import Series
from totalizer.ops.connection import stack_settings
from totalizer.telemetry import configure_logging
from totalizer.web.front import Front
from totalizer.web.gauges import Gauges

AS_IT_IS, PLAIN = "as-it-is", "plain"
_create = serve.create_front


class PlainExchange(msgspec.Struct, eq=False):
    """The server's side of a request, that notes nothing and adds nothing."""

    proto: Any
    response_bytes: Any
    began: float = 0.0
    read_at: float = 0.0

    def take_id(self, given: str) -> None:
        """Leave it."""


class PlainFront(Front):
    """Measures nothing of the hot path. Everything else is that of `Front`."""

    def __rsgi__(self, scope: Any, proto: Any) -> Awaitable[None]:
        if scope.method == "POST" and (routes := self._ingest.routes.get(scope.path)):
            exchange: Any = PlainExchange(proto, proto.response_bytes)
            return self._ingest(scope, exchange, routes)
        return super().__rsgi__(scope, proto)


def create_plain_front(listener: int) -> Front:
    """The RSGI application without what it tells of itself. Called by the server, in the process that serves."""
    for owner, method in ((Series, "add"), (Gauges, "look")):
        setattr(owner, method, nothing)
    front = _create(listener)
    front.__class__ = PlainFront
    front._ingest.on_answered = nothing
    return front


def nothing(*_: object) -> None:
    """Do nothing, whatever it is told."""


def main() -> None:
    """Serve as the command line says, until SIGTERM."""
    from benchmarks.plain import create_plain_front as plain

    home, port, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = stack_settings(home, PORT=port)
    configure_logging(settings.log_level, "api", form=settings.log_format)
    if how == PLAIN:
        # By the name under which the process that serves finds it, and not that of this script.
        serve.create_front = plain
    serve.run_api(settings)


if __name__ == "__main__":
    main()
