"""The baseline of answers: the same server with a handler that only decodes the body and answers 202.

python -m benchmarks.bare PORT LOOP WORKERS
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from benchmarks.workload import BATCH_PATH


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


class Batch(msgspec.Struct):
    """Several events, as sent."""

    command_executions: list[CommandExecution]


_decode = msgspec.json.Decoder(CommandExecution).decode
_decode_batch = msgspec.json.Decoder(Batch).decode
_HEADERS = [("content-type", "application/json")]


async def app(scope: Any, proto: Any) -> None:
    """The RSGI application."""
    body = await proto()
    if scope.path == BATCH_PATH:
        accepted = len(_decode_batch(body).command_executions)
        proto.response_bytes(202, _HEADERS, b'{"accepted":%d,"rejected":0}' % accepted)
        return
    event = _decode(body)
    proto.response_bytes(202, _HEADERS, f'{{"accepted":1,"rejected":0,"id":"{event.id}"}}'.encode())


def main() -> None:
    """Serve on the port, event loop and processes named on the command line, until SIGTERM."""
    from granian import Granian
    from granian.constants import Interfaces, Loops
    from granian.log import LogLevels

    from totalizer.listener import BACKLOG

    Granian(
        "benchmarks.bare:app", interface=Interfaces.RSGI, address="127.0.0.1", port=int(sys.argv[1]),
        workers=int(sys.argv[3]), backlog=BACKLOG, log_level=LogLevels.warning, loop=Loops(sys.argv[2]),
    ).serve()  # fmt: skip


if __name__ == "__main__":
    main()
