from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from totalizer.errors import OperationError
from totalizer.ops.reach import health, local_url, require_free_port


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/health/ready" else 404)
        self.end_headers()
        self.wfile.write("Datenbank fort: ü".encode())

    def log_message(self, *_arguments: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_answer_is_status_and_body(server: HTTPServer) -> None:
    assert health("0.0.0.0", server.server_port) == (503, "Datenbank fort: ü")


def test_a_busy_port_is_refused_with_what_to_do(server: HTTPServer) -> None:
    with pytest.raises(OperationError, match=rf"127.0.0.1:{server.server_port}.*--port N, or PORT=N"):
        require_free_port("127.0.0.1", server.server_port)


def test_nobody_there_is_status_0() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    require_free_port("127.0.0.1", port)
    status, reason = health("127.0.0.1", port)
    assert status == 0
    assert "refused" in reason


def test_another_protocol_is_status_0() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert health("127.0.0.1", other.getsockname()[1])[0] == 0
        thread.join()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OperationError, match=r"192\.0\.2\.1"):
        require_free_port("192.0.2.1", 3000)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("10.0.0.1", "http://10.0.0.1:80")],
)
def test_the_url_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert local_url(host, 80) == url
