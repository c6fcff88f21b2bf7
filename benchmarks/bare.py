"""The baseline of single events: the same server with a handler that only decodes the body and answers 202.

python -m benchmarks.bare PORT LOOP
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec


class CommandExecution(msgspec.Struct):
    """One event, as sent."""

    id: str
    user_id: str
    team_id: str
    command_name: str
    execution_time_ms: int
    status: str
    executed_at: str
    context: dict[str, str | int]


_decode = msgspec.json.Decoder(CommandExecution).decode
_HEADERS = [("content-type", "application/json")]


async def app(scope: Any, proto: Any) -> None:
    """The RSGI application."""
    event = _decode(await proto())
    proto.response_bytes(202, _HEADERS, f'{{"accepted":1,"rejected":0,"id":"{event.id}"}}'.encode())


def main() -> None:
    """Serve on the port and event loop named on the command line, else with the API's settings, until SIGTERM."""
    from granian import Granian
    from granian.constants import Interfaces, Loops
    from granian.log import LogLevels

    from totalizer.listener import BACKLOG

    Granian(
        "benchmarks.bare:app", interface=Interfaces.RSGI, address="127.0.0.1", port=int(sys.argv[1]), workers=1,
        backlog=BACKLOG, log_level=LogLevels.warning, loop=Loops(sys.argv[2]),
    ).serve()  # fmt: skip


if __name__ == "__main__":
    main()
