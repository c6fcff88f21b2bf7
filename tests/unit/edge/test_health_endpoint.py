"""The health of aggregation over HTTP, as ASGI, as WSGI and from a folder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from totalizer.edge.batch import Batch, FailedBatch
from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.folder import Folders, write_file
from totalizer.edge.health_endpoint import asgi, folder_health, wsgi

NOW_MS = 1_704_067_200_000
MINUTE_MS = 60_000


class Still:
    """A clock that stands where it was put."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms, self.seconds = now_ms, 0.0

    def now_ns(self) -> int:
        return self.now_ms * 1_000_000

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "aggregated")
    made.make()
    return made


def put_check(folders: Folders, at_ms: int, status: str = "healthy", **members: Any) -> None:
    document = {"timestamp": at_ms, "status": status, "issues": [], **members}
    write_file(folders.health / f"health-{at_ms}.json", json.dumps(document).encode())


def test_where_nothing_has_ever_run_there_is_no_fault(tmp_path: Path) -> None:
    status, body = folder_health(Folders(tmp_path / "none"), Still())
    assert (status, body) == (
        200, {"status": "unknown", "severity": "normal", "timestamp": NOW_MS, "uptime": 0, "issues": []},
    )  # fmt: skip


def test_failed_batches_that_nobody_looks_after_are_one(folders: Folders) -> None:
    failed = FailedBatch(Batch("a", NOW_MS, ({"id": "1"},)), 0, "away", NOW_MS)
    write_file(folders.recovery / failed.file_name, failed.encode())
    status, body = folder_health(folders, Still())
    assert status == 503
    assert "1 failed batches wait" in body["issues"][0]


def test_the_newest_check_is_told(folders: Folders) -> None:
    put_check(folders, NOW_MS - 2 * MINUTE_MS, "unhealthy", issues=["old"])
    put_check(folders, NOW_MS - MINUTE_MS, daemonHealth={"uptime": 5000.5, "isRunning": True})
    assert folder_health(folders, Still()) == (
        200,
        {"status": "healthy", "severity": "normal", "timestamp": NOW_MS - MINUTE_MS, "uptime": 5000.5, "issues": []},
    )  # fmt: skip


def test_what_the_check_found_is_503(folders: Folders) -> None:
    put_check(folders, NOW_MS, "unhealthy", severity="warning", issues=["memory"])
    status, body = folder_health(folders, Still())
    assert (status, body["status"], body["severity"], body["issues"]) == (503, "unhealthy", "warning", ["memory"])


@pytest.mark.parametrize(
    ("interval_ms", "age_ms", "expected"),
    [
        (None, 3 * MINUTE_MS, 200),
        (None, 3 * MINUTE_MS + 1, 503),
        (1000, 3 * MINUTE_MS, 200),  # a short interval is for tests; a busy machine may be late
        (10 * MINUTE_MS, 30 * MINUTE_MS, 200),
        (10 * MINUTE_MS, 30 * MINUTE_MS + 1, 503),
    ],
)
def test_a_check_that_is_stale_is_503(
    folders: Folders, interval_ms: int | None, age_ms: int, expected: int
) -> None:  # fmt: skip
    put_check(folders, NOW_MS - age_ms, daemonHealth={"healthCheckInterval": interval_ms} if interval_ms else {})
    status, body = folder_health(folders, Still())
    assert status == expected
    assert any("does not run" in issue for issue in body["issues"]) == (expected == 503)


def test_a_check_of_a_clock_that_was_set_back_since_does_not_hide_the_others(folders: Folders) -> None:
    put_check(folders, NOW_MS + 60 * MINUTE_MS)
    put_check(folders, NOW_MS, "unhealthy", issues=["now"])
    assert folder_health(folders, Still())[1]["issues"] == ["now"]


def test_a_check_that_cannot_be_read_is_503(folders: Folders) -> None:
    write_file(folders.health / f"health-{NOW_MS}.json", b"{")
    status, body = folder_health(folders, Still())
    assert status == 503
    assert str(folders.data) not in str(body), "an answer for everybody names no folder"


Call = Callable[[Any, str], tuple[int, dict[str, str], bytes]]


def call_asgi(source: Any, method: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asgi(source)({"type": "http", "method": method, "path": "/"}, receive, send))
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


def call_wsgi(source: Any, method: str) -> tuple[int, dict[str, str], bytes]:
    seen: list[Any] = []
    body = b"".join(wsgi(source)({"REQUEST_METHOD": method}, lambda *arguments: seen.extend(arguments)))
    return int(seen[0].split()[0]), {name.lower(): value for name, value in seen[1]}, body


@pytest.mark.parametrize("call", [call_asgi, call_wsgi])
def test_as_an_application(folders: Folders, call: Call) -> None:
    status, headers, body = call(folders.data, "GET")
    assert (status, json.loads(body)["status"]) == (200, "unknown")
    assert headers == {
        "content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store",
    }  # fmt: skip
    status, headers, body = call(str(folders.data), "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    assert call(folders, "POST")[0] == 405


@pytest.mark.parametrize("call", [call_asgi, call_wsgi])
def test_a_daemon_in_the_process_checks_now(folders: Folders, call: Call) -> None:
    daemon = CronRecoveryDaemon(data_path=folders.data)
    assert json.loads(call(daemon, "GET")[2])["status"] in ("healthy", "unhealthy")
    assert len(list(folders.health.glob("health-*.json"))) == 1


def test_a_daemon_is_not_asked_more_than_once_a_second(folders: Folders) -> None:
    daemon, clock, seen = CronRecoveryDaemon(data_path=folders.data), Still(), []
    application = wsgi(daemon, clock=clock)
    for _ in range(5):
        seen.append(b"".join(application({"REQUEST_METHOD": "GET"}, lambda *_: None)))
    assert daemon.get_metrics().health_checks_performed == 1
    clock.sleep(1.0)
    application({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert daemon.get_metrics().health_checks_performed == 2


def test_the_lifespan_of_a_server_is_answered(folders: Folders) -> None:
    sent: list[str] = []
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> MutableMapping[str, Any]:
        return {"type": next(messages)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    asyncio.run(asgi(folders)({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
