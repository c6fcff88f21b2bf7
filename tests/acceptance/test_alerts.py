"""Alerts of a running stack, sent to a local webhook: real things are broken, told once, and told to be over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support import RunningStack, Stack, new_organization, wait_until
from totalizer.ops.embedded import EmbeddedPostgres
from totalizer.store.keys import create_key
from totalizer.store.roles import Role
from totalizer.store.runs import try_lock
from webhook import Webhook, webhook

HTTP = urllib3.PoolManager(retries=False, timeout=30)
COMMAND = {
    "user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "plan", "execution_time_ms": 15,
    "status": "success",
}  # fmt: skip
#: Levels and times that a test can wait for.
QUICK = """
[checks.loader_lag]
warning = 1
[rules.database]
for_s = 0
[rules.redis_away]
for_s = 0
[rules.loader_behind]
for_s = 0
[rules.job_failed]
for_s = 0
"""
HIDDEN = "a-token-nobody-should-see"


class Alarmed:
    """A stack, the webhook that its alerts go to, and a key of an administrator."""

    def __init__(self, stack: Stack, hook: Webhook, environment: dict[str, str]) -> None:
        self.stack, self.hook, self._environment = stack, hook, environment
        with stack.running.connect(None) as connection:
            self.admin = create_key(connection, stack.organization_id, "admin", scopes=("admin",))

    def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of `totalizer` on the stack's data folder."""
        done = subprocess.run(
            [sys.executable, "-m", "totalizer", *arguments, "--home", str(self.stack.home)],
            env={**os.environ, **self._environment}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer of a request as the administrator."""
        answer = HTTP.request(
            method, self.stack.url + path, headers={"authorization": f"Bearer {self.admin}"},
            body=None if body is None else json.dumps(body).encode(),
        )  # fmt: skip
        return answer.status, answer.json() if answer.data else None

    def send(self) -> int:
        """Send an event; the status."""
        return HTTP.request(
            "POST", self.stack.url + "/api/metrics/commands", body=json.dumps(COMMAND).encode(),
            headers={"authorization": f"Bearer {self.stack.key}", "content-type": "application/json"},
        ).status  # fmt: skip

    def kinds(self, rule: str) -> list[tuple[str, bool]]:
        """What the history says of a rule, oldest first."""
        rows = self.stack.sql("SELECT kind, silenced FROM totalizer.alert_history WHERE rule = %s ORDER BY at", rule)
        return [(row[0], row[1]) for row in rows]

    def pid(self, name: str) -> int:
        """Of a part of the stack."""
        found: dict[str, int] = json.loads((self.stack.home / "run" / "state.json").read_text())["pids"]
        return found[name]


@contextmanager
def alarmed(folder: Path, **environment: str) -> Iterator[Alarmed]:
    """A stack of a test's own with a webhook."""
    file = folder / "health.toml"
    file.write_text(QUICK)
    with webhook() as hook:
        given = {
            "TOTALIZER_ALERT_URLS": f"{hook.url}{HIDDEN}", "TOTALIZER_HEALTH_FILE": str(file),
            "TOTALIZER_MONITOR_INTERVAL_MS": "500",
        }  # fmt: skip
        outside = environment.get("DATABASE_URL")
        running = RunningStack(folder / "home", outside_database=outside, **given, **environment)
        try:
            yield Alarmed(new_organization(running), hook, {**given, **environment})
        finally:
            assert running.stop() == 0


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alarmed]:
    """One stack for the tests that leave it well."""
    with alarmed(tmp_path_factory.mktemp("alerts")) as found:
        yield found


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing for the length of a with-block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def told(hook: Webhook, *words: str) -> Callable[[], bool]:
    """A condition: a message with these words has come."""
    return lambda: bool(hook.told(*words))


def test_a_stack_that_is_well_says_nothing(scene: Alarmed) -> None:
    wait_until(lambda: scene.ask("GET", "/health")[1]["status"] == "healthy", "being well")
    code, text = scene.command("alerts", "list")
    assert (code, "no alert stands" in text) == (0, True), text
    assert scene.ask("GET", "/api/alerts")[1] == {"alerts": [], "silences": [], "source": "database"}


def test_a_message_can_be_sent_to_see_whether_it_arrives(scene: Alarmed) -> None:
    code, text = scene.command("alerts", "test")
    assert (code, "sent" in text) == (0, True), text
    assert scene.hook.told("a test")
    scene.hook.refuses = True
    code, text = scene.command("alerts", "test")
    scene.hook.refuses = False
    assert (code, "NOT sent" in text) == (1, True), text
    assert HIDDEN not in text


def test_a_loader_that_stands_still(scene: Alarmed) -> None:
    with stopped(scene.pid("loader")):
        assert scene.send() == 202
        wait_until(told(scene.hook, "loader_behind", "waits for"), "the alert")
        [message] = scene.hook.told("[warning]", "loader_behind")
        assert "what to do: See whether the loader runs" in message["message"]
        wait_until(lambda: len(scene.ask("GET", "/api/alerts")[1]["alerts"]) == 1, "the alert being recorded")
        [alert] = scene.ask("GET", "/api/alerts")[1]["alerts"]
        assert (alert["rule"], alert["severity"]) == ("loader_behind", "warning")
        code, text = scene.command("alerts", "list")
        assert (code, "loader_behind" in text, "totalizer load" in text) == (1, True, True), text
    wait_until(told(scene.hook, "resolved", "loader_behind"), "the word that it is over")
    wait_until(lambda: scene.kinds("loader_behind") == [("fired", False), ("resolved", False)], "the history")
    assert len(scene.hook.told("loader_behind")) == 2, "it was told more than once"


def test_redis_that_does_not_answer(scene: Alarmed) -> None:
    with stopped(scene.pid("valkey")):
        wait_until(told(scene.hook, "redis_away", "cannot be reached"), "the alert")
        status, answer = scene.ask("GET", "/health")
        assert (status, answer["status"]) == (200, "degraded")
    wait_until(told(scene.hook, "resolved", "redis_away"), "the word that it is over")


def test_a_row_of_a_rollup_that_was_changed_by_hand(scene: Alarmed) -> None:
    assert scene.send() == 202
    scene.stack.drain()
    with scene.stack.running.connect(None) as holding:
        # The reconciler may come first and repair it, and what it has found stands for an hour.
        wait_until(lambda: try_lock(holding, "reconcile"), "the turn of the reconciler")
        holding.execute(
            "UPDATE analytics.command_usage_15m SET executions = executions + 1 WHERE organization_id = %s",
            [scene.stack.organization_id],
        )
        assert scene.command("job", "run", "verify")[0] == 1
        wait_until(told(scene.hook, "[critical]", "reconciler_mismatch"), "the alert")
        scene.command("verify", "--repair")
    assert scene.command("job", "run", "verify")[0] == 0
    wait_until(told(scene.hook, "resolved", "reconciler_mismatch"), "the word that it is over")
    wait_until(told(scene.hook, "resolved", "job_failed"), "and that the job ended well")


def test_silenced_nobody_is_told_until_it_ends(scene: Alarmed) -> None:
    before = len(scene.hook.told("loader_behind"))
    status, made = scene.ask(
        "POST", "/api/alerts/silences", {"rule": "loader_behind", "for_s": 600, "reason": "a test"}
    )
    assert status == 201
    with stopped(scene.pid("loader")):
        assert scene.send() == 202
        wait_until(lambda: ("fired", True) in scene.kinds("loader_behind"), "the silenced alert")
        assert len(scene.hook.told("loader_behind")) == before
        assert scene.ask("GET", "/api/alerts")[1]["silences"][0]["reason"] == "a test"
        assert scene.ask("DELETE", f"/api/alerts/silences/{made['id']}")[0] == 204
        wait_until(lambda: len(scene.hook.told("loader_behind")) == before + 1, "being told after all")
    wait_until(lambda: len(scene.hook.told("loader_behind")) == before + 2, "the word that it is over")


def test_silence_from_the_command_line(scene: Alarmed) -> None:
    code, text = scene.command("alerts", "silence", "loader_behind", "--for", "30m", "--reason", "moving house")
    assert (code, "silenced until" in text) == (0, True), text
    code, text = scene.command("alerts", "list")
    assert (code, "moving house" in text) == (0, True), text
    code, text = scene.command("alerts", "silence", "loader_behind", "--end")
    assert (code, "not silenced any more" in text) == (0, True), text
    code, text = scene.command("alerts", "silence", "weather")
    assert (code, "no rule 'weather'" in text) == (1, True), text
    code, text = scene.command("alerts", "silence", "memory", "--for", "soon")
    assert (code, "--for soon" in text) == (1, True), text
    code, text = scene.command("alerts", "history", "loader_behind")
    assert (code, "resolved" in text) == (0, True), text


@pytest.mark.parametrize(
    "body", [{}, {"rule": "", "for_s": 1}, {"rule": "x", "for_s": 0}, {"rule": "x", "for_s": 1, "sheep": 1}, []]
)
def test_a_silence_that_cannot_be_made_is_refused(scene: Alarmed, body: Any) -> None:
    assert scene.ask("POST", "/api/alerts/silences", body)[0] == 400


def test_performance_has_the_six_documented_figures_and_they_are_measured(scene: Alarmed) -> None:
    for _ in range(20):
        assert scene.send() == 202
        assert scene.ask("GET", "/api/metrics/aggregated?aggregation_window=total")[0] == 200
    scene.stack.drain()
    six = ("ingestion_rate", "processing_latency_ms", "query_response_time_ms", "memory_usage_mb",
           "active_connections", "cache_hit_rate")  # fmt: skip

    def measured() -> bool:
        answer = HTTP.request("GET", scene.stack.url + "/api/metrics/performance").json()
        assert set(six) <= set(answer)
        return all(answer[name] > 0 for name in six)

    wait_until(measured, "six figures above nothing")


def test_what_needs_no_key_tells_no_secret(scene: Alarmed) -> None:
    answers = b"".join(
        HTTP.request("GET", scene.stack.url + path).data
        for path in ("/health", "/health/ready", "/health/live", "/health/aggregation", "/api/metrics/health",
                     "/api/metrics/performance")
    ).decode()  # fmt: skip
    for secret in (HIDDEN, str(scene.stack.home), scene.stack.organization_id, "totalizer_app", "json://", "run/pg"):
        assert secret not in answers, secret
    for path in ("/api/alerts", "/api/alerts/history"):
        assert HTTP.request("GET", scene.stack.url + path).status == 401


def test_addresses_of_channels_are_in_no_file_of_the_stack(scene: Alarmed) -> None:
    found = [
        path.name for path in scene.stack.home.rglob("*")
        if path.is_file() and "postgres" not in path.parts and HIDDEN.encode() in path.read_bytes()
    ]  # fmt: skip
    assert found == []


def test_health_files_are_written(scene: Alarmed) -> None:
    [first, *_] = sorted((scene.stack.home / "monitor").glob("health-*.json"))
    document = json.loads(first.read_text())
    assert {"timestamp", "status", "severity", "issues", "checks", "systemHealth"} <= set(document)
    assert first.stat().st_mode & 0o077 == 0


def test_postgresql_stops_and_the_alert_goes_out_all_the_same(tmp_path: Path) -> None:
    secret = "a secret of this test"
    with EmbeddedPostgres(tmp_path / "database", secret) as server:
        url = server.dsn("postgres", "totalizer")
        with alarmed(tmp_path, DATABASE_URL=url, TOTALIZER_SECRET=secret) as scene:
            assert scene.send() == 202
            wait_until(lambda: scene.ask("GET", "/api/alerts")[0] == 200, "the key being known")
            server.stop()
            wait_until(told(scene.hook, "[critical]", "the database cannot be reached"), "the alert")
            assert scene.send() == 202, "events are still taken"
            assert HTTP.request("GET", scene.stack.url + "/health/live").status == 200
            ready = HTTP.request("GET", scene.stack.url + "/health/ready")
            assert (ready.status, ready.json()["missing"]) == (503, ["database: cannot be reached"])
            health = HTTP.request("GET", scene.stack.url + "/health")
            assert (health.status, health.json()["status"]) == (503, "unhealthy")
            code, text = scene.command("alerts", "list")
            assert (code, "the database cannot be reached" in text) == (1, True), text
            server.start()
            wait_until(told(scene.hook, "resolved", "database"), "the word that it is over")
            wait_until(
                lambda: [kind for kind, _ in scene.kinds("database")] == ["fired", "resolved"],
                "the history of what was while the database was away",
            )
            assert len(scene.hook.told("database")) == 2
            scene.stack.drain()
            with scene.stack.running.connect(Role.REFRESHER) as connection:
                [(count,)] = connection.execute("SELECT count(*) FROM events.command_executions").fetchall()
            assert count == 2
            assert scene.command("verify")[0] == 0
