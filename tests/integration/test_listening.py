"""What the API listens on: IPv6, a Unix socket, TLS; and whom it believes about a client's address."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import COMMAND, SINGLE, head, rest, served
from support import Stack, unavailable
from totalizer.errors import OperationError
from totalizer.listener import listen
from totalizer.ops.reach import local_url

BODY = json.dumps(COMMAND).encode()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket's address."""
    with tempfile.TemporaryDirectory(prefix="tz") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for `localhost`, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        unavailable("openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


def send(connection: socket.socket, key: str, *more: str) -> bytes:
    connection.sendall(head(key, len(BODY), SINGLE, "connection: close", *more) + BODY)
    return rest(connection)


def test_ipv6(stack: Stack, tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        unavailable(f"IPv6: {error}")
    assert local_url("::", 3000) == "http://[::1]:3000"
    with served(stack.running, tmp_path, HOST="::1") as api, api.connect() as connection:
        assert send(connection, stack.key).startswith(b"HTTP/1.1 202 ")


def test_a_unix_socket_for_owner_and_group(stack: Stack, tmp_path: Path, short_folder: Path) -> None:
    path = short_folder / "api.sock"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    with served(stack.running, tmp_path, "--uds", str(path), TOTALIZER_UDS=str(path)) as api:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(OperationError, match="another process listens on it"):
            listen("", 0, path)
        with api.connect() as connection:
            assert send(connection, stack.key).startswith(b"HTTP/1.1 202 ")
    assert not path.exists()


def test_what_is_no_socket_is_not_replaced(short_folder: Path) -> None:
    (short_folder / "file").write_text("mine")
    with pytest.raises(OperationError, match="something that is no socket"):
        listen("", 0, short_folder / "file")
    assert (short_folder / "file").read_text() == "mine"


def test_a_port_that_is_taken_is_refused(stack: Stack) -> None:
    with pytest.raises(OperationError, match=f"PORT={stack.running.port}"):
        listen("127.0.0.1", stack.running.port)


def test_tls(stack: Stack, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    files = {"TOTALIZER_TLS_CERT": str(certificate[0]), "TOTALIZER_TLS_KEY": str(certificate[1])}
    with served(stack.running, tmp_path, **files) as api:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        plain = socket.create_connection((api.host, api.port), 30)
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            assert send(connection, stack.key).startswith(b"HTTP/1.1 202 ")
        with socket.create_connection((api.host, api.port), 30) as unencrypted:
            unencrypted.sendall(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
            assert b"HTTP/1.1 2" not in rest(unencrypted)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("TOTALIZER_TLS_CERT",), "TOTALIZER_TLS_KEY is missing"),
        (("TOTALIZER_TLS_KEY",), "TOTALIZER_TLS_CERT is missing"),
        (("TOTALIZER_TLS_CERT", "TOTALIZER_TLS_KEY"), "cannot be used: "),
    ],
)
def test_tls_that_cannot_be_used_stops_the_start(stack: Stack, tmp_path: Path, names: tuple[str], told: str) -> None:
    environment = {**os.environ, "TOTALIZER_HOME": str(stack.home), **dict.fromkeys(names, "missing.pem")}
    command = [sys.executable, "-m", "totalizer", "serve"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert told in " ".join(done.stderr.split())


def test_nobody_is_believed_about_a_client(stack: Stack) -> None:
    """An answer does not depend on what a client says a proxy had said."""
    said = ("x-forwarded-for: 10.0.0.1", "x-forwarded-proto: https", "forwarded: for=10.0.0.1;proto=https")
    answers = []
    for more in ((), said):
        with socket.create_connection(("127.0.0.1", stack.running.port), 30) as connection:
            lines = ("GET /api/docs/openapi.json HTTP/1.1", "host: here", "connection: close", *more)
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            answers.append(rest(connection).partition(b"\r\n\r\n")[2])
    assert answers[0] == answers[1] != b""
