"""The bodies of requests: read whole or in pieces, not longer and not slower than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from granian import rsgi

from totalizer.errors import Refusal, Refused

#: The client went away before its body had come: there is nobody to answer.
ClientGone: type[Exception] = rsgi.ProtocolClosed  # type: ignore[attr-defined]

#: Looks for bodies that take too long, in the time that they may take.
LOOKS_A_TIMEOUT = 4


class BodyReader:
    """Reads the bodies of one process' requests.

    One look for all of them now and then, and no timer for each: most bodies are there when they are asked for.

    Args:
        bytes_max: longest body that is read as a whole.
        timeout_s: longest time for it; of a body read in pieces, for each. It may be a quarter more.
    """

    def __init__(self, *, bytes_max: int, timeout_s: float) -> None:
        self.bytes_max, self._timeout_s = bytes_max, timeout_s
        #: Who waits for a body, and since which look: nothing is asked for the time on the way of most.
        self._begun: dict[asyncio.Task[Any], int] = {}
        self._looks = 0
        self._overdue: set[asyncio.Task[Any]] = set()
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look for slow bodies from now on, on the running event loop."""
        self._look = asyncio.get_running_loop().call_later(self._timeout_s / LOOKS_A_TIMEOUT, self._end_overdue)

    def stop(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()

    def _end_overdue(self) -> None:
        self._looks += 1
        before = self._looks - LOOKS_A_TIMEOUT
        for task, begun in self._begun.items():
            if begun < before and task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        self.start()

    async def read(self, proto: Any, length: str | None) -> bytes:
        """The whole body.

        Args:
            proto: the server's side of the request.
            length: what the request says in `Content-Length`.

        Raises:
            Refused: it is longer than `bytes_max`, and not more than that was read; or it does not come.
            ClientGone: it has gone away.
        """
        if length is None:
            return await self._gather(proto)
        # The server has checked that the length is a number and delivers no more than it.
        if int(length) > self.bytes_max:
            raise self._too_large()
        # As `_begin` and `_end` have it, in place: this is on the way of every event.
        task: Any = asyncio.current_task()
        begun = self._begun
        begun[task] = self._looks
        try:
            body: bytes = await proto()
        except asyncio.CancelledError:
            raise self._reason(task) from None
        finally:
            del begun[task]
            if self._overdue:
                self._overdue.discard(task)
        return body

    async def pieces(self, proto: Any) -> AsyncIterator[bytes]:
        """The body in pieces, of any length in all.

        Raises:
            Refused: the next piece does not come.
        """
        chunks = aiter(proto)
        while True:
            task = self._begin()
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                raise self._reason(task) from None
            finally:
                self._end(task)
            yield chunk

    async def _gather(self, proto: Any) -> bytes:
        chunks, size = [], 0
        task = self._begin()
        try:
            async for chunk in proto:
                size += len(chunk)
                if size > self.bytes_max:
                    raise self._too_large()
                chunks.append(chunk)
        except asyncio.CancelledError:
            raise self._reason(task) from None
        finally:
            self._end(task)
        return b"".join(chunks)

    def _begin(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        self._begun[task] = self._looks
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._begun.pop(task, None)
        self._overdue.discard(task)

    def _reason(self, task: asyncio.Task[Any]) -> BaseException:
        """What a cancelled wait becomes: a refusal if it was for being slow."""
        if task not in self._overdue:
            return asyncio.CancelledError()
        task.uncancel()
        detail = f"the body did not come within {self._timeout_s:g} s; send it faster, or less at once"
        return Refused(Refusal.BODY_TIMEOUT, detail, headers=(("connection", "close"),))

    def _too_large(self) -> Refused:
        return Refused(Refusal.BODY_TOO_LARGE, f"the body is larger than {self.bytes_max} bytes; send smaller batches")
