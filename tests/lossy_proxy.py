"""A TCP proxy that loses what passes through it: requests on the way there, answers on the way back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

#: What becomes of a piece of a request or an answer: `pass`, `cut` (half of it passes), `lose` (none of it does).
Fate = Callable[[], str]


class LossyProxy:
    """Stands before an HTTP server.

    Args:
        url: of the server.
        request: fate of each piece of a request; after `cut` and `lose` the connection is broken.
        answer: fate of each piece of an answer.
    """

    def __init__(self, url: str, request: Fate = lambda: "pass", answer: Fate = lambda: "pass") -> None:
        parts = urlsplit(url)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self.request, self.answer = request, answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Break all connections and stop."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in tuple(self._open):
            _break(connection)
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(client)
            try:
                server = socket.create_connection(self._target, timeout=30)
            except OSError:
                _break(client)
                continue
            self._open.add(server)
            for source, sink, fate in ((client, server, "request"), (server, client, "answer")):
                thread = threading.Thread(target=self._relay, args=(source, sink, fate))
                thread.start()
                self._threads.append(thread)

    def _relay(self, source: socket.socket, sink: socket.socket, kind: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 20):
                fate = getattr(self, kind)()
                if fate == "cut":
                    sink.sendall(piece[: len(piece) // 2])
                if fate != "pass":
                    break
                sink.sendall(piece)
        _break(source)
        _break(sink)


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def lossy_proxy(url: str, request: Fate = lambda: "pass", answer: Fate = lambda: "pass") -> Iterator[LossyProxy]:
    """A proxy for the length of a with-block."""
    proxy = LossyProxy(url, request, answer)
    try:
        yield proxy
    finally:
        proxy.close()
