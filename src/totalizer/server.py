"""The HTTP server: its processes, how they take over from one another, and what a connection may cost.

A reload (SIGHUP) starts a new process before it lets go of an old one. The old one then accepts no more connections,
answers what comes on those it has and closes each with its answer, and ends after DRAIN_S.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.mp import MPServer, WorkerProcess

from totalizer.errors import ConfigurationError, TotalizerError
from totalizer.listener import BACKLOG, listen, remove_unix
from totalizer.settings import Settings
from totalizer.telemetry import logger

#: Seconds a request may take to finish when the API is asked to stop.
STOP_TIMEOUT_S = 10
#: Seconds in which a process that is replaced answers what still comes on its connections, closing each.
DRAIN_S = 2.0
#: Seconds that a new process gets until the old one lets go. What comes between waits to be accepted.
TAKE_OVER_S = 2.0
#: Asks a process to let go, see DRAIN_S.
DRAIN_SIGNAL = signal.SIGUSR1
#: Asks a process to end: as SIGTERM, but live connections are told so first, for at most LEAVE_S seconds.
STOP_SIGNAL, LEAVE_S = signal.SIGUSR2, 1.0

#: Threads of the server beside one for each connection; they are made when they are needed.
SERVER_THREADS_SPARE = 64

Check = Callable[[], object]


class Worker(WorkerProcess):
    """One API process, as its parent sees it."""

    parent: Server

    def terminate(self) -> None:
        """Ask it to end: at once when all shall stop, after its connections were let go when it is replaced."""
        if self.inner.is_alive():
            self.interrupt_by_parent = True
            os.kill(self.inner.pid, DRAIN_SIGNAL if self.parent.replacing else STOP_SIGNAL)
        else:
            super().terminate()  # type: ignore[no-untyped-call]


class Server(MPServer):
    """The parent of the API processes.

    Args:
        settings: where it listens, and its limits.
        check: raises if the API could not start with what is set at present; a reload is refused then.

    Raises:
        ConfigurationError: certificate and key cannot be used.
        OperationError: the address cannot be listened on.
    """

    def __init__(self, settings: Settings, check: Check) -> None:
        certificate, key = tls_of(settings)
        self._check, self.replacing = check, False
        self.listener: socket.socket = listen(settings.host, settings.port, settings.uds)
        super().__init__(
            "totalizer.serve", factory=True, interface=Interfaces.RSGI, address=settings.host, port=settings.port,
            uds=settings.uds, workers=settings.workers, backlog=BACKLOG, backpressure=settings.connections_max,
            # With HTTP/2 switched on, the server would wait without limit for the first byte of a connection.
            http=HTTPModes.http1, http1_settings=HTTP1Settings(header_read_timeout=settings.header_timeout_ms),
            websockets=True, respawn_failed_workers=True, respawn_interval=TAKE_OVER_S,
            # A body that is sent while it is made is waited for in a thread.
            runtime_blocking_threads=settings.connections_max + SERVER_THREADS_SPARE,
            workers_kill_timeout=STOP_TIMEOUT_S, log_level=LogLevels.warning, loop=Loops.uvloop,
            ssl_cert=certificate, ssl_key=key, ssl_protocol_min=SSLProtocols.tls12,
        )  # fmt: skip

    def _init_shared_socket(self) -> None:
        descriptor, unix = self.listener.fileno(), self.listener.family == socket.AF_UNIX
        self.listener.set_inheritable(True)
        arguments = (descriptor, unix, BACKLOG) if sys.platform == "linux" else (descriptor, unix)
        holder: Any = SocketHolder(*arguments)
        self._ssp, self._shd, self._sso = None, holder, self.listener

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> Worker:  # type: ignore[override]
        made = super()._spawn_worker(idx, target, callback_loader)
        made.__class__ = Worker  # the server names the class it makes
        assert isinstance(made, Worker)
        return made

    def _reload(self, spawn_target: Any, target_loader: Any) -> None:
        try:
            self._check()
        except TotalizerError as error:
            logger().error("not reloaded, the old settings stay in force", reason=str(error))
            self.reload_signal = False
            self.main_loop_interrupt.clear()
            return
        logger().info("reloading", workers=self.workers)
        self.replacing = True
        try:
            super()._reload(spawn_target, target_loader)  # type: ignore[no-untyped-call]
        finally:
            self.replacing = False
        logger().info("reloaded", workers=self.workers)

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop all processes, and remove the Unix socket."""
        if self.bind_uds is not None:
            remove_unix(self.bind_uds)
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]


def tls_of(settings: Settings) -> tuple[Path | None, Path | None]:
    """Certificate and key; None and None without TLS.

    Raises:
        ConfigurationError: only one is named, or they cannot be used.
    """
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None and key is None:
        return None, None
    if certificate is None or key is None:
        missing = "TOTALIZER_TLS_CERT" if certificate is None else "TOTALIZER_TLS_KEY"
        raise ConfigurationError(f"{missing} is missing: TLS needs the certificate and its key; set both, or neither")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TOTALIZER_TLS_CERT={certificate}, TOTALIZER_TLS_KEY={key}: cannot be used: {error}; both must be PEM "
            "files, the key that of the certificate and without a password"
        ) from error
    return certificate, key


def _no_password() -> str:
    raise ValueError("the key is encrypted")
