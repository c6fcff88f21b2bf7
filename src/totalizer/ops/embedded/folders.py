"""The folders of the embedded servers, and where their sockets go when the data folder's path is too long."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from totalizer.errors import OperationError

#: Bytes of a socket's path. The kernel takes 107 on Linux and 103 on macOS.
SOCKET_PATH_BYTES_MAX = 100
#: A path that needs no quoting in PostgreSQL's and Valkey's files, in a connection string and in a URL. libpq reads
#: a comma as a list of hosts.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]+").fullmatch


@dataclass(frozen=True)
class Folders:
    """Where things are for one data folder.

    Attributes:
        home: absolute data folder, symbolic links resolved.
        runtime: folder of the sockets: `<home>/run`, or a short one below the system's temporary folder.
    """

    home: Path
    runtime: Path

    @classmethod
    def of(cls, home: Path) -> Folders:
        """The folders for `home`, which need not exist."""
        home = home.expanduser().resolve()
        for runtime in (
            home / "run",
            _short_folder(home, tempfile.gettempdir()),
            _short_folder(home, "/tmp"),
        ):
            if _fits(runtime):
                return cls(home, runtime)
        raise OperationError(f"no folder for sockets: the path of {tempfile.gettempdir()} is too long; set TMPDIR")

    @property
    def key(self) -> str:
        """Short name of this data folder among those of the machine."""
        return _key(self.home)

    @property
    def run(self) -> Path:
        """Records of what runs."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """One log for each part."""
        return self.home / "log"

    @property
    def postgres_sockets(self) -> Path:
        """Where PostgreSQL listens."""
        return self.runtime / "pg"

    @property
    def valkey_socket(self) -> Path:
        """Where Valkey listens."""
        return self.runtime / "valkey.sock"

    def make(self) -> None:
        """Make home, run, log and the sockets' folder, each 0700 when new.

        Raises:
            OperationError: one cannot be made, or the one in the shared temporary folder is not ours alone.
        """
        try:
            for folder in (self.home, self.run, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.runtime != self.run:
                _claim(self.runtime)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise OperationError(
                f"cannot use {self.home} as the data folder: {error}; choose another one (--home)"
            ) from error

    def clean(self) -> None:
        """Remove the sockets' folder from the shared temporary folder if nothing is left in it."""
        if self.runtime != self.run:
            # Not empty while the other server still runs: that one, when it stops, comes here again.
            with contextlib.suppress(OSError):
                self.postgres_sockets.rmdir()
            with contextlib.suppress(OSError):
                self.runtime.rmdir()


def _key(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]


def _short_folder(home: Path, base: str) -> Path:
    return Path(base) / f"totalizer-{os.geteuid()}-{_key(home)}"


def _fits(runtime: Path) -> bool:
    longest = str(runtime / "pg" / ".s.PGSQL.5432")
    return len(os.fsencode(longest)) <= SOCKET_PATH_BYTES_MAX and _PLAIN_PATH(longest) is not None


def _claim(folder: Path) -> None:
    """Make a folder where everybody may make some, or take the one we made before; nobody else's."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o066:
        raise OperationError(f"{folder} is not a folder of this user alone; remove it and start again")
