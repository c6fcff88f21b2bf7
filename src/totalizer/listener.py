"""The socket that all API processes of a machine accept connections from: TCP, IPv4 or IPv6, or a Unix socket.

One socket for all, and not one for each: a process that ends takes no waiting connection with it, since the next one
accepts it. That is what makes a reload unnoticed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from totalizer.errors import OperationError

#: Connections waiting to be accepted.
BACKLOG = 2048
#: Permissions of a Unix socket: its owner and its group may connect, nobody else.
UDS_MODE = 0o660


def listen(host: str, port: int, uds: Path | None = None) -> socket.socket:
    """A listening socket.

    Args:
        host: an address or name of this machine; not used with `uds`.
        port: TCP port, 1 to 65535, or 0 for any; not used with `uds`.
        uds: path of a Unix socket to listen on instead. One that a process left behind is replaced.

    Raises:
        OperationError: somebody else listens there, or the address or path cannot be used.
    """
    return listen_tcp(host, port) if uds is None else listen_unix(uds)


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket; the arguments and errors are those of `listen`."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise OperationError(
            f"cannot listen on HOST={host}, PORT={port}: {error.strerror or error}. Choose another address or port, or "
            "stop what uses this one"
        ) from error
    # Connections inherit it; an answer must not wait for the receipt of the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket with permissions UDS_MODE; the errors are those of `listen`."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_left_over(path)
        # Nobody may connect before the permissions are right.
        mask = os.umask(0o777 & ~UDS_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        path.chmod(UDS_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OperationError(f"cannot listen on TOTALIZER_UDS={path}: {error.strerror or error}") from error
    return listener


def _remove_left_over(path: Path) -> None:
    """Remove a socket nobody listens on; OSError if it is something else, or in use."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"there is something that is no socket at {path}")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError("another process listens on it")


def remove_unix(path: Path) -> None:
    """Remove the path of a Unix socket, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def stop_accepting(descriptor: int) -> None:
    """Accept nothing more in this process; the others that share the socket go on.

    The server offers no way to stop accepting without closing its connections too. So the descriptor it accepts from is
    given to a socket that nobody can reach; what waits stays with the other processes.

    Args:
        descriptor: of the listening socket in this process.
    """
    with socket.socket(fileno=os.dup(descriptor)) as shared:
        family = shared.family
    with socket.socket(family) as mute:
        if family != socket.AF_UNIX:
            mute.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
            mute.listen(1)
        mute.setblocking(False)
        os.dup2(mute.fileno(), descriptor)
