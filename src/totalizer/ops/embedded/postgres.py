"""PostgreSQL as a child process, on a Unix socket only."""

from __future__ import annotations

import hashlib
import signal
import socket
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.ops.embedded.account import Account, choose_account, clean_environment, open_way
from totalizer.ops.embedded.binaries import PostgresBinaries, find_postgres, make_runnable
from totalizer.ops.embedded.cluster import (
    DATABASE,
    SUPERUSER,
    data_folder,
    keep_password,
    make_cluster,
    password_id,
    write_config,
)
from totalizer.ops.embedded.config import MAX_CONNECTIONS, PostgresConfig, cluster_name
from totalizer.ops.embedded.server import EmbeddedServer
from totalizer.ops.process import ProcessId, command_lines, end_processes
from totalizer.store.password import password_for

#: The port in the socket's name. There is no TCP port.
SOCKET_PORT = 5432
#: Seconds that a probe waits for the server's answer.
PROBE_SECONDS_MAX = 1.0
#: Server processes that outlived their postmaster: immediate shutdown, then the end.
ORPHAN_STEPS = ((signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0))


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server with the database `totalizer` and the superuser `postgres`.

    Args:
        home: data folder of the installation; the database lies in `<home>/postgres`.
        secret: from it the superuser's password is derived; another one than last time changes the password.
        system_user: whom to run it as when this process is root and the database is new; default: the user
            `postgres`, else one made for it.
        max_connections: at least 10.
        fsync: False only for tests; a stop of the machine then loses data.
        clock: time source.
    """

    name = "postgres"
    # Fast shutdown ends sessions and writes a checkpoint; immediate leaves the work to recovery.
    stop_steps = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))

    def __init__(
        self,
        home: Path,
        secret: str,
        *,
        system_user: str | None = None,
        max_connections: int = MAX_CONNECTIONS,
        fsync: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(home, clock=clock)
        self._secret = secret
        self._system_user = system_user
        self._max_connections, self._fsync = max_connections, fsync
        self._password = password_for(secret, SUPERUSER)
        self._found: tuple[PostgresBinaries, Account] | None = None

    @property
    def data(self) -> Path:
        """The database's folder."""
        return data_folder(self.folders.home)

    @property
    def socket_dir(self) -> Path:
        """The folder of the Unix socket."""
        return self.folders.postgres_sockets

    @property
    def url(self) -> str:
        """Connection string without user and password."""
        return f"postgresql:///{DATABASE}?host={self.socket_dir}"

    def dsn(self, role: str, database: str = DATABASE) -> str:
        """A connection string with the password of a role.

        Args:
            role: database role, `postgres` or one that was given the derived password.
            database: database name.
        """
        password = password_for(self._secret, role)
        return f"postgresql://{quote(role, safe='')}:{password}@/{quote(database, safe='')}?host={self.socket_dir}"

    def program(self, name: str) -> str:
        """Absolute path of a program of this PostgreSQL, for example `psql`."""
        return self._installation()[0].program(name)

    def answers(self) -> bool:
        return self._status() in ("ready", None) and _accepts_connections(self.socket_dir)

    def _status(self) -> str | None:
        """What the server last said of itself: starting, ready, stopping; empty at first. None if unreadable."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        except PermissionError:
            return None
        return lines[7].strip() if len(lines) > 7 else ""

    def _installation(self) -> tuple[PostgresBinaries, Account]:
        if self._found is None:
            account = choose_account(self.data, self._system_user)
            account.require_switch()
            self._found = make_runnable(find_postgres(), account, self.folders.home / "bin"), account
        return self._found

    def _prepare(self) -> None:
        binaries, account = self._installation()
        open_way(self.data, account)
        open_way(self.socket_dir, account)
        self._make_socket_folder(account)
        make_cluster(self.folders, binaries, account, self._password)
        write_config(self.folders.home, account, self._config())

    def _make_socket_folder(self, account: Account) -> None:
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        account.give(self.socket_dir)
        if account.switched and not _enterable(self.socket_dir):
            account.lend(self.socket_dir)

    def _config(self) -> str:
        switched = self._installation()[1].switched
        mode = "0777" if switched else "0700"
        return PostgresConfig(self._max_connections, self._fsync, mode).text(self.folders)

    def _fingerprint(self) -> str:
        program = Path(self.program("postgres"))
        parts = (str(program), str(program.stat().st_mtime_ns), self._config(), password_id(self._password))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _find_running(self) -> ProcessId | None:
        for process, arguments in command_lines():
            if self._is_postmaster(arguments) and process.running():
                return process
        return None

    def _is_postmaster(self, arguments: list[str]) -> bool:
        return arguments[1:3] == ["-D", str(self.data)] and Path(arguments[0]).name == "postgres"

    def _orphans(self) -> list[ProcessId]:
        title = f"postgres: {cluster_name(self.folders)}: "
        return [process for process, arguments in command_lines() if " ".join(arguments).startswith(title)]

    def _before_launch(self) -> None:
        """No postmaster runs: end its orphans, and remove lock files whose pid may meanwhile be somebody else's."""
        binaries, account = self._installation()
        end_processes(self._orphans(), ORPHAN_STEPS, self._clock)
        locks = [
            self.socket_dir / f".s.PGSQL.{SOCKET_PORT}",
            self.socket_dir / f".s.PGSQL.{SOCKET_PORT}.lock",
        ]
        account.remove(self.data / "postmaster.pid", *locks)
        keep_password(self.folders, binaries, account, self._password)

    def _command(self) -> list[str]:
        return [self.program("postgres"), "-D", str(self.data)]

    def _launch_options(self) -> dict[str, Any]:
        account = self._installation()[1]
        return {"cwd": "/", "env": clean_environment(), "umask": 0o077, **account.options()}

    def _after_stop(self) -> None:
        # There are some only if the postmaster was killed.
        end_processes(self._orphans(), ORPHAN_STEPS, self._clock)


def _enterable(folder: Path) -> bool:
    try:
        list(folder.iterdir())
    except PermissionError:
        return False
    return True


def _accepts_connections(socket_dir: Path) -> bool:
    """True if the server asks for a password, as pg_isready finds out.

    Message formats: https://www.postgresql.org/docs/current/protocol-message-formats.html
    """
    parameters = f"user\0{SUPERUSER}\0database\0{SUPERUSER}\0\0".encode()
    startup = struct.pack("!ii", 8 + len(parameters), 196608) + parameters
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PROBE_SECONDS_MAX)
        try:
            connection.connect(str(socket_dir / f".s.PGSQL.{SOCKET_PORT}"))
            connection.sendall(startup)
            # All of it: closing with unread bytes would reset the connection and leave a line in the server's log.
            return connection.recv(1024).startswith(b"R")
        except OSError:  # not there yet, or not listening yet
            return False
