"""A Unix socket between loader and PostgreSQL that knows its protocol and can break it at any message.

Message formats: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

SOCKET_NAME = ".s.PGSQL.5432"
#: Types of client messages that do not count: the password, and the good-bye.
_NOT_COUNTED = (b"p", b"X")
#: Those that the server answers with ReadyForQuery.
_ANSWERED = (b"Q", b"S")
#: Server messages after which it waits for the client: ReadyForQuery, CopyInResponse.
_READY = (b"Z", b"G")
#: Longest silence while a message or answer is expected, seconds; then the connection is ended.
SILENCE_S_MAX = 20.0


class Broken(Exception):
    """The connection is to be ended."""


class Proxy:
    """Listens in a folder of its own, one thread a connection.

    Args:
        dsn: of the server behind; `dsn` of this object leads through the proxy.

    Attributes:
        fired: True once the armed fault has happened.
        seen: client messages that counted since `arm`.
        backend: process id of the last connection's backend.
    """

    def __init__(self, dsn: str) -> None:
        self._target = str(Path(str(conninfo_to_dict(dsn)["host"])) / SOCKET_NAME)
        self._folder = Path(tempfile.mkdtemp(prefix="tzp-"))
        self.dsn = make_conninfo(dsn, host=str(self._folder))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._folder / SOCKET_NAME))
        self._listener.listen(8)
        self._threads: list[threading.Thread] = []
        self._closing = False
        self.backend = 0
        self.disarm()
        self._accepting = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._accepting.start()

    def disarm(self) -> None:
        """Let everything pass."""
        self._at, self._text, self._lose_reply = -1, b"", False
        self._action: Callable[[], None] | None = None
        self.seen, self.fired = 0, False

    def arm(
        self,
        at: int = -1,
        *,
        text: bytes = b"",
        lose_reply: bool = False,
        action: Callable[[], None] | None = None,
    ) -> None:
        """Let one fault happen.

        Args:
            at: at the client's message of this number, counted from 0.
            text: instead, at the first message that holds this text.
            lose_reply: the message is still delivered, and what the server says to it is not; else it is lost itself.
            action: done before the message is delivered; then the connection is not broken.
        """
        self.disarm()
        self._at, self._text, self._lose_reply, self._action = at, text, lose_reply, action

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._folder)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), name="proxied", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with client, server, contextlib.suppress(OSError, Broken):
            server.connect(self._target)
            client.settimeout(SILENCE_S_MAX)
            server.settimeout(SILENCE_S_MAX)
            _Conversation(self, client, server).run()

    def _is_due(self, body: bytes) -> bool:
        number, self.seen = self.seen, self.seen + 1
        if self.fired:
            return False
        self.fired = number == self._at or bool(self._text and self._text in body)
        return self.fired


class _Conversation:
    """One connection; ends when either side does, or when the proxy closes."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._from_client, self._from_server = b"", b""
        self._started = False
        self._until_answered = False

    def run(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._client, selectors.EVENT_READ)
            ready.register(self._server, selectors.EVENT_READ)
            while not self._proxy._closing:
                for key, _ in ready.select(0.1):
                    if key.fileobj is self._client:
                        self._hear_client(_received(self._client))
                    else:
                        self._hear_server(_received(self._server))

    def _hear_client(self, data: bytes) -> None:
        self._from_client += data
        for kind, message in self._messages():
            if kind and kind not in _NOT_COUNTED and self._proxy._is_due(message):
                self._break(kind, message)
            else:
                self._server.sendall(message)

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Whole messages; the first has no type."""
        while True:
            head = 1 if self._started else 0
            if len(self._from_client) < head + 4:
                return
            (length,) = struct.unpack_from("!i", self._from_client, head)
            if len(self._from_client) < head + length:
                return
            message, self._from_client = self._from_client[: head + length], self._from_client[head + length :]
            kind = message[:1] if self._started else b""
            self._started = True
            yield kind, message

    def _break(self, kind: bytes, message: bytes) -> None:
        proxy = self._proxy
        if proxy._action is not None:
            proxy._action()
            self._server.sendall(message)
            return
        if proxy._lose_reply:
            self._server.sendall(message)
            if kind in _ANSWERED:
                self._swallow_answer()
            elif proxy._text:
                # The text is in a message before the one that has it done: that one is lost with its answer.
                for each, rest in self._rest():
                    self._server.sendall(rest)
                    if each in _ANSWERED:
                        self._swallow_answer()
                        break
        raise Broken

    def _rest(self) -> Iterator[tuple[bytes, bytes]]:
        """The client's messages from here on."""
        while True:
            yield from self._messages()
            self._from_client += _received(self._client)

    def _swallow_answer(self) -> None:
        """Wait until the server has said that it is ready for more: what it was asked is done."""
        self._until_answered = True
        while self._until_answered:
            self._hear_server(_received(self._server))

    def _hear_server(self, data: bytes) -> None:
        if not self._until_answered:
            self._client.sendall(data)
        self._from_server += data
        while len(self._from_server) >= 5:
            kind, length = struct.unpack_from("!ci", self._from_server)
            if len(self._from_server) < 1 + length:
                return
            message, self._from_server = self._from_server[: 1 + length], self._from_server[1 + length :]
            if kind == b"K":
                (self._proxy.backend,) = struct.unpack_from("!i", message, 5)
            elif kind in _READY:
                self._until_answered = False


def _received(side: socket.socket) -> bytes:
    data = side.recv(1 << 16)
    if not data:
        raise Broken
    return data
