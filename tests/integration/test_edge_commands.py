"""The commands of the batching library as a person or a script uses them: in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support import Stack, free_port, wait_until
from totalizer.edge.batch import Batch, FailedBatch, decode_batch_file, decode_failed_file
from totalizer.edge.folder import Folders, write_file
from totalizer.edge.sinks.http import HttpSink

Done = subprocess.CompletedProcess[str]

#: Adds entries, says so, and stays until it is ended.
WRITER = """
import sys, time
from totalizer.edge import SmartBatchAggregator
aggregator = SmartBatchAggregator(data_path=sys.argv[1], max_age_ms=600_000, batch_size=1000)
for number in range(int(sys.argv[2])):
    aggregator.add({"userId": "u", "action": "written", "timestamp": int(time.time() * 1000)})
print("ready", flush=True)
time.sleep(600)
"""
#: Runs the command line where only the client is installed.
CLIENT_ONLY = """
import sys
hidden = "psycopg pydantic_settings psutil structlog granian litestar alembic apscheduler apprise prometheus_client"
sys.modules.update(dict.fromkeys(hidden.split()))
sys.argv[0] = "totalizer"
from totalizer.ops.cli import main
main()
"""


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")}
    return {**kept, **variables}


def run(cwd: Path, *arguments: str, code: str | None = None, stdin: str | None = None, **variables: str) -> Done:
    command = ["-c", code, *arguments] if code else ["-m", "totalizer", *arguments]
    return subprocess.run(
        [sys.executable, *command], env=environment(**variables), cwd=cwd, input=stdin, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip


def answer(done: Done, code: int = 0) -> Any:
    """The JSON that a command wrote."""
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def entry(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"userId": "u", "action": f"a{number}", "timestamp": int(time.time() * 1000), **more}


def lines(*numbers: int) -> str:
    return "".join(json.dumps(entry(number)) + "\n" for number in numbers)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Where commands run in `tmp_path` find everything by default."""
    return Folders(tmp_path / ".totalizer" / "aggregated")


def delivered(folders: Folders) -> list[str]:
    """Actions of the entries in the batch files, in order."""
    batches = [decode_batch_file(path.read_bytes(), path.name) for path in folders.batch_files()]
    return [each["action"] for batch in batches for each in batch.entries]


def put_failed(folders: Folders, name: str = "a", *, abandoned: bool = False, timestamp: int | None = None) -> Path:
    now_ms = int(time.time() * 1000)
    batch = Batch(name, timestamp or now_ms, ({"id": f"{name}-1", **entry()},))
    failed = FailedBatch(batch, 1, "the network was away", now_ms, next_retry_at=now_ms + 3_600_000)
    folders.make()
    if abandoned:
        failed = replace(failed, abandoned_at=now_ms)
    path = (folders.abandoned if abandoned else folders.recovery) / failed.file_name
    write_file(path, failed.encode())
    return path


@contextlib.contextmanager
def writer(data_path: Path, count: int) -> Iterator[subprocess.Popen[str]]:
    """A living process in which entries wait."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(data_path), str(count)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# -- bridge


def test_entries_wait_until_a_flush_is_due(tmp_path: Path, folders: Folders) -> None:
    taken = answer(run(tmp_path, "bridge", "aggregate", "--entry", json.dumps(entry(1)), "--format", "json"))
    assert (taken["added"], taken["waiting"], taken["delivered"]) == (1, 1, 0)
    taken = answer(run(tmp_path, "bridge", "aggregate", "--file", "-", "--format", "json", stdin=lines(2, 3)))
    assert (taken["added"], taken["waiting"]) == (2, 3)
    assert delivered(folders) == []
    forced = answer(run(tmp_path, "bridge", "aggregate", "--force", "--format", "json"))
    assert forced == {
        "added": 0, "journals": 1, "delivered": 3, "failed": 0, "failedBatches": 0, "waiting": 0, "errors": [],
    }  # fmt: skip
    assert delivered(folders) == ["a1", "a2", "a3"]


@pytest.mark.parametrize("config", ['{"maxAge": 1}', '{"aggregation": {"batchSize": 2, "flushThreshold": 1.0}}'])
def test_a_configuration_says_what_is_due(tmp_path: Path, folders: Folders, config: str) -> None:
    (tmp_path / "aggregation.json").write_text(config)
    run(tmp_path, "bridge", "aggregate", "--file", "-", stdin=lines(1, 2))
    done = answer(run(tmp_path, "bridge", "aggregate", "--config", "aggregation.json", "--format", "json"))
    assert (done["delivered"], done["waiting"]) == (2, 0)


@pytest.mark.parametrize(
    "text", [json.dumps([entry(1), entry(2)]), json.dumps({"entries": [entry(1), entry(2)]}, indent=1)]
)
def test_files_of_other_shapes_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "entries.json").write_text(text)
    done = answer(run(tmp_path, "bridge", "aggregate", "--file", "entries.json", "--force", "--format", "json"))
    assert (done["added"], done["delivered"]) == (2, 2)


def test_what_is_wrong_is_told_and_what_came_before_is_kept(tmp_path: Path) -> None:
    done = run(tmp_path, "bridge", "aggregate", "--file", "-", stdin=lines(1) + '{"userId": "u"}\n')
    assert done.returncode == 1
    assert "entry 1: action" in done.stderr
    done = run(tmp_path, "bridge", "aggregate", "--file", "-", stdin=lines(2) + "{\n")
    assert (done.returncode, "no JSON" in done.stderr) == (1, True)
    assert answer(run(tmp_path, "bridge", "aggregate-status", "--format", "json"))["waiting"]["entries"] == 2


def test_the_status_has_stable_keys_and_three_forms(tmp_path: Path) -> None:
    run(tmp_path, "bridge", "aggregate", "--file", "-", "--force", stdin=lines(1, 2))
    run(tmp_path, "bridge", "aggregate", "--entry", json.dumps(entry(3)))
    status = answer(run(tmp_path, "bridge", "aggregate-status", "--format", "json"))
    assert status.keys() == {
        "timestamp", "dataPath", "aggregator", "entries", "waiting", "recovery", "health", "system",
    }  # fmt: skip
    assert status["entries"]["delivered"] == 2
    assert status["aggregator"]["totalOperations"] == status["aggregator"]["triggers"]["adopted"] == 1
    assert status["waiting"]["entries"] == 1
    assert status["recovery"] | {"isRunning": False, "failedBatches": 0} == status["recovery"]
    assert status["health"]["status"] == "unknown"
    assert status["system"]["diskSpace"]["available"] > 0
    detailed = answer(run(tmp_path, "aggregation", "status", "--format", "json", "--detailed"))
    assert detailed["journals"][0]["waiting"] == 1
    assert detailed["aggregator"]["buckets"][-1] == {"upTo": None, "count": 1}
    text = run(tmp_path, "bridge", "aggregate-status").stdout
    assert "1 entries, the oldest for" in text
    markdown = run(tmp_path, "bridge", "aggregate-status", "--format", "markdown", "--detailed").stdout
    assert markdown.startswith("## Aggregation\n\n| what | value |\n|---|---|\n")
    assert "| edge-0 | no process, 1 waiting |" in markdown


@pytest.mark.parametrize("command", [("bridge", "aggregate-force"), ("aggregation", "flush")])
def test_living_processes_are_asked_and_waited_for(tmp_path: Path, folders: Folders, command: tuple[str, str]) -> None:
    with writer(folders.data, 30):
        run(tmp_path, "bridge", "aggregate", "--file", "-", stdin=lines(*range(5)))
        done = answer(run(tmp_path, *command, "--format", "json"))
        assert (done["waiting"], done["delivered"]) == (0, 5)
        assert len(delivered(folders)) == 35


def test_what_a_process_does_not_flush_is_told(tmp_path: Path, folders: Folders) -> None:
    with writer(folders.data, 3) as process:
        process.send_signal(signal.SIGSTOP)
        done = run(tmp_path, "bridge", "aggregate-force", "--timeout", "1")
        assert done.returncode == 1
        assert f"process {process.pid}): 3 entries wait still" in done.stderr
        process.kill()
        process.wait()
        assert run(tmp_path, "bridge", "aggregate-force").returncode == 0
    assert len(delivered(folders)) == 3


def test_what_a_server_does_not_take_is_kept_and_told(tmp_path: Path, folders: Folders) -> None:
    away = {"TOTALIZER_URL": f"http://127.0.0.1:{free_port()}", "TOTALIZER_API_KEY": "secret-key"}
    run(tmp_path, "bridge", "aggregate", "--file", "-", stdin=lines(1, 2))
    done = run(tmp_path, "bridge", "aggregate-force", **away)
    assert done.returncode == 1
    assert "1 batches, which wait for the recovery daemon" in done.stdout
    assert "secret-key" not in done.stdout + done.stderr
    [path] = folders.failed_files()
    done = run(tmp_path, "bridge", "aggregate-recover", **away)
    assert (done.returncode, "1 wait for another attempt" in done.stdout) == (1, True)
    assert decode_failed_file(path.read_bytes(), "").retry_count == 1


# -- recovery


def test_failed_batches_are_recovered_by_command(tmp_path: Path, folders: Folders) -> None:
    put_failed(folders, "a")
    put_failed(folders, "b")
    put_failed(folders, "old", timestamp=1_704_067_200_000)
    done = run(tmp_path, "bridge", "aggregate-recover", "--batch-id", "none")
    assert (done.returncode, "'none'" in done.stderr) == (1, True)
    assert answer(run(tmp_path, "bridge", "aggregate-recover", "--batch-id", "b", "--format", "json"))["succeeded"] == 1
    recent = answer(run(tmp_path, "aggregation", "recover", "--max-age", "3600000", "--format", "json"))
    assert (recent["processed"], recent["succeeded"]) == (1, 1)
    assert [path.name for path in folders.failed_files()] == ["batch_old.failed.json"]
    assert run(tmp_path, "aggregation", "recover").returncode == 0
    assert len(folders.batch_files()) == 3
    assert all(decode_batch_file(path.read_bytes(), path.name).entries for path in folders.batch_files())


def test_batches_that_were_given_up_are_put_back(tmp_path: Path, folders: Folders) -> None:
    put_failed(folders, "a", abandoned=True)
    put_failed(folders, "b", abandoned=True)
    done = run(tmp_path, "aggregation", "requeue", "--batch-id", "a", "--batch-id", "none")
    assert (done.returncode, "none" in done.stderr) == (1, True)
    assert [path.name for path in folders.failed_files()] == ["batch_a.failed.json"]
    assert answer(run(tmp_path, "aggregation", "requeue", "--format", "json")) == {"requeued": ["b"]}
    assert len(folders.failed_files()) == 2


def test_the_daemon_runs_until_a_signal_and_alone(tmp_path: Path, folders: Folders) -> None:
    put_failed(folders)
    failed = decode_failed_file(folders.failed_files()[0].read_bytes(), "")
    write_file(folders.failed_files()[0], replace(failed, next_retry_at=None).encode())
    log = (tmp_path / "log").open("w+")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "totalizer", "aggregation", "start"], cwd=tmp_path, env=environment(), stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_until(lambda: not folders.failed_files(), "recovery")
        assert delivered(folders) == ["a0"]
        second = run(tmp_path, "aggregation", "start")
        assert (second.returncode, f"process {daemon.pid}" in second.stderr) == (1, True)
        status = answer(run(tmp_path, "aggregation", "status", "--format", "json"))
        assert (status["recovery"]["isRunning"], status["recovery"]["pid"]) == (True, daemon.pid)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0
    finally:
        daemon.kill()
        daemon.wait()
        log.seek(0)
        output = log.read()
        log.close()
    assert f"as process {daemon.pid}" in output
    assert output.endswith("stopped\n")


def test_a_detached_daemon_delivers_what_the_dead_have_left_and_stops(tmp_path: Path, folders: Folders) -> None:
    with writer(folders.data, 4):
        pass  # and is killed
    started = run(tmp_path, "aggregation", "start", "--detach")
    assert started.returncode == 0, started.stderr
    try:
        wait_until(lambda: len(delivered(folders)) == 4, "adoption")
        again = run(tmp_path, "aggregation", "start", "--detach")
        assert (again.returncode, "already" in again.stderr) == (1, True)
    finally:
        stopped = run(tmp_path, "aggregation", "stop")
    assert (stopped.returncode, "has ended" in stopped.stdout) == (0, True)
    assert run(tmp_path, "aggregation", "stop").returncode == 0
    assert answer(run(tmp_path, "aggregation", "status", "--format", "json"))["recovery"]["isRunning"] is False


@pytest.mark.parametrize("detached", [(), ("--detach",)])
def test_a_daemon_that_cannot_start_says_why(tmp_path: Path, detached: tuple[str, ...]) -> None:
    done = run(tmp_path, "aggregation", "start", *detached, TOTALIZER_URL="http://127.0.0.1:1")
    assert (done.returncode, "TOTALIZER_API_KEY" in done.stderr) == (1, True)
    (tmp_path / "config.json").write_text('{"scheduleInterval": 0}')
    done = run(tmp_path, "aggregation", "start", *detached, "--config", "config.json")
    assert (done.returncode, "schedule_interval_ms" in done.stderr) == (1, True)
    (tmp_path / "config.json").write_text('{"scheduleIntervall": 1}')
    done = run(tmp_path, "aggregation", "start", *detached, "--config", "config.json")
    assert (done.returncode, "scheduleIntervall" in done.stderr) == (1, True)


# -- looking after it


def test_validation_passes_and_fails(tmp_path: Path, folders: Folders) -> None:
    run(tmp_path, "bridge", "aggregate", "--file", "-", "--force", stdin=lines(1, 2))
    done = run(tmp_path, "validate", "--full")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no problem" in done.stdout
    assert "not looked at" in done.stdout
    folders.batch_files()[0].chmod(0o644)
    found = answer(run(tmp_path, "validate", "--format", "json"), 1)
    assert (found["sound"], found["problems"]) == (False, 1)
    [wrong] = [file for file in found["files"] if not file["sound"]]
    assert wrong["path"] == str(folders.batch_files()[0])
    assert "0644" in run(tmp_path, "validate").stdout
    done = run(tmp_path, "validate", "--data-path", "none")
    assert (done.returncode, "does not exist" in done.stderr) == (1, True)


def test_what_the_system_refuses_is_one_line(tmp_path: Path, folders: Folders) -> None:
    folders.make()
    folders.journal.mkdir(mode=0o700)
    (folders.journal / "flush-requested").symlink_to("elsewhere")
    done = run(tmp_path, "bridge", "aggregate-force")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "flush-requested" in done.stderr


def test_names_are_written_as_they_are(tmp_path: Path) -> None:
    """A terminal's library would make a picture of `:x:`, and markup of `[b]`."""
    odd = tmp_path / ":x:[b]"
    done = run(tmp_path, "bridge", "aggregate", "--data-path", str(odd), "--entry", json.dumps(entry()))
    assert done.returncode == 0
    status = answer(run(tmp_path, "bridge", "aggregate-status", "--data-path", str(odd), "--format", "json"))
    assert status["dataPath"] == str(odd)
    assert str(odd) in run(tmp_path, "bridge", "aggregate-status", "--data-path", str(odd)).stdout
    assert str(odd) in run(tmp_path, "aggregation", "stop", "--data-path", str(odd)).stdout


def test_diagnostics_tell_what_is_needed_and_no_secret(tmp_path: Path, folders: Folders) -> None:
    secret = "tz_0123456789"
    away = {"TOTALIZER_URL": f"http://127.0.0.1:{free_port()}", "TOTALIZER_API_KEY": secret, "TOTALIZER_HOME": ""}
    away["TOTALIZER_ALERT_URLS"] = "json://user:hidden@127.0.0.1:1"
    run(tmp_path, "bridge", "aggregate", "--file", "-", stdin=lines(1))
    run(tmp_path, "bridge", "aggregate-force", **away)
    told = run(tmp_path, "diagnostics", **away)
    found = answer(run(tmp_path, "diagnostics", "--format", "json", **away))
    for text in (told.stdout, json.dumps(found)):
        assert secret not in text
        assert "hidden" not in text
    assert found["environment"]["TOTALIZER_API_KEY"] == "(set)"
    assert found["sync"]["count"] >= 1
    assert found["lastErrors"], "the delivery that failed is there"
    assert {folder["name"]: folder.get("mode") for folder in found["folders"]}["recovery"] == "0700"
    assert found["versions"]["msgspec"]
    assert list(folders.data.glob(".probe*")) == []


def test_diagnostics_have_no_heading_over_nothing(tmp_path: Path) -> None:
    run(tmp_path, "bridge", "aggregate", "--file", "-", stdin=lines(1))
    told = [line.rstrip() for line in run(tmp_path, "diagnostics").stdout.splitlines()]
    headings = {line: below for line, below in zip(told, [*told[1:], ""], strict=True) if not line.startswith(" ")}
    assert {"Versions", "Options", "Journals"} <= headings.keys()
    assert [line for line, below in headings.items() if not below.startswith("  ")] == []


def test_metrics_are_told_for_prometheus(tmp_path: Path) -> None:
    run(tmp_path, "bridge", "aggregate", "--file", "-", "--force", stdin=lines(1, 2, 3))
    done = run(tmp_path, "diagnostics", "--metrics", "--format", "prometheus")
    assert 'totalizer_aggregation_entries_total{outcome="processed"} 3\n' in done.stdout
    assert "totalizer_aggregation_flush_time_seconds_count 1\n" in done.stdout
    assert run(tmp_path, "diagnostics", "--format", "prometheus").returncode == 2
    assert "versions" not in answer(run(tmp_path, "diagnostics", "--metrics", "--format", "json"))


def test_cleanup_removes_what_is_old_and_nothing_else(tmp_path: Path, folders: Folders) -> None:
    put_failed(folders)
    run(tmp_path, "bridge", "aggregate", "--file", "-", "--force", stdin=lines(1))
    health = folders.health / "health-1.json"
    write_file(health, b'{"timestamp": 1, "status": "healthy"}')
    for path in (health, *folders.failed_files(), *folders.batch_files()):
        os.utime(path, (time.time() - 8 * 86400, time.time() - 8 * 86400))
    assert answer(run(tmp_path, "cleanup", "--dry-run", "--format", "json")) == {"files": [str(health)]}
    assert answer(run(tmp_path, "cleanup", "--age", "2w", "--format", "json"))["filesRemoved"] == 0
    assert "1 files removed" in run(tmp_path, "cleanup", "--age", "7d").stdout
    assert not health.exists()
    assert len(folders.batch_files()) == len(folders.failed_files()) == 1
    run(tmp_path, "cleanup", "--batches", "aged")
    assert (len(folders.batch_files()), len(folders.failed_files())) == (0, 1)


@pytest.mark.parametrize("age", ["7", "1x", "0d", "-1d", "1.5h", ""])
def test_an_age_that_is_none_is_wrong_usage(tmp_path: Path, age: str) -> None:
    assert run(tmp_path, "cleanup", f"--age={age}").returncode == 2


def test_old_files_are_migrated_and_put_back(tmp_path: Path, folders: Folders) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "a.json").write_text(json.dumps([{"user": "u", "event": "e", "ts": "2024-01-01T00:00:00"}]))
    done = run(tmp_path, "migrate-v1", "old")
    assert (done.returncode, "--time-zone" in done.stdout) == (1, True)
    planned = answer(run(tmp_path, "migrate-v1", "old", "--time-zone", "UTC", "--dry-run", "--format", "json"))
    assert (planned["converted"], planned["dryRun"]) == (1, True)
    assert not folders.batch_files()
    done = run(tmp_path, "migrate-v1", "old", "--time-zone", "UTC", "--report", "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["files"][0]["outcome"] == "converted"
    assert delivered(folders) == ["e"]
    assert run(tmp_path, "validate", "--full").returncode == 0
    assert run(tmp_path, "migrate-v1", "old", "--rollback").returncode == 0
    assert (old / "a.json").exists()
    assert run(tmp_path, "migrate-v1", "old", "--time-zone", "Mars/Olympus").returncode == 2
    assert run(tmp_path, "migrate-v1", "none").returncode == 1


def test_the_client_alone_has_all_but_the_daemon(tmp_path: Path, folders: Folders) -> None:
    put_failed(folders)
    for command in (
        ["bridge", "aggregate", "--entry", json.dumps(entry(1)), "--force"], ["bridge", "aggregate-status"],
        ["bridge", "aggregate-force"], ["bridge", "aggregate-recover"], ["aggregation", "requeue"],
        ["validate", "--full"], ["diagnostics"], ["diagnostics", "--metrics", "--format", "prometheus"], ["cleanup"],
        ["aggregation", "stop"],
    ):  # fmt: skip
        done = run(tmp_path, *command, code=CLIENT_ONLY)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    done = run(tmp_path, "aggregation", "start", code=CLIENT_ONLY)
    assert (done.returncode, "pip install 'totalizer[daemon]'" in done.stderr) == (1, True)


# -- with a server


def send(stack: Stack, folders: Folders, count: int) -> None:
    """Entries into batch files, and the same to the server."""
    now_ms = int(time.time() * 1000)
    entries = tuple({"id": f"{now_ms}-{number}", **entry(number)} for number in range(count))
    batch = Batch(f"{now_ms}_abcdef", now_ms, entries)
    folders.make()
    write_file(folders.data / batch.file_name, batch.encode())
    sink = HttpSink(stack.url, stack.key)
    try:
        assert sink.deliver(batch).accepted == count
    finally:
        sink.close()
    stack.drain()


def test_batch_files_are_held_against_the_database(tmp_path: Path, folders: Folders, stack: Stack) -> None:
    send(stack, folders, 3)
    run(tmp_path, "bridge", "aggregate", "--file", "-", "--force", stdin=lines(1, 2))
    home = ("--home", str(stack.home))
    run(tmp_path, "job", "run", "verify", *home)  # brings in what other tests made up as usage of long ago
    found = answer(run(tmp_path, "validate", "--full", "--format", "json", *home))
    assert (found["sound"], found["database"]) == (True, {"reached": True, "entries": 5, "stored": 3})
    [path] = [path for path in folders.batch_files() if "abcdef" in path.name]
    write_file(path, path.read_bytes().replace(b'"a1"', b'"b1"'))
    found = answer(run(tmp_path, "validate", "--full", "--format", "json", *home), 1)
    [wrong] = [file for file in found["files"] if not file["sound"]]
    assert (wrong["path"], found["problems"]) == (str(path), 1)
    assert "1 entries are stored with another user or action" in wrong["findings"][0]["text"]


def test_entries_go_to_the_server_by_command(tmp_path: Path, stack: Stack) -> None:
    to_server = {"TOTALIZER_URL": stack.url, "TOTALIZER_API_KEY": stack.key}
    done = run(tmp_path, "bridge", "aggregate", "--file", "-", "--force", stdin=lines(*range(60)), **to_server)
    assert done.returncode == 0, done.stdout + done.stderr
    stack.drain()
    query = "SELECT count(*) FROM events.time_entries WHERE organization_id = %s"
    assert stack.sql(query, stack.organization_id) == [(60,)]


def test_the_server_tells_the_health_of_its_data_folder(stack: Stack) -> None:
    response = urllib3.request("GET", f"{stack.url}/health/aggregation", retries=False)
    body = response.json()
    assert (response.status, body["status"]) == (200, "unknown")
    folders = Folders(stack.home / "aggregated")
    folders.make()
    now_ms = int(time.time() * 1000)
    check = folders.health / f"health-{now_ms}.json"
    write_file(check, json.dumps({"timestamp": now_ms, "status": "unhealthy", "issues": ["memory"]}).encode())
    try:
        response = urllib3.request("GET", f"{stack.url}/health/aggregation", retries=False)
        assert (response.status, response.json()["issues"]) == (503, ["memory"])
    finally:
        check.unlink()
