"""A stand-in for the server's batch route: it keeps the contract, until it is told to break it in one of many ways."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "tz_standin_0123456789"
PATH = "/api/metrics/batch"


class Request:
    """What came in one request."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.path, self.sent = handler.path, body
        packed = self.headers.get("content-encoding") == "gzip"
        self.body = gzip.decompress(body) if packed else body

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in it."""
        found: list[dict[str, Any]] = json.loads(self.body)["time_entries"]
        return found


#: What to do with a request: a status, with or without a document and headers; bytes to send as they are; or a word:
#: `store`, `drop` (hang up before storing), `lose` (hang up after it), `cut` (send half of the answer), `silent`,
#: `drip` (send the answer byte by byte without end), `drip head` (the same with a header), `endless` (an answer without
#: end), `close` (answer, then close the connection without saying so).
Act = int | tuple[Any, ...] | bytes | str | Callable[[Request], Any]


class StandinServer:
    """A server on a free port.

    Attributes:
        script: what to do with the next requests, one each; after that `always`.
        stored: events by id, as a server counts them: a resend finds itself.
        requests: all of them.
        refuse: given an event, why it is not taken (None, a code, or a whole item).
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.script: list[Act] = []
        self.always: Act = "store"
        self.stored: dict[str, dict[str, Any]] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.refuse: Callable[[dict[str, Any]], Any] = lambda event: None
        self.events_max = 1000
        self._lock, self._closing = threading.Lock(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer.connections += 1

            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                return  # a client that hangs up is part of the tests

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        request = Request(handler, handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(request)
            act: Any = self.script.pop(0) if self.script else self.always
        if callable(act):
            act = act(request)
        match act:
            case "store":
                send(handler, *self.take(request))
            case "drop":
                hang_up(handler)
            case "lose":
                self.take(request)
                hang_up(handler)
            case "cut":
                answer = raw(*self.take(request))
                handler.connection.sendall(answer[: len(answer) - 5])
                hang_up(handler)
            case "close":
                send(handler, *self.take(request))
                hang_up(handler)
            case "silent":
                self._closing.wait(20)
                hang_up(handler)
            case "drip" | "drip head" | "endless":
                self._trickle(handler, act)
            case bytes():
                handler.connection.sendall(act)
                hang_up(handler)
            case int():
                send(handler, act, {"title": "scripted", "detail": f"scripted {act}"})
            case _:
                send(handler, *act)

    def _trickle(self, handler: BaseHTTPRequestHandler, act: str) -> None:
        head = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n"
        handler.connection.sendall(head + (b"X-Drip: " if act == "drip head" else b"\r\n"))
        piece, pause_s = (b" " * 65536, 0.0) if act == "endless" else (b" ", 0.02)
        with contextlib.suppress(OSError):
            while not self._closing.wait(pause_s):
                handler.connection.sendall(piece)
        handler.close_connection = True

    def take(self, request: Request) -> tuple[int, dict[str, Any]]:
        """The real server's work, in short."""
        if request.path != PATH or request.headers["content-type"] != "application/json":
            return 404, {"code": "not_found", "detail": "no such path"}
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return 401, {"code": "unauthenticated", "detail": "this API key is unknown, revoked or expired"}
        if len(request.events) > self.events_max:
            return 422, {"code": "batch_too_large", "detail": f"send at most {self.events_max}"}
        items = []
        with self._lock:
            for index, event in enumerate(request.events):
                refusal = self.refuse(event)
                if refusal is None:
                    self.stored.setdefault(event["id"], event)
                    continue
                item = {"status": "rejected", "code": "invalid_event", "message": refusal}
                items.append({"event_type": "time_entries", "index": index} | item
                             if isinstance(refusal, str) else refusal | {"index": index})  # fmt: skip
        if len(items) == len(request.events):
            return 422, {"code": "invalid_event", "detail": "none can be accepted", "items": items}
        return 202, {"accepted": len(request.events) - len(items), "rejected": len(items), "items": items}


def raw(status: int, document: Any, headers: dict[str, str] | None = None) -> bytes:
    """An answer's bytes."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode() + content


def send(handler: BaseHTTPRequestHandler, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
    """Answer in one packet."""
    handler.connection.sendall(raw(status, document, headers))


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """End the connection now."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def standin_server(context: ssl.SSLContext | None = None) -> Iterator[StandinServer]:
    """A server for the length of a with-block."""
    server = StandinServer(context)
    try:
        yield server
    finally:
        server.close()
