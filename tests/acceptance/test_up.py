"""`totalizer up` as a user meets it: everything on one machine with one command, and again after every kind of end."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import family_of, of_each
from totalizer.ops.embedded import EmbeddedPostgres
from totalizer.ops.state import State, read_state
from totalizer.store.audit import os_user

PATIENCE = 60.0
#: What the idle stack may take of the machine's memory.
MEMORY_BYTES_MAX = 400 << 20


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Install:
    """A data folder, and commands run on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
            "TOTALIZER_REFRESH_INTERVAL_MS": "100",
        }
        self.started: list[subprocess.Popen[str]] = []
        self._log = home.parent / "up.log"

    def begin(self, **variables: str) -> subprocess.Popen[str]:
        with open(self._log, "w") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "totalizer", "up", "--home", str(self.home), "--port", str(self.port)],
                env={**self.environment, **variables}, cwd=self.home.parent, text=True, stdout=log, stderr=log,
            )  # fmt: skip
        self.started.append(child)
        return child

    def output(self) -> str:
        return self._log.read_text()

    def up(self, **variables: str) -> subprocess.Popen[str]:
        child = self.begin(**variables)
        wait_for(lambda: "is ready" in self.output() or child.poll() is not None, "the stack was not ready")
        assert child.poll() is None, self.output()
        return child

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "totalizer", *arguments], cwd=self.home.parent, text=True, capture_output=True,
            env={**self.environment, "TOTALIZER_HOME": str(self.home), **variables},
        )  # fmt: skip

    def state(self) -> State:
        state = read_state(self.home)
        assert state is not None
        return state

    def send(self, number: int) -> int:
        event = {
            "id": f"request {number}",
            "requested_at": "2025-09-05T10:00:00Z",
            "remote_host": "192.0.2.1",
            "method": "GET",
            "path": "/",
            "status": 200,
            "response_bytes": number,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/metrics/requests",
            json.dumps(event).encode(),
            {
                "Authorization": f"Bearer {(self.home / 'api-key').read_text().strip()}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)

    def stored(self) -> int:
        done = self.run("psql", "--role", "refresher", "-Atc", "SELECT count(*) FROM events.http_requests")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)


def end(child: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> int:
    child.send_signal(number)
    return child.wait(PATIENCE)


@pytest.fixture
def install() -> Iterator[Install]:
    folder = Path(tempfile.mkdtemp(prefix="tz-", dir="/tmp"))
    install = Install(folder / "home")
    yield install
    for child in install.started:
        if child.poll() is None:
            child.kill()
        child.wait()
    install.run("down")
    left = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                left.append(process.cmdline())
        except psutil.Error:
            continue
    shutil.rmtree(folder)
    assert left == []


def test_first_start_events_stop_and_second_start(install: Install) -> None:
    child = install.up()
    output = install.output()
    for part in (f"http://127.0.0.1:{install.port}", "totalizer psql", str(install.home / "api-key"), "postgres "):
        assert part in output
    assert (install.home / "api-key").stat().st_mode & 0o777 == 0o600
    assert (install.home / "secret").read_text().strip() not in output
    assert [install.send(number) for number in range(3)] == [202, 202, 202]
    wait_for(lambda: install.stored() == 3, "the events were not stored")
    assert end(child) == 0
    key = (install.home / "api-key").read_text()

    child = install.up()
    assert (install.home / "api-key").read_text() == key
    assert install.send(3) == 202
    wait_for(lambda: install.stored() == 4, "the event was not stored")
    verified = install.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert end(child, signal.SIGTERM) == 0


def test_idle_it_is_small_and_listens_on_one_port(install: Install) -> None:
    child = install.up()
    processes = family_of(child.pid)
    memory = of_each(processes, memory_of)
    assert len(memory) > len(install.state().pids)
    assert sum(memory) < MEMORY_BYTES_MAX
    assert set().union(*of_each(processes, listened_to)) == {install.port}
    secret = (install.home / "secret").read_text().strip()
    assert [line for line in of_each(processes, psutil.Process.cmdline) if secret in " ".join(line)] == []


def memory_of(process: psutil.Process) -> int:
    """Its bytes; what processes share is counted once."""
    return int(getattr(process.memory_full_info(), "pss", process.memory_info().rss))


def listened_to(process: psutil.Process) -> set[int]:
    """The TCP ports it waits for connections at."""
    connections = process.net_connections("inet")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_commands_find_the_running_stack(install: Install) -> None:
    assert install.run("status").returncode == 3
    install.up()
    status = install.run("status")
    assert status.returncode == 0
    assert any(line.split() == ["Ready", "ready"] for line in status.stdout.splitlines()), status.stdout
    roles = {"app": "totalizer_app", "writer": "totalizer_writer", "refresher": "totalizer_refresher"}
    for role, user in {**roles, "owner": "totalizer_owner", "postgres": "postgres"}.items():
        done = install.run(
            "psql", "--role", role, "-Atc", "SELECT current_user, current_setting('app.actor')::jsonb ->> 'id'"
        )
        assert (done.stdout, done.returncode) == (f"{user}|{os_user()}\n", 0), done.stderr
    made = install.run("keys", "create", "acme")
    assert made.stdout.startswith("tz_")
    listed = install.run("keys", "list").stdout
    line = next(line for line in listed.splitlines() if "acme" in line)
    assert made.stdout.strip() not in listed
    assert install.run("keys", "revoke", line.split()[1]).returncode == 0
    assert "revoked" in next(line for line in install.run("keys", "list").stdout.splitlines() if "acme" in line)
    assert install.run("catalog", "plan").stdout == "up to date\n"
    assert install.run("migrate").stdout == "up to date\n"
    refused = install.run("up", "--port", str(free_port()))
    assert refused.returncode == 1
    assert f"pid {install.state().pid}" in refused.stderr
    down = install.run("down")
    assert (down.stdout, down.returncode) == ("stopped: up\n", 0)
    assert install.started[0].wait(PATIENCE) == 0


def test_after_kill_9_of_everything_nothing_acknowledged_is_lost(install: Install) -> None:
    child = install.up()
    acknowledged = sum(install.send(number) == 202 for number in range(20))
    pids = [child.pid, *install.state().pids.values()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    child.wait()
    install.up()
    wait_for(lambda: install.stored() == acknowledged, "acknowledged events were lost")


def test_after_kill_9_of_the_supervisor_the_servers_are_taken_over(install: Install) -> None:
    child = install.up()
    before = install.state().pids
    assert install.send(1) == 202
    child.kill()
    child.wait()
    install.up()
    after = install.state().pids
    assert (after["postgres"], after["valkey"]) == (before["postgres"], before["valkey"])
    assert not set(after.values()) & {before["api"], before["loader"], before["scheduler"]}
    assert install.send(2) == 202
    wait_for(lambda: install.stored() == 2, "an event was not stored")


def test_a_killed_part_comes_back_and_work_goes_on(install: Install) -> None:
    install.up()
    before = install.state().pids
    for name in ("loader", "postgres", "scheduler", "api"):
        os.kill(before[name], signal.SIGKILL)

    def all_back() -> bool:
        now = install.state().pids
        return all(now.get(name) not in (None, before[name]) for name in ("loader", "postgres", "scheduler", "api"))

    def sent() -> bool:
        try:
            return install.send(7) == 202
        except (OSError, urllib.error.URLError):
            return False

    wait_for(all_back, "a part was not started again")
    wait_for(sent, "the API did not come back")
    wait_for(lambda: install.stored() == 1, "the event was not stored")


def test_a_busy_port_is_named(install: Install) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", install.port))
        other.listen()
        child = install.begin()
        assert child.wait(PATIENCE) == 1
    assert f"port {install.port}" in install.output()
    assert "PORT" in install.output()
    assert not (install.home / "postgres").exists()


def test_another_postgresql_is_used_and_waited_for(install: Install) -> None:
    server = EmbeddedPostgres(install.home.parent / "elsewhere", "its own secret")
    server.start()
    url = server.dsn("postgres")
    server.stop()
    child = install.begin(DATABASE_URL=url)
    wait_for(lambda: "still waiting for migrate" in install.output(), "nothing was said about the missing database")
    with server:
        wait_for(
            lambda: "is ready" in install.output() or child.poll() is not None, "not ready with the database there"
        )
        assert child.poll() is None, install.output()
        assert set(install.state().pids) == {"valkey", "api", "loader", "scheduler", "monitor"}
        assert not (install.home / "postgres").exists()
        assert install.send(1) == 202
        count: list[Any] = []

        def stored() -> bool:
            done = install.run("psql", "--role", "refresher", "-Atc", "SELECT count(*) FROM events.http_requests",
                               DATABASE_URL=url)  # fmt: skip
            count.append(done.stdout + done.stderr)
            return done.stdout == "1\n"

        wait_for(stored, "the event was not stored in the other database")
        assert url.split(":")[2].split("@")[0] not in install.output()
        assert end(child) == 0


def test_stopping_while_the_database_is_away(install: Install) -> None:
    child = install.begin(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    wait_for(lambda: "still waiting for migrate" in install.output(), "nothing was said about the missing database")
    assert end(child) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_needs_no_root(install: Install) -> None:
    nobody = pwd.getpwnam("nobody")
    options: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", "import totalizer.ops.cli"], check=True, capture_output=True, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this interpreter cannot be run by another user: {error}")
    install.home.mkdir()
    os.chown(install.home, nobody.pw_uid, nobody.pw_gid)
    install.home.parent.chmod(0o755)
    child = subprocess.Popen(
        [sys.executable, "-m", "totalizer", "up", "--home", str(install.home), "--port", str(install.port)],
        env=install.environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip
    install.started.append(child)
    assert child.stdout is not None
    line = child.stdout.readline()
    assert "is ready" in line, line + child.stdout.read()
    assert install.send(1) == 202
    assert end(child) == 0
    child.stdout.close()
