"""A PostgreSQL data folder: made whole or not at all, configured at every start, its password kept in step."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from totalizer.errors import OperationError
from totalizer.ops.embedded.account import Account
from totalizer.ops.embedded.binaries import PostgresBinaries
from totalizer.ops.embedded.folders import Folders
from totalizer.ops.log import LOG
from totalizer.ops.process import command_lines, end_processes
from totalizer.ops.record import write_private
from totalizer.ops.signals import KILL

SUPERUSER = "postgres"
DATABASE = "totalizer"
CONFIG_NAME = "totalizer.conf"
#: First version with the `builtin` locale provider, which sorts alike on every operating system.
BUILTIN_PROVIDER_MAJOR = 17
_DRAFT_PREFIX = "postgres.new-"


def data_folder(home: Path) -> Path:
    """The data folder of the embedded PostgreSQL."""
    return home / "postgres"


def make_cluster(folders: Folders, binaries: PostgresBinaries, account: Account, password: str) -> None:
    """Make `<home>/postgres` with the superuser and an empty database, if it is not there yet.

    It is made aside and renamed when it is complete and on disk, so a start that was cut short leaves nothing
    half-made in its place.

    Raises:
        OperationError: initdb failed; the message holds what it said.
    """
    remove_half_made(folders, account)
    data = data_folder(folders.home)
    if data.exists():
        return
    draft = folders.home / f"{_DRAFT_PREFIX}{os.getpid()}"
    draft.mkdir(mode=0o700)
    account.give(draft)
    LOG.info("making the database in %s", data)
    with _password_file(folders.home, account, password) as password_file:
        account.run(*_initdb(binaries, draft, password_file))
    account.run(
        "/bin/sh",
        "-c",
        'echo "include \'$2\'" >> "$1/postgresql.conf"; : > "$1/$2"',
        "sh",
        str(draft),
        CONFIG_NAME,
    )
    single_user(binaries, account, draft, f"CREATE DATABASE {DATABASE}", database="template1")
    os.replace(draft, data)
    _sync(folders.home)
    _keep_password_id(folders, password)


def _initdb(binaries: PostgresBinaries, draft: Path, password_file: Path) -> list[str]:
    locale = ["--locale=C"]
    if binaries.major >= BUILTIN_PROVIDER_MAJOR:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [
        binaries.program("initdb"), f"--pgdata={draft}", f"--username={SUPERUSER}", f"--pwfile={password_file}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums", "--no-instructions", *locale,
    ]  # fmt: skip


@contextlib.contextmanager
def _password_file(home: Path, account: Account, password: str) -> Iterator[Path]:
    path = home / f".postgres-password-{os.getpid()}"
    write_private(path, password + "\n")
    try:
        account.give(path)
        yield path
    finally:
        path.unlink()


def remove_half_made(folders: Folders, account: Account) -> None:
    """Remove what a first start left that was killed, its initdb included."""
    for leftover in folders.home.glob(".postgres-password-*"):
        leftover.unlink()
    for draft in folders.home.glob(f"{_DRAFT_PREFIX}*"):
        LOG.info("removing %s, left by a start that did not end", draft)
        working = [process for process, arguments in command_lines() if any(str(draft) in part for part in arguments)]
        end_processes(working, KILL)
        account.remove_tree(draft)


def single_user(
    binaries: PostgresBinaries, account: Account, data: Path, statement: str, *, database: str = SUPERUSER
) -> None:
    """Run one statement on a data folder whose server is down, without any password.

    Raises:
        OperationError: it failed.
    """
    # --single may report a failed statement on standard error and still exit with 0. The statement may hold a
    # password, so it is not repeated with the error.
    output = account.run(
        "/bin/sh", "-c", 'exec "$0" "$@" 2>&1', binaries.program("postgres"), "--single", "-D", str(data),
        "-c", "exit_on_error=on", "-c", "log_min_messages=error", "-c", "log_min_error_statement=panic", database,
        text=statement + "\n",
    )  # fmt: skip
    if "ERROR:" in output or "FATAL:" in output:
        raise OperationError(f"PostgreSQL in single-user mode said: {output.strip()}")


def write_config(home: Path, account: Account, text: str) -> None:
    """Write the configuration into the data folder."""
    account.write(data_folder(home) / CONFIG_NAME, text)


def keep_password(folders: Folders, binaries: PostgresBinaries, account: Account, password: str) -> None:
    """Set the superuser's password if the secret is another one than at the last start. The server must be down."""
    if _password_id_path(folders).exists() and _password_id_path(folders).read_text() == password_id(password):
        return
    LOG.info("the secret has changed: setting the database superuser's password anew")
    statement = f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'"  # hexadecimal, nothing to escape
    single_user(binaries, account, data_folder(folders.home), statement)
    _keep_password_id(folders, password)


def password_id(password: str) -> str:
    """A digest that tells whether two passwords are the same, and nothing else about them."""
    return hashlib.sha256(b"password id " + password.encode()).hexdigest()


def _password_id_path(folders: Folders) -> Path:
    return folders.run / "postgres.password-id"


def _keep_password_id(folders: Folders, password: str) -> None:
    write_private(_password_id_path(folders), password_id(password))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
