"""Exports whose client stands still or goes away, or whose database does, and the memory they take."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.query.test_export_over_http import export, may_export
from serving import served
from support import new_organization, wait_until

ROWS = 60_000
FILL = (
    "INSERT INTO events.command_executions (organization_id, executed_at, id, received_at, user_id, command_name, "
    "execution_time_ms, status) SELECT organization_id, '2025-04-03T00:00:00Z'::timestamptz + n * interval '1 s', "
    "gen_random_uuid(), now(), organization_id, repeat('x', %s), 1, 'success' "
    "FROM generate_series(1, %s) AS n, (SELECT %s::uuid AS organization_id) AS whose"
)
#: As the loader does; what is stored without is a difference to who compares the books.
MARK = (
    "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
    "SELECT DISTINCT organization_id, 'command_executions', date_bin('15 min', executed_at, '2000-01-01Z') "
    "FROM events.command_executions WHERE organization_id = %s"
)
#: 100 MB of CSV, which PostgreSQL keeps compressed.
LONG_ROWS, LONG_BYTES = 40_000, 2_500


@contextmanager
def filled(running: Any, rows: int, name_bytes: int) -> Iterator[Any]:
    """An organisation with that many events, whose names have that length."""
    stack = may_export(new_organization(running))
    with running.connect(None) as connection:
        connection.execute("SELECT totalizer.ensure_partition('command_executions', '2025-04-03')")
        with connection.transaction():
            connection.execute(FILL, [name_bytes, rows, stack.organization_id])
            connection.execute(MARK, [stack.organization_id])
    yield stack
    with running.connect(None) as connection:
        connection.execute("DELETE FROM events.command_executions WHERE organization_id = %s", [stack.organization_id])


@pytest.fixture(scope="module")
def large(running_stack: Any) -> Iterator[Any]:
    """An organisation with more events than sockets hold."""
    with filled(running_stack, ROWS, 200) as stack:
        yield stack


def begin(api: Any, stack: Any, form: str = "csv") -> socket.socket:
    """A client that has read the beginning of an export, and no more."""
    connection = api.connect()
    connection.sendall(
        f"GET /api/metrics/export/{form} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {stack.key}\r\n\r\n".encode()
    )
    assert b" 200 " in connection.recv(100)
    return connection


def to_the_end(connection: socket.socket) -> bytes:
    """What still comes."""
    pieces = []
    try:
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
            if pieces[-1].endswith(b"0\r\n\r\n"):
                break
    except OSError:
        pass
    return b"".join(pieces)


def test_a_client_that_goes_away_makes_room(large: Any, tmp_path: Path) -> None:
    with served(large.running, tmp_path, WORKERS="1") as api:
        for client in [begin(api, large) for _ in range(2)]:
            client.close()

        def room() -> bool:
            with begin_again(api, large) as again:
                return b" 200 " in again.recv(200)

        wait_until(room, "room for another export")


def begin_again(api: Any, stack: Any) -> socket.socket:
    connection: socket.socket = api.connect()
    head = f"GET /api/metrics/export/csv?limit=1 HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {stack.key}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


@contextmanager
def nobody_logs_in(running: Any) -> Iterator[None]:
    """The app role has no connections to the database, and gets none, for the length of a with-block."""
    with running.connect(None) as administrator:
        administrator.execute("ALTER ROLE totalizer_app NOLOGIN")
        try:
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'totalizer_app'"
            )
            yield
        finally:
            administrator.execute("ALTER ROLE totalizer_app LOGIN")


def test_an_export_that_breaks_off_does_not_look_whole(large: Any, tmp_path: Path) -> None:
    """Between two pages no connection is needed, so the database must be away for longer than for a moment."""
    with served(large.running, tmp_path, WORKERS="1", TOTALIZER_EXPORT_SPOOL_BYTES="0") as api:
        with begin(api, large) as client:
            with nobody_logs_in(large.running):
                end = to_the_end(client)
            assert end.endswith(b'"the export broke off here\r\n0\r\n\r\n'), end[-200:]

        def well() -> bool:
            with begin_again(api, large) as again:
                return b" 200 " in again.recv(200)

        wait_until(well, "new connections to the database")
        with begin(api, large) as client:
            end = to_the_end(client)
            assert end.endswith(b"Z\r\n\r\n0\r\n\r\n"), end[-200:]


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet"])
def test_memory_does_not_grow_with_the_rows(large: Any, tmp_path: Path, form: str) -> None:
    with served(large.running, tmp_path, WORKERS="1") as api:
        stack = type("At", (), {"url": f"http://{api.host}:{api.port}", "key": large.key})
        [worker] = api.workers()
        export(stack, form, limit=2_000)
        before = psutil.Process(worker).memory_info().rss
        data = export(stack, form).data
        assert len(data) > (100_000 if form == "parquet" else 10_000_000)
        grown = psutil.Process(worker).memory_info().rss - before
        assert grown < 40 << 20, f"{grown >> 20} MiB for {ROWS} rows"


def read_on(connection: socket.socket) -> tuple[int, bytes]:
    """How much still comes, and the end of it."""
    count, end = 0, b""
    while not end.endswith(b"\r\n0\r\n\r\n"):
        piece = connection.recv(1 << 20)
        assert piece, f"the connection ended after {count} bytes: {end!r}"
        count, end = count + len(piece), (end + piece)[-100:]
    return count, end


def test_what_clients_do_not_take_waits_on_disk_and_not_in_memory(running_stack: Any, tmp_path: Path) -> None:
    """
    disk 128 MiB  |1 1 1 1 1 1 1 1|2 2|  the second has no room after 28 MiB, and is let go
    """
    room = {"TOTALIZER_EXPORT_SPOOL_BYTES": str(128 << 20), "TOTALIZER_EXPORT_CLIENT_TIMEOUT_MS": "300"}
    with (
        filled(running_stack, LONG_ROWS, LONG_BYTES) as stack,
        served(running_stack, tmp_path, WORKERS="1", TOTALIZER_EXPORT_CONCURRENCY="1", **room) as api,
    ):
        [worker] = api.workers()
        with begin_again(api, stack) as first:
            assert b" 200 " in first.recv(200)
        before = psutil.Process(worker).memory_info().rss
        with begin(api, stack) as one:

            def made() -> bool:
                with begin_again(api, stack) as again:
                    return b" 200 " in again.recv(200)

            wait_until(made, "the turn of the next export")
            with begin(api, stack) as two:
                wait_until(lambda: "an export broke off" in api.log_path.read_text(), "the second to be let go")
                assert "TOTALIZER_EXPORT_CLIENT_TIMEOUT_MS" in api.log_path.read_text()
                grown = psutil.Process(worker).memory_info().rss - before
                assert grown < 80 << 20, f"{grown >> 20} MiB for two exports of {LONG_ROWS * LONG_BYTES >> 20} MiB"
                count, end = read_on(one)
                assert count > LONG_ROWS * LONG_BYTES
                assert end.endswith(b"Z\r\n\r\n0\r\n\r\n"), "who reads on gets all of it"
                count, end = read_on(two)
                assert 20 << 20 < count < 60 << 20
                assert end.endswith(b'"the export broke off here\r\n0\r\n\r\n')
