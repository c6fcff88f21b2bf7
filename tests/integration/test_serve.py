"""`totalizer serve` in production: several processes, replaced and stopped while requests come."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from serving import COMMAND, SINGLE, Served, head, rest, served
from support import Stack, wait_until
from totalizer.query.completeness import LocalJournals


class Hammer:
    """Clients that send single events as fast as they are answered, each on a connection that it keeps if it may.

    Args:
        api: where to.
        key: API key.
        clients: how many at once.
        keep: False to take a new connection for each event.
    """

    def __init__(self, api: Served, key: str, clients: int = 8, *, keep: bool = True) -> None:
        self._keep = keep
        self._api, self._key, self._end = api, key, threading.Event()
        self.accepted: list[str] = []
        self.wrong: list[object] = []
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        connection = http.client.HTTPConnection(self._api.host, self._api.port, timeout=30)
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        while not self._end.is_set():
            event_id = str(uuid4())
            try:
                connection.request("POST", SINGLE, json.dumps({"id": event_id, **COMMAND}), headers)
                answer = connection.getresponse()
                answer.read()
                if not self._keep:
                    connection.close()
                status: object = answer.status
            except (OSError, http.client.HTTPException) as error:
                status = repr(error)
                connection.close()
            if status == 202:
                self.accepted.append(event_id)
            else:
                self.wrong.append(status)
        connection.close()

    def more(self, count: int = 200) -> None:
        """Wait until so many more events are accepted."""
        goal = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= goal, f"{count} more events")

    def stop(self) -> None:
        """Send no more."""
        self._end.set()
        for thread in self._threads:
            thread.join()


def stored(stack: Stack) -> list[str]:
    stack.drain()
    rows = stack.sql("SELECT id::text FROM events.command_executions WHERE organization_id = %s", stack.organization_id)
    return sorted(row[0] for row in rows)


def test_two_processes_serve_each_with_its_journal_and_a_killed_one_is_replaced(stack: Stack, tmp_path: Path) -> None:
    journals = LocalJournals(stack.home / "journal")
    with served(stack.running, tmp_path, "--workers", "2") as api:
        wait_until(lambda: len(api.workers()) == 2, "two processes")
        before = journals.durable_ends()
        hammer = Hammer(api, stack.key, keep=False)
        try:
            wait_until(
                lambda: sum(end != before.get(id_) for id_, end in journals.durable_ends().items()) >= 2,
                "events in two journals",
            )
            victim = min(api.workers())
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in api.workers() and len(api.workers()) == 2, "a new process")
            hammer.more()
        finally:
            hammer.stop()
    # Those whose answer was cut off may be stored, or not; all that were acknowledged are, once.
    found = stored(stack)
    assert len(found) == len(set(found))
    assert set(hammer.accepted) <= set(found)
    assert len(found) - len(hammer.accepted) <= len(hammer.wrong) <= 8


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_fails_while_all_processes_are_replaced(stack: Stack, tmp_path: Path, workers: str) -> None:
    with served(stack.running, tmp_path, "--workers", workers) as api:
        wait_until(lambda: len(api.workers()) == int(workers), "the processes")
        old = api.workers()
        hammer = Hammer(api, stack.key)
        try:
            hammer.more()
            api.process.send_signal(signal.SIGHUP)
            wait_until(lambda: not old & api.workers() and len(api.workers()) == int(workers), "the reload")
            hammer.more()
        finally:
            hammer.stop()
    assert hammer.wrong == []
    assert stored(stack) == sorted(hammer.accepted)


def test_a_reload_with_settings_that_cannot_be_used_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    with served(stack.running, tmp_path) as api:
        old = api.workers()
        (tmp_path / ".env").write_text("MAX_BATCH_SIZE=none\n")
        api.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in api.log_path.read_text(), "the refusal")
        assert "MAX_BATCH_SIZE='none'" in api.log_path.read_text()
        assert api.workers() == old
        (tmp_path / ".env").write_text("MAX_BATCH_SIZE=2\n")
        api.process.send_signal(signal.SIGHUP)
        wait_until(lambda: bool(api.workers()) and not old & api.workers(), "the reload")
        body = json.dumps({"command_executions": [COMMAND] * 3}).encode()
        with api.connect() as connection:
            connection.sendall(head(stack.key, len(body), "/api/metrics/batch", "connection: close") + body)
            assert b"batch_too_large" in rest(connection)


def test_no_process_outlives_its_parent(stack: Stack, tmp_path: Path) -> None:
    api = Served(stack.running, tmp_path, "--workers", "2")
    api.process.kill()
    api.process.wait()
    wait_until(lambda: not _accepts(api), "the end of the processes")


@pytest.mark.parametrize("ask", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_under_way_is_answered(stack: Stack, tmp_path: Path, ask: signal.Signals) -> None:
    body = json.dumps({"id": str(uuid4()), **COMMAND}).encode()
    with served(stack.running, tmp_path) as api:
        old = api.workers()
        with api.connect() as connection:
            connection.sendall(head(stack.key, len(body)) + body[:10])
            _until_read(api, stack)
            api.process.send_signal(ask)
            _until_letting_go(api, ask)
            connection.sendall(body[10:])
            assert rest(connection).startswith(b"HTTP/1.1 202 ")
        if ask is signal.SIGTERM:
            assert api.process.wait(30) == 0
        else:
            wait_until(lambda: not old & api.workers(), "the end of the old process")
    assert len(stored(stack)) == 1


def _until_read(api: Served, stack: Stack) -> None:
    """Wait until what was sent before has been read: a later request has been answered."""
    body = b"{}"
    with api.connect() as connection:
        connection.sendall(head(stack.key, len(body), SINGLE, "connection: close") + body)
        assert b" 422 " in rest(connection)


def _until_letting_go(api: Served, ask: signal.Signals) -> None:
    if ask is signal.SIGHUP:
        wait_until(lambda: len(api.workers()) == 2, "the next process")
        return
    wait_until(lambda: not _accepts(api), "the end of accepting")


def _accepts(api: Served) -> bool:
    try:
        api.connect().close()
    except ConnectionRefusedError:
        return False
    return True
