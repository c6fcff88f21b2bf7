"""Whether the API's port is free, and whether the API answers: plain sockets, to keep the supervisor small."""

from __future__ import annotations

import socket

from totalizer.errors import OperationError

#: Seconds for one request to the API's health route, which itself waits up to 3 s for a database that is away.
HEALTH_SECONDS_MAX = 4.0
#: Bytes of the health answer that are read.
ANSWER_BYTES_MAX = 16384
HEALTH_PATH = "/health/ready"


def local_address(host: str) -> str:
    """The address under which a server that listens on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host)


def local_url(host: str, port: int) -> str:
    """The base URL of the API as reached from this machine."""
    address = local_address(host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def require_free_port(host: str, port: int) -> None:
    """Make sure that the API will be able to listen.

    Raises:
        OperationError: somebody else listens on the port, or the address is not one of this machine.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a connection that was just closed (TIME_WAIT) does not count as busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise OperationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Stop what uses port {port}, or choose another "
            "one: totalizer up --port N, or PORT=N in the environment"
        ) from error


def health(host: str, port: int) -> tuple[int, str]:
    """Ask the API whether it is ready.

    Returns:
        HTTP status and the start of the answer's body; 0 and the reason when it cannot be reached.
    """
    try:
        answer = _get(local_address(host), port)
    except OSError as error:
        return 0, str(error)
    head, _, body = answer.partition("\r\n\r\n")
    words = head.split(maxsplit=2)
    status = int(words[1]) if len(words) > 1 and words[0].startswith("HTTP/") and words[1].isdigit() else 0
    return status, body.strip()


def _get(address: str, port: int) -> str:
    request = f"GET {HEALTH_PATH} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    answer = b""
    with socket.create_connection((address, port), HEALTH_SECONDS_MAX) as connection:
        connection.settimeout(HEALTH_SECONDS_MAX)
        connection.sendall(request.encode())
        while len(answer) < ANSWER_BYTES_MAX and (piece := connection.recv(ANSWER_BYTES_MAX)):
            answer += piece
    return answer.decode(errors="replace")
