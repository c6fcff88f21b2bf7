"""A local webhook: what alerts are sent to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Takes messages in apprise's form, and keeps them.

    Attributes:
        messages: in the order in which they came.
        refuses: True to answer 500.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refuses = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if not outer.refuses:
                    outer.messages.append(json.loads(body))
                self.send_response(500 if outer.refuses else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def told(self, *words: str) -> list[dict[str, Any]]:
        """The messages in which all these words are."""
        return [one for one in self.messages if all(word in f"{one['title']} {one['message']}" for word in words)]

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def webhook() -> Iterator[Webhook]:
    """One for the length of a with-block."""
    hook = Webhook()
    try:
        yield hook
    finally:
        hook.close()
