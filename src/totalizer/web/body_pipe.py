"""The body of an answer that is sent while it is made, at the pace of its client.

What the server is given as a stream waits in its memory, however much that is. A file it reads as the client takes it
(https://github.com/emmett-framework/granian/blob/master/src/rsgi/types.rs), so it is given a named pipe: that holds
64 KiB, and its writer up.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from totalizer.errors import OperationError

#: Longest time for the server to open the pipe, and the pauses between two looks whether it has; seconds.
OPEN_TIMEOUT_S, OPEN_PAUSE_S, OPEN_PAUSE_S_MAX = 10.0, 0.0005, 0.05


class BodyPipe:
    """A pipe that the server reads. Close it.

    Args:
        descriptor: of its end to write to, which does not block.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    async def send(self, data: bytes) -> None:
        """Write all of it; returns when all but 64 KiB have been taken.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        assert self._descriptor is not None
        rest = memoryview(data)
        while rest:
            with suppress(BlockingIOError):
                rest = rest[os.write(self._descriptor, rest) :]
                continue
            await _writable(self._descriptor)

    def close(self) -> None:
        """End the body."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


async def begin(respond: Callable[[str], None]) -> BodyPipe:
    """Begin an answer.

    Args:
        respond: has the server answer with the file at a path.

    Raises:
        OperationError: the server does not open it.
    """
    with TemporaryDirectory(prefix="totalizer-") as folder:
        path = Path(folder) / "body"
        os.mkfifo(path, 0o600)
        respond(str(path))
        return BodyPipe(await _opened(path))


async def _opened(path: Path) -> int:
    """The end to write to, once there is one to read from."""
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + OPEN_TIMEOUT_S, OPEN_PAUSE_S
    while True:
        await asyncio.sleep(pause_s)
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        if loop.time() > deadline:
            raise OperationError(f"the server has not opened {path} in {OPEN_TIMEOUT_S:g} s: the answer cannot be sent")
        pause_s = min(2 * pause_s, OPEN_PAUSE_S_MAX)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    writable = loop.create_future()

    def note() -> None:
        if not writable.done():
            writable.set_result(None)

    loop.add_writer(descriptor, note)
    try:
        await writable
    finally:
        loop.remove_writer(descriptor)
