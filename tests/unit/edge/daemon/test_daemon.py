"""The daemon's life: start, stop, one for a folder, forks, metrics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import totalizer
from support import wait_until
from totalizer.clock import SYSTEM_CLOCK
from totalizer import edge
from totalizer.edge.batch import Batch
from totalizer.edge.daemon import DAEMON_LOCK, CronRecoveryDaemon, holder
from totalizer.edge.daemon import needs as needs_module
from totalizer.edge.daemon.health import health_files
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.sink import Delivery
from totalizer.errors import ConfigurationError, DaemonError, SinkUnavailable
from unit.edge.daemon.parts import T0, HandClock, ScriptedSink, away, failed, keep

Make = Callable[..., CronRecoveryDaemon]
#: Where the tests' own modules are found.
TESTS = Path(__file__).parents[3]


@pytest.fixture
def quick(make: Make) -> CronRecoveryDaemon:
    """A daemon with short intervals, in real time."""
    return make(
        clock=SYSTEM_CLOCK, schedule_interval_ms=100, health_check_interval_ms=100, adopt_interval_ms=100, backoff_ms=1,
        backoff_ms_max=2,
    )  # fmt: skip


def test_it_is_found_in_the_library() -> None:
    assert edge.CronRecoveryDaemon is CronRecoveryDaemon


def test_the_folders_are_made(tmp_path: Path) -> None:
    daemon = CronRecoveryDaemon(data_path=tmp_path / "new" / "aggregated")
    assert not (tmp_path / "new").exists()
    daemon.initialize()
    daemon.initialize()
    for folder in (daemon.folders.recovery, daemon.folders.abandoned, daemon.folders.errors, daemon.folders.health):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    daemon = CronRecoveryDaemon(data_path=tmp_path / "file" / "aggregated")
    with pytest.raises(DaemonError, match="cannot be made"):
        daemon.start()
    assert not daemon.is_running()


def test_it_works_by_itself(quick: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink) -> None:
    sink.script = [away, away]
    assert not quick.is_running()
    with quick:
        assert quick.is_running()
        keep(folders, failed())
        wait_until(lambda: not folders.failed_files(), "delivery")
        wait_until(lambda: len(health_files(folders.health)) > 1, "two health checks")
        assert quick.get_metrics().uptime_ms > 0
    assert not quick.is_running()
    assert len(sink.attempts) == 3
    metrics = quick.get_metrics()
    assert metrics.scheduled_tasks_executed > 5
    assert metrics.health_checks_performed > 1
    assert (metrics.cleanup_operations, metrics.uptime_ms) == (1, 0)
    health = json.loads(health_files(folders.health)[-1].read_bytes())["daemonHealth"]
    assert (health["isRunning"], health["pid"]) == (True, os.getpid())


def test_it_can_be_started_again(quick: CronRecoveryDaemon, folders: Folders) -> None:
    for name in ("a", "b"):
        quick.start()
        keep(folders, failed(name))
        wait_until(lambda: not folders.failed_files(), "delivery")
        quick.stop()
        quick.stop()


def test_starting_it_twice(quick: CronRecoveryDaemon) -> None:
    quick.start()
    with pytest.raises(DaemonError, match="running already"):
        quick.start()
    assert quick.is_running()


def test_a_second_daemon_is_refused_with_the_first_one_s_pid(quick: CronRecoveryDaemon, make: Make) -> None:
    second = make(clock=SYSTEM_CLOCK)
    quick.start()
    with pytest.raises(DaemonError, match=rf"process {os.getpid()} works on .*recovery already"):
        second.start()
    assert not second.is_running()
    quick.stop()
    second.start()


DAEMON = """
import sys, time
from totalizer.edge.daemon import CronRecoveryDaemon
daemon = CronRecoveryDaemon(data_path=sys.argv[1])
daemon.start()
sys.stdout.write("x")
sys.stdout.flush()
{end}
"""


def other(folders: Folders, end: str) -> subprocess.Popen[bytes]:
    """A daemon in another process, which has started."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON.format(end=end), str(folders.data)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"
    return process


def test_a_daemon_in_another_process_and_its_end_by_sigkill(quick: CronRecoveryDaemon, folders: Folders) -> None:
    with other(folders, "sys.stdin.read()") as process:
        try:
            assert holder(folders.recovery / DAEMON_LOCK) == process.pid
            with pytest.raises(DaemonError, match=f"process {process.pid} works on"):
                quick.start()
        finally:
            process.send_signal(signal.SIGKILL)
    quick.start()
    assert holder(folders.recovery / DAEMON_LOCK) == os.getpid()


def test_a_program_that_forgets_to_stop_it_ends_cleanly(folders: Folders) -> None:
    with other(folders, "time.sleep(0.3)") as process:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert "daemon-stopped" in (folders.logs / "recovery.log").read_text()


def test_a_forked_child_has_no_daemon_and_takes_none_away(
    quick: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    quick.start()
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        answer = f"{quick.is_running()} "
        quick.stop()
        try:
            quick.start()
        except DaemonError as error:
            answer += str(error)
        os.write(tell, answer.encode())
        os._exit(0)
    answer = os.read(told, 1000).decode()
    os.waitpid(pid, 0)
    os.close(told)
    os.close(tell)
    assert answer.startswith(f"False the recovery daemon of process {os.getpid()} works on")
    assert quick.is_running()
    keep(folders, failed())
    wait_until(lambda: not folders.failed_files(), "delivery by the parent")


def test_the_end_waits_for_a_batch_and_begins_no_other(
    quick: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink
) -> None:
    def stopping(batch: Batch) -> Delivery:
        wait_until(lambda: quick._service.stopping.is_set(), "stop")
        return sink.take(batch)

    sink.script = [stopping]
    for name in ("a", "b", "c"):
        keep(folders, failed(name))
    quick.start()
    wait_until(lambda: bool(sink.attempts), "the first attempt")
    quick.stop()
    assert [batch.batch_id for batch in sink.attempts] == [f"{T0}_a"]
    assert len(folders.failed_files()) == 2
    assert quick.reprocess_failed_batches().succeeded == 2, "by hand it goes on working"


def test_a_recovery_folder_that_is_none(quick: CronRecoveryDaemon, folders: Folders) -> None:
    folders.recovery.rename(folders.data / "hidden")
    folders.recovery.touch()
    with pytest.raises(DaemonError, match="cannot be made"):
        quick.start()
    assert not quick.is_running()


def test_a_job_that_fails_has_its_next_turn(
    quick: CronRecoveryDaemon, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    quick.start()
    hidden = folders.abandoned.rename(folders.recovery / "hidden")
    folders.abandoned.touch()
    wait_until(lambda: "job health failed" in caplog.text, "the failure")
    folders.abandoned.unlink()
    hidden.rename(folders.abandoned)
    checks = len(health_files(folders.health))
    wait_until(lambda: len(health_files(folders.health)) > checks, "the next turn")


@pytest.mark.parametrize("package", ["apscheduler", "psutil"])
def test_a_package_that_is_missing_is_named_with_the_way_out(
    daemon: CronRecoveryDaemon, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"needs {package}.*pip install 'totalizer\[daemon\]'"):
        daemon.start()
    assert not daemon.is_running()
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigurationError, match="needs apprise"):
        CronRecoveryDaemon(alert_urls=["json://host"])
    assert CronRecoveryDaemon(data_path=daemon.folders.data).scan_for_failed_batches() == []


def test_a_fault_within_a_package_is_not_taken_for_its_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import no_such_module_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        needs_module.need("broken_package")


def test_heavy_packages_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, totalizer.edge.daemon\n"
        "heavy = {'apscheduler', 'apprise', 'psutil', 'rich', 'urllib3', 'asyncio'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metrics(daemon: CronRecoveryDaemon, folders: Folders, sink: ScriptedSink, clock: HandClock) -> None:
    before = daemon.get_recovery_metrics()
    assert (before.recovery_success_rate, before.average_recovery_time_ms) == (1.0, 0.0)

    def slow(batch: Batch) -> Delivery:
        clock.forward(30)
        return sink.take(batch)

    def slow_and_away(batch: Batch) -> Delivery:
        clock.forward(10)
        raise SinkUnavailable("no")

    sink.script = [slow, slow_and_away, slow, slow_and_away]
    for name in ("a", "b", "c"):
        keep(folders, failed(name))
    keep(folders, failed("d", retry_count=4))
    daemon.reprocess_failed_batches()
    metrics = daemon.get_recovery_metrics()
    assert (metrics.total_recovery_attempts, metrics.successful_recoveries) == (4, 2)
    assert (metrics.failed_recoveries, metrics.abandoned_batches) == (2, 1)
    assert (metrics.recovery_success_rate, metrics.average_recovery_time_ms) == (0.5, pytest.approx(20.0))
    assert metrics.to_document() == {
        "totalRecoveryAttempts": 4, "successfulRecoveries": 2, "failedRecoveries": 2, "abandonedBatches": 1,
        "recoverySuccessRate": 0.5, "averageRecoveryTime": pytest.approx(20.0),
    }  # fmt: skip


def test_exported_metrics(daemon: CronRecoveryDaemon) -> None:
    exported = daemon.export_metrics().to_document()
    assert list(exported) == ["timestamp", "version", "daemon", "recovery", "health"]
    assert (exported["timestamp"], exported["version"]) == (T0, totalizer.__version__)
    assert exported["daemon"] == {
        "isRunning": False, "uptime": 0, "scheduledTasksExecuted": 0, "healthChecksPerformed": 0,
        "cleanupOperations": 0, "recovery": exported["recovery"],
    }  # fmt: skip
    assert exported["health"]["timestamp"] == T0
    assert health_files(daemon.folders.health) == [], "looking writes nothing"
    json.dumps(exported)
    daemon.perform_health_check()
    assert daemon.export_metrics().health.daemon_health.health_checks_performed == 1
