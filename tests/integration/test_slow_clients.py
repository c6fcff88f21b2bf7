"""What a connection may cost: slow heads, slow bodies, idle and many connections, and a full journal."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from serving import COMMAND, SINGLE, Served, head, rest, served
from support import RunningStack, Stack

# More for headers: on a busy machine the server itself may take a second to look at one that is there.
LIMITS = {"TOTALIZER_HEADER_TIMEOUT_MS": "4000", "TOTALIZER_BODY_TIMEOUT_MS": "1000", "TOTALIZER_CONNECTIONS_MAX": "3"}
BODY = json.dumps(COMMAND).encode()


@pytest.fixture(scope="module")
def api(running_stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(running_stack, tmp_path_factory.mktemp("strict"), **LIMITS) as strict:
        yield strict


def trickle(connection: socket.socket, text: bytes) -> bytes:
    """Send it byte by byte, ten in a second, until the server answers or closes; what it said."""
    connection.settimeout(0.1)
    for place in range(len(text)):
        try:
            connection.sendall(text[place : place + 1])
            return connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError(f"all {len(text)} bytes were waited for")


def test_a_connection_on_which_nothing_comes_is_closed(api: Served) -> None:
    with api.connect() as connection:
        assert rest(connection) == b""


def test_who_goes_away_in_the_middle_of_a_body_is_no_error(api: Served, stack: Stack) -> None:
    for path in (SINGLE, "/api/metrics/query", SINGLE):
        with api.connect() as connection:
            connection.sendall(head(stack.key, 100, path) + b"{")
            time.sleep(0.2)  # until the body is waited for
    with api.connect() as connection:
        connection.sendall(head(stack.key, len(BODY)) + BODY)
        assert b" 202 " in connection.recv(200)
    assert "Traceback" not in api.log_path.read_text()


def test_half_a_header_is_not_waited_for(api: Served, stack: Stack) -> None:
    with api.connect() as connection:
        connection.sendall(head(stack.key, 10)[:50])
        assert b" 202 " not in rest(connection)


def test_a_header_that_trickles_is_not_waited_for(api: Served) -> None:
    with api.connect() as connection:
        assert b" 2" not in trickle(connection, b"GET / HTTP/1.1\r\nhost: here\r\nx: " + b"y" * 400)[:13]


def test_a_connection_without_further_requests_is_closed(api: Served) -> None:
    with api.connect() as connection:
        connection.sendall(b"GET /health/ready HTTP/1.1\r\nhost: here\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [SINGLE, "/api/metrics/batch", "/api/keys", "/"])
def test_half_a_body_is_not_waited_for(api: Served, stack: Stack, path: str) -> None:
    with api.connect() as connection:
        connection.sendall(head(stack.key, 100, path) + BODY[:10])
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_timeout"' in answer


def test_a_body_that_trickles_is_not_waited_for(api: Served, stack: Stack) -> None:
    with api.connect() as connection:
        connection.sendall(head(stack.key, 400))
        assert trickle(connection, b" " * 400).startswith(b"HTTP/1.1 408 ")


def test_a_body_in_chunks_that_trickle_is_not_waited_for(api: Served, stack: Stack) -> None:
    chunked = head(stack.key, 0, SINGLE, "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
    with api.connect() as connection:
        connection.sendall(chunked)
        assert trickle(connection, b"1\r\n \r\n" * 60).startswith(b"HTTP/1.1 408 ")


def test_a_stream_may_take_longer_as_long_as_something_comes(api: Served, stack: Stack) -> None:
    line = json.dumps({"id": str(uuid4()), **COMMAND}).encode() + b"\n"
    start = head(stack.key, 10 * len(line)).replace(b"application/json", b"application/x-ndjson")
    with api.connect() as connection:
        connection.sendall(start)
        for _ in range(8):
            time.sleep(0.25)
            connection.sendall(line)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"lines":8' in answer


def test_connections_beyond_the_cap_wait_until_others_end(api: Served, stack: Stack) -> None:
    idle = [api.connect() for _ in range(3)]
    try:
        with api.connect() as connection:
            connection.sendall(head(stack.key, len(BODY), SINGLE, "connection: close") + BODY)
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(30)
            assert rest(connection).startswith(b"HTTP/1.1 202 ")
    finally:
        for other in idle:
            other.close()


def test_a_full_journal_is_told_to_each_of_many_connections(stack: Stack, tmp_path: Path) -> None:
    home = {"TOTALIZER_HOME": str(tmp_path / "home"), "TOTALIZER_JOURNAL_QUOTA_BYTES": str(2 << 20)}
    batch = json.dumps({"command_executions": [{**COMMAND, "command_name": "x" * 100}] * 900}).encode()
    with served(stack.running, tmp_path, TOTALIZER_JOURNAL_SEGMENT_BYTES=str(1 << 20), **home) as full:

        def send(_: int) -> bytes:
            with full.connect() as connection:
                connection.sendall(head(stack.key, len(batch), "/api/metrics/batch", "connection: close") + batch)
                return rest(connection)

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(send, range(64)))
    kinds = {answer.split(b" ")[1] for answer in answers}
    assert kinds == {b"202", b"503"}
    refused = [answer.lower() for answer in answers if answer.split(b" ")[1] == b"503"]
    assert all(b"retry-after: 5" in answer and b'"code":"journal_full"' in answer for answer in refused)
