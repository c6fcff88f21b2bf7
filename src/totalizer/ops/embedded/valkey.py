"""Valkey as a child process, on a Unix socket only."""

from __future__ import annotations

import hashlib
import re
import signal
import socket
from pathlib import Path
from typing import Any

from totalizer.ops.embedded.account import clean_environment
from totalizer.ops.embedded.binaries import find_valkey
from totalizer.ops.embedded.server import EmbeddedServer
from totalizer.ops.process import ProcessId

#: Seconds that a probe waits for the server's answer.
PROBE_SECONDS_MAX = 1.0
#: Bytes of an answer that are read; INFO's server section has about 1 kB.
ANSWER_BYTES_MAX = 4096
CONFIG_NAME = "valkey.conf"


class EmbeddedValkey(EmbeddedServer):
    """A Valkey (or Redis) server whose data survive a restart; the last second may be lost with the machine.

    Args:
        home: data folder of the installation; the server's files lie in `<home>/valkey`.
        clock: time source.
    """

    name = "valkey"
    # SIGTERM writes and syncs the append-only file.
    stop_steps = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))

    @property
    def data(self) -> Path:
        """The server's folder."""
        return self.folders.home / "valkey"

    @property
    def socket_path(self) -> Path:
        """The Unix socket."""
        return self.folders.valkey_socket

    @property
    def url(self) -> str:
        """Connection string as redis-py takes it."""
        return f"unix://{self.socket_path}"

    def answers(self) -> bool:
        return self._ask("PING").startswith(b"+PONG")

    def _ask(self, *words: str) -> bytes:
        """The start of the answer to one command; empty if there is no server."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PROBE_SECONDS_MAX)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(request.encode())
                return connection.recv(ANSWER_BYTES_MAX)
            except OSError:  # not there yet, or not listening yet
                return b""

    def _config(self) -> str:
        # Paths are relative to the server's working folder, so that none needs quoting; the socket's is plain.
        return "\n".join(
            (
                "# Written by `totalizer up` at every start.",
                "port 0",
                f"unixsocket {self.socket_path}",
                "unixsocketperm 700",
                "dir ./",
                "daemonize no",
                'logfile ""',
                'save ""',
                "appendonly yes",
                "appendfsync everysec",
                "maxmemory-policy noeviction",
                "always-show-logo no",
                "",
            )
        )

    def _prepare(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        path = self.data / CONFIG_NAME
        path.write_text(self._config())
        path.chmod(0o600)

    def _fingerprint(self) -> str:
        program = Path(find_valkey())
        parts = (str(program), str(program.stat().st_mtime_ns), self._config())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _find_running(self) -> ProcessId | None:
        match = re.search(rb"\bprocess_id:(\d+)", self._ask("INFO", "server"))
        return ProcessId.of(int(match[1])) if match else None

    def _before_launch(self) -> None:
        self.socket_path.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        return [find_valkey(), CONFIG_NAME]

    def _launch_options(self) -> dict[str, Any]:
        return {"cwd": self.data, "env": clean_environment(), "umask": 0o077}

    def _after_stop(self) -> None:
        self.socket_path.unlink(missing_ok=True)
