"""What breaks around a running stack costs no acknowledged event and counts none twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support import RunningStack, Stack, kill_tree, new_organization, unavailable, wait_until
from totalizer.ops.embedded import EmbeddedPostgres
from totalizer.store.roles import Role

HTTP = urllib3.PoolManager(retries=False, timeout=30, maxsize=16)
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
COMMAND = {"user_id": USER, "command_name": "plan", "execution_time_ms": 1500, "status": "success"}


def post(stack: Stack, *events: dict[str, Any]) -> Any:
    """Send a batch; the answer."""
    return HTTP.request(
        "POST",
        stack.url + "/api/metrics/batch",
        body=json.dumps({"command_executions": [{**COMMAND, **event} for event in events]}).encode(),
        headers={"authorization": f"Bearer {stack.key}", "content-type": "application/json"},
    )


def stored(stack: Stack) -> int:
    """Rows of the organisation."""
    with stack.running.connect(Role.REFRESHER) as connection:
        row = connection.execute(
            "SELECT count(*) FROM events.command_executions WHERE organization_id = %s", [stack.organization_id]
        ).fetchone()
    assert row is not None
    return int(row[0])


def rolled_up(stack: Stack) -> int:
    """Executions of the organisation in its days."""
    rows = stack.sql(
        "SELECT coalesce(sum(executions), 0)::int FROM analytics.command_usage_1d WHERE organization_id = %s",
        stack.organization_id,
    )
    return int(rows[0][0])


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that a test may break."""
    running = RunningStack(tmp_path / "home")
    try:
        yield new_organization(running)
    finally:
        running.stop()


def test_database_away_while_running(tmp_path: Path) -> None:
    """Ingest goes on into the journal up to its quota, then 503; back again, all is loaded once."""
    secret = "a secret of this test"
    with EmbeddedPostgres(tmp_path / "database", secret) as server:
        running = RunningStack(
            tmp_path / "home",
            DATABASE_URL=server.dsn("postgres", "totalizer"),
            TOTALIZER_SECRET=secret,
            TOTALIZER_JOURNAL_QUOTA_BYTES=str(4 << 20),
            TOTALIZER_JOURNAL_SEGMENT_BYTES=str(1 << 20),
            outside_database=server.dsn("postgres", "totalizer"),
        )
        try:
            stack = new_organization(running)
            assert post(stack, {"id": "first"}).status == 202
            server.stop()
            accepted = ["first"]
            refused = None
            for number in range(2000):
                events = [{"id": f"{number}-{n}", "error_message": "x" * 1000} for n in range(10)]
                answer = post(stack, *events)
                if answer.status != 202:
                    refused = answer
                    break
                accepted += [event["id"] for event in events]
            assert refused is not None, "the quota was never reached"
            assert refused.status == 503
            assert json.loads(refused.data)["code"] == "journal_full"
            assert int(refused.headers["retry-after"]) > 0
            assert len(accepted) > 1000
            query = HTTP.request(
                "GET", stack.url + "/api/metrics/aggregated", headers={"authorization": f"Bearer {stack.key}"}
            )
            assert query.status == 503
            assert HTTP.request("GET", stack.url + "/health/live").status == 200
            assert HTTP.request("GET", stack.url + "/health/ready").status == 503
            server.start()
            wait_until(lambda: post(stack, {"id": "last"}).status == 202, "accepting again")
            stack.drain()
            assert stored(stack) == rolled_up(stack) == len(accepted) + 1
        finally:
            assert running.stop() == 0


def test_killed_api_loader_and_scheduler_come_back_and_lose_nothing(own_stack: Stack) -> None:
    accepted: set[str] = set()
    done = threading.Event()

    def send(worker: int) -> None:
        number = 0
        while not done.is_set():
            event_id = f"{worker}-{number}"
            try:
                if post(own_stack, {"id": event_id}).status == 202:
                    accepted.add(event_id)
                    number += 1
            except urllib3.exceptions.HTTPError:
                continue  # the reply is lost: the same event again, with the same id

    senders = [threading.Thread(target=send, args=(worker,)) for worker in range(4)]
    for sender in senders:
        sender.start()
    try:
        for name in ("api", "loader", "scheduler", "api", "loader"):
            before = len(accepted)
            wait_until(lambda before=before: len(accepted) > before + 50, "events being accepted")  # type: ignore[misc]
            victim = pids(own_stack)[name]
            kill_tree(victim)
            wait_until(lambda name=name, victim=victim: pids(own_stack).get(name) not in (None, victim), "a restart")  # type: ignore[misc]
    finally:
        done.set()
        for sender in senders:
            sender.join()
    wait_until(lambda: post(own_stack, {"id": "after"}).status == 202, "accepting again")
    own_stack.drain()
    ids = {row[0] for row in own_stack.sql("SELECT external_id FROM events.command_executions")}
    assert accepted <= ids
    # At most the events whose reply never came are there besides.
    assert len(ids - accepted - {"after"}) <= 4
    assert stored(own_stack) == rolled_up(own_stack) == len(ids)


def pids(stack: Stack) -> dict[str, int]:
    """What `totalizer up` says runs."""
    try:
        found: dict[str, int] = json.loads((stack.home / "run" / "state.json").read_text())["pids"]
    except FileNotFoundError:
        return {}
    return found


def test_postgresql_killed_while_loading(own_stack: Stack) -> None:
    for number in range(30):
        assert post(own_stack, *({"id": f"{number}-{n}"} for n in range(100))).status == 202
        if number in (10, 20):
            victim = pids(own_stack)["postgres"]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: pids(own_stack).get("postgres") not in (None, victim), "a restart")  # type: ignore[misc]
    wait_until(lambda: health_ready(own_stack), "being ready again")
    own_stack.drain()
    assert stored(own_stack) == rolled_up(own_stack) == 3000


def health_ready(stack: Stack) -> bool:
    """True if the API says that it is ready."""
    return bool(HTTP.request("GET", stack.url + "/health/ready").status == 200)


def test_a_full_disk_gets_no_false_acknowledgement(own_stack: Stack, tmp_path: Path) -> None:
    """The journal's folder lies on a small file system of its own, which fills up."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        unavailable(f"mount is not allowed here: {mounted.stderr.strip()}")
    try:
        full_disk(own_stack, disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def full_disk(stack: Stack, disk: Path) -> None:
    """Another API process, whose data folder is the small disk, sharing the database of the stack."""
    (disk / "secret").write_text((stack.home / "secret").read_text())
    state = json.loads((stack.home / "run" / "state.json").read_text())
    from support import free_port

    port = free_port()
    environment = {
        **os.environ, "TOTALIZER_HOME": str(disk), "DATABASE_URL": state["dsn"], "PORT": str(port),
        "TOTALIZER_JOURNAL_SEGMENT_BYTES": str(1 << 20),
    }  # fmt: skip
    import sys

    def serve() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "totalizer", "serve"], env=environment)

    class Small:
        url = f"http://127.0.0.1:{port}"
        key = stack.key

    def ready() -> bool:
        try:
            return bool(HTTP.request("GET", Small.url + "/health/ready").status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    process = serve()
    accepted: set[str] = set()
    try:
        wait_until(ready, "the second API")
        refused = None
        for number in range(3000):
            event = {"id": f"{number}", "error_message": "x" * 2000, "context": {"pad": "y" * 6000}}
            answer = post(Small, event)  # type: ignore[arg-type]
            if answer.status == 202:
                accepted.add(event["id"])
            else:
                refused = answer
                break
        assert refused is not None, "the disk never filled"
        assert refused.status == 503, refused.data
        assert "retry-after" in refused.headers
        assert len(accepted) > 100
    finally:
        process.terminate()
        assert process.wait(30) == 0
    # What was acknowledged is on the disk and loads; what was refused is not.
    loader = subprocess.Popen([sys.executable, "-m", "totalizer", "load"], env=environment)
    try:
        wait_until(lambda: stored(stack) >= len(accepted), "loading what was accepted")
    finally:
        loader.terminate()
        assert loader.wait(30) == 0
    ids = {row[0] for row in stack.sql("SELECT external_id FROM events.command_executions")}
    assert ids == accepted
