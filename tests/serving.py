"""`totalizer serve` beside a running stack, on the same data folder: its journals are loaded by the stack's loader."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from support import RunningStack, free_port, of_each, wait_until

COMMAND = {
    "user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "plan", "execution_time_ms": 15,
    "status": "success",
}  # fmt: skip
SINGLE = "/api/metrics/commands"


class Served:
    """One `totalizer serve`.

    Args:
        running: whose database, Redis and, unless settings say otherwise, data folder.
        folder: for the log.
        settings: by variable.
    """

    def __init__(self, running: RunningStack, folder: Path, *arguments: str, **settings: str) -> None:
        self.host, self.port = settings.get("HOST", "127.0.0.1"), free_port()
        self.uds, self.tls = settings.get("TOTALIZER_UDS"), "TOTALIZER_TLS_CERT" in settings
        state = json.loads((running.home / "run" / "state.json").read_text())
        self.log_path = folder / "serve.log"
        environment = {
            **os.environ, "DATABASE_URL": state["dsn"], "REDIS_URL": state["redis_url"], "PORT": str(self.port),
            "TOTALIZER_SECRET": (running.home / "secret").read_text().strip(), "TOTALIZER_HOME": str(running.home),
            "RATE_LIMIT_MAX_REQUESTS": "0", **settings,
        }  # fmt: skip
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "totalizer", "serve", *arguments],
                env=environment, cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            wait_until(self._ready, "totalizer serve")
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            with self.connect() as connection:
                connection.sendall(b"GET /health/ready HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
                return b" 200 " in connection.recv(1000).split(b"\r\n")[0]
        except OSError:
            return False

    def connect(self) -> socket.socket:
        """A connection to it, with TLS if it speaks that; nothing is sent yet."""
        if self.uds is not None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(30)
            connection.connect(self.uds)
        else:
            connection = socket.create_connection((self.host, self.port), 30)
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context.wrap_socket(connection)
        return connection

    def workers(self) -> set[int]:
        """The process ids of those that serve, and of those that still end."""
        children = psutil.Process(self.process.pid).children()
        states = of_each(children, lambda child: (child.pid, child.status()))
        return {pid for pid, status in states if status != psutil.STATUS_ZOMBIE}

    def stop(self) -> int:
        """End it; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def served(running: RunningStack, folder: Path, *arguments: str, **settings: str) -> Iterator[Served]:
    """One `totalizer serve` for the length of a with-block."""
    api = Served(running, folder, *arguments, **settings)
    try:
        yield api
    finally:
        code = api.stop()
        assert code == 0, f"exit code {code}\n{api.log_path.read_text()}"


@contextmanager
def second_api(running: RunningStack, folder: Path, **settings: str) -> Iterator[str]:
    """The address of one as on another machine: its data folder and journal are its own, and nobody loads that.

    Args:
        running: whose database and Redis.
        folder: an empty one.
        settings: by variable, stronger than what follows from the stack.
    """
    with served(running, folder, TOTALIZER_HOME=str(folder / "home"), **settings) as api:
        yield f"http://{api.host}:{api.port}"


def head(key: str, length: int, path: str = SINGLE, *more: str) -> bytes:
    """The header of a POST of JSON."""
    lines = [
        f"POST {path} HTTP/1.1", "host: here", f"authorization: Bearer {key}", "content-type: application/json",
        f"content-length: {length}", *more,
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    pieces = b""
    while piece := connection.recv(65536):
        pieces += piece
    return pieces
