"""The system user that PostgreSQL runs as.

PostgreSQL refuses to run as root. Started by root, it runs as the owner of its data folder, else as the user
`postgres` if the machine has one, else as a system user made once. Everybody else runs it as themselves.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalizer.errors import OperationError
from totalizer.ops.log import LOG

#: Existing user taken first.
USUAL_USER = "postgres"
#: User made when the machine has no such user.
OWN_USER = "totalizer"
#: Seconds a helper run as the account may take.
HELPER_SECONDS_MAX = 30


@dataclass(frozen=True)
class Account:
    """A user to run programs as.

    Attributes:
        uid: user id.
        gid: its primary group.
        name: for messages.
        switched: True if it is another user than the one running this process.
    """

    uid: int
    gid: int
    name: str
    switched: bool

    def options(self) -> dict[str, Any]:
        """Keyword arguments that make subprocess run a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switched else {}

    def give(self, path: Path) -> None:
        """Make this user the owner of `path`.

        Raises:
            OperationError: root may not change owners here.
        """
        if not self.switched or path.stat().st_uid == self.uid:
            return
        try:
            os.chown(path, self.uid, self.gid)
        except PermissionError as error:
            raise OperationError(
                f"cannot give {path} to user {self.name}: {error}. PostgreSQL does not run as root: run this as an "
                "ordinary user, or set DATABASE_URL"
            ) from error

    def write(self, path: Path, text: str) -> None:
        """Write a file, mode 0600, in a folder that belongs to this user."""
        if self.switched:
            self.run("/bin/sh", "-c", 'umask 077; cat > "$1.new" && mv "$1.new" "$1"', "sh", str(path), text=text)
            return
        draft = path.with_name(path.name + ".new")
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o600)
        os.replace(draft, path)

    def require_switch(self) -> None:
        """Make sure that programs can be run as this user.

        Raises:
            OperationError: this root may not switch to another user, as in a container without CAP_SETUID.
        """
        if self.switched:
            try:
                self.run("/bin/sh", "-c", ":")
            except OperationError as error:
                raise OperationError(
                    f"PostgreSQL does not run as root, and this root may not become user {self.name} ({error}). Run "
                    "this as an ordinary user, or set DATABASE_URL"
                ) from error

    def lend(self, folder: Path) -> None:
        """Let this process' own group enter a folder of this user: a root without capabilities needs it."""
        self.run("/bin/chmod", "0750", str(folder))
        os.chown(folder, -1, os.getegid())

    def remove(self, *files: Path) -> None:
        """Remove files, those that exist, in folders of this user."""
        if self.switched:
            self.run("/bin/rm", "-f", "--", *map(str, files))
            return
        for file in files:
            file.unlink(missing_ok=True)

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder of this user and all in it."""
        if self.switched:
            self.run("/bin/sh", "-c", 'rm -rf "$1"/* "$1"/.[!.]*', "sh", str(folder))
        shutil.rmtree(folder)

    def run(self, *arguments: str, text: str = "") -> str:
        """Run a short helper as this user and return what it wrote to standard output.

        Raises:
            OperationError: it could not be run or failed; the message holds what it wrote.
        """
        try:
            done = subprocess.run(
                arguments, input=text, capture_output=True, text=True, cwd="/", timeout=HELPER_SECONDS_MAX,
                env=clean_environment(), **self.options(),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OperationError(f"cannot run {arguments[0]} as user {self.name}: {error}") from error
        if done.returncode != 0:
            output = "\n".join(part for part in (done.stdout.strip(), done.stderr.strip()) if part)
            raise OperationError(f"{arguments[0]} failed as user {self.name} (exit {done.returncode}):\n{output}")
        return str(done.stdout)


def clean_environment() -> dict[str, str]:
    """An environment without the variables that change what PostgreSQL does (PGDATA, PGOPTIONS, LC_…)."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def choose_account(data: Path, system_user: str | None = None) -> Account:
    """The account for the data folder `data`.

    Args:
        data: need not exist yet; if it does, its owner decides.
        system_user: user to take when run as root and the folder is new.

    Raises:
        OperationError: the folder is somebody else's, or no user can be made.
    """
    me = os.geteuid()
    owner = data.stat().st_uid if data.exists() else None
    if me != 0:
        if owner not in (None, me):
            raise OperationError(
                f"{data} belongs to user {_name(owner)}, this is user {_name(me)}; run this as its owner or as root, "
                "or choose another data folder (--home)"
            )
        if owner is None and _name(me) == str(me):
            raise OperationError(
                f"user id {me} has no name here, and PostgreSQL refuses to make a database for it: give it a line in "
                "/etc/passwd, or set DATABASE_URL"
            )
        return Account(me, os.getegid(), _name(me), switched=False)
    if owner is not None and owner != 0:
        return Account(owner, data.stat().st_gid, _name(owner), switched=True)
    entry = _existing(system_user) if system_user else _usual_user()
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switched=True)


def _name(uid: int | None) -> str:
    if uid is None:
        return "?"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under a number without a name
        return str(uid)


def _existing(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise OperationError(f"there is no system user {name!r} to run PostgreSQL as") from error


def _usual_user() -> pwd.struct_passwd:
    for name in (USUAL_USER, OWN_USER):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    _make_user()
    return _existing(OWN_USER)


def _make_user() -> None:
    command = [
        "useradd",
        "--system",
        "--no-create-home",
        "--home-dir",
        "/",
        "--shell",
        "/bin/false",
        OWN_USER,
    ]
    if shutil.which("useradd") is None:  # BusyBox
        command = ["adduser", "-S", "-D", "-H", "-h", "/", "-s", "/bin/false", OWN_USER]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise OperationError(
            f"PostgreSQL does not run as root, and the system user {OWN_USER!r} could not be made: {reason}. Run this "
            "as an ordinary user, make that user, or set DATABASE_URL"
        ) from error
    LOG.info("made the system user %s to run PostgreSQL as", OWN_USER)


def open_way(path: Path, account: Account) -> None:
    """Let `account` reach `path`: add the search bit for others to the folders above it that lack it.

    Only that bit, so that nobody can list them; every change is logged. Nothing is done for one's own account.

    Raises:
        OperationError: a folder's mode cannot be changed.
    """
    if not account.switched:
        return
    for folder in reversed(path.parents):
        mode = folder.stat()
        if _may_search(mode, account):
            continue
        try:
            folder.chmod(stat.S_IMODE(mode.st_mode) | stat.S_IXOTH)
        except OSError as error:
            raise OperationError(
                f"user {account.name}, who runs PostgreSQL, cannot pass through {folder}: {error}. Choose a data "
                "folder that it can reach (--home)"
            ) from error
        LOG.info("added the search bit (o+x) to %s so that user %s can pass through", folder, account.name)


def _may_search(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
