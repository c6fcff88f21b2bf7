"""One request and its answer over a kept-alive connection, within a time and a number of bytes."""

from __future__ import annotations

import io
import os
import socket
import ssl
from collections.abc import Mapping
from threading import Lock
from typing import Any, cast
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, SSLError

from totalizer.clock import Clock
from totalizer.edge.sinks.answer import NoReply, Reply
from totalizer.edge.sinks.retry_after import retry_after_s

#: Bytes of the longest answer that is read: a thousand refusals of a kilobyte and some room.
ANSWER_BYTES_MAX = 4 << 20
#: Bytes asked of a connection at a time.
_CHUNK_BYTES = 64 << 10


class Deadline:
    """The end of an exchange, shared with the connection it runs over.

    Args:
        clock: for the seconds left.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._seconds, self._end = clock, 0.0, 0.0
        #: Connections made so far.
        self.connects = 0

    def start(self, seconds: float) -> None:
        """Set the end to `seconds` from now."""
        self._seconds, self._end = seconds, self._clock.monotonic() + seconds

    def connected(self) -> None:
        """Note a new connection, which had a time limit of its own: the seconds begin now."""
        self.connects += 1
        self.start(self._seconds)

    def left_s(self) -> float:
        """Seconds left, more than 0.

        Raises:
            TimeoutError: none.
        """
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("the whole answer took too long")
        return left


class _TimedReader(io.RawIOBase):
    """Reads from a socket until a deadline, however slowly the bytes drip."""

    def __init__(self, raw: io.RawIOBase, timed: TimedSocket) -> None:
        self._raw, self._timed = raw, timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._timed.hurry()
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class TimedSocket:
    """A connected socket, all of whose calls together end by a deadline. A plain time limit would start anew with
    every byte that comes.

    Args:
        inner: the socket, plain or TLS.
        deadline: looked at before every call.
    """

    def __init__(self, inner: socket.socket, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def fileno(self) -> int:
        """The descriptor."""
        return self._inner.fileno()

    def hurry(self) -> None:
        """Let the next call take no longer than what is left. TimeoutError if nothing is."""
        self._inner.settimeout(self._deadline.left_s())

    def sendall(self, data: Any) -> None:
        """Send all of `data`."""
        self.hurry()
        self._inner.sendall(data)

    def makefile(self, *_arguments: Any, **_options: Any) -> io.BufferedReader:
        """A reader of what comes."""
        raw = cast(io.RawIOBase, self._inner.makefile("rb", buffering=0))
        return io.BufferedReader(_TimedReader(raw, self))


class _Connection(HTTPConnection):
    def __init__(self, *arguments: Any, deadline: Deadline, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.connected()
        self.sock = cast(socket.socket, TimedSocket(self.sock, self._deadline))


class _SecureConnection(HTTPSConnection):
    def __init__(self, *arguments: Any, deadline: Deadline, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.connected()
        self.sock = cast(socket.socket, TimedSocket(cast(socket.socket, self.sock), self._deadline))


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Transport:
    """The connection of one process to one server. One exchange at a time: hold `lock`.

    Args:
        url: of the requests, `http://host:port/path` or https.
        connect_timeout_s: for each address of the host, and for each step of a TLS handshake.
        ca_bundle: file or folder of certificates to trust instead of the system's.
        clock: for the time limits.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, ca_bundle: str | None, clock: Clock) -> None:
        parts = urlsplit(url)
        self._path, self._clock, self._connect_timeout_s = parts.path, clock, connect_timeout_s
        self._deadline = Deadline(clock)
        self.lock, self.pid = Lock(), os.getpid()
        kind, options = (_Pool, {}) if parts.scheme == "http" else (_SecurePool, _trust(ca_bundle))
        self._pool = kind(
            cast(str, parts.hostname), parts.port, maxsize=1, block=False, deadline=self._deadline, **options
        )

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """Send a request and read its answer.

        Args:
            body: of the request.
            headers: of the request.
            timeout_s: for all from the first byte sent to the last one read.

        Raises:
            NoReply: there was none within the time, or it was cut, or longer than ANSWER_BYTES_MAX.
        """
        before = self._deadline.connects
        try:
            try:
                return self._exchange(body, headers, timeout_s)
            except ProtocolError as error:
                # A server may close an idle connection just when it is used again; that says nothing about the server.
                dropped = any(isinstance(cause, ConnectionError) for cause in error.args)
                if not dropped or self._deadline.connects != before:
                    raise
                return self._exchange(body, headers, timeout_s)
        except (HTTPError, OSError) as error:
            raise NoReply(_reason(error)) from None

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def _exchange(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        self._deadline.start(timeout_s)
        response = self._pool.urlopen(
            "POST", self._path, body=body, headers=dict(headers), retries=False, redirect=False, preload_content=False,
            decode_content=False, timeout=urllib3.Timeout(connect=self._connect_timeout_s, read=timeout_s),
        )  # fmt: skip
        try:
            content = _read(response)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        wait_s = retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date"), self._clock.now_ns())
        return Reply(response.status, wait_s, content)


def _trust(ca_bundle: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED"}
    if ca_bundle is not None:
        options["ca_cert_dir" if os.path.isdir(ca_bundle) else "ca_certs"] = ca_bundle
    return options


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    chunks, size = [], 0
    while chunk := response.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            raise ProtocolError(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _reason(error: Exception) -> str:
    """What happened, in words for people; urllib3's own name objects and addresses in memory."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, SSLError) or isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause or error}; if its certificate is of your own authority, name it with ca_bundle"
    if isinstance(error, NewConnectionError) and cause is not None:
        return f"no connection: {cause}"
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
        return f"no whole answer in time ({type(error).__name__})"
    return f"the exchange broke off: {error}"
