"""A journal's folder: made durably, checked for its owner, locked for one writer, named by an id of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from totalizer.clock import Clock
from totalizer.errors import JournalBusy, JournalFailed
from totalizer.journal.disk import Disk, read_file

IDENTITY_NAME = "journal.json"
LOCK_NAME = "lock"
IDENTITY_FORMAT = "totalizer journal"
IDENTITY_VERSION = 1
#: Seconds a writer waits for a process that is only recovering the folder: scanning a segment of 1 GiB takes
#: a few.
RECOVERING_WAIT_S = 10.0
_LOCK_POLL_S = 0.01
_NOTE_BYTES = 32


def make_folder(folder: Path, disk: Disk) -> None:
    """Make `folder` and its missing ancestors, mode 0700, so that they survive a power loss. OSError if refused."""
    missing = []
    path = folder.absolute()
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process made it, and may not have synced it yet
            disk.mkdir(path)
        disk.sync_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Refuse a folder that others could have put there.

    Raises:
        JournalFailed: it does not exist, is a symbolic link or no folder, belongs to another user, or the disk refuses.
    """
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        raise JournalFailed(f"{folder} does not exist") from None
    except OSError as error:
        raise JournalFailed(f"{folder} cannot be looked at: {error}") from error
    if stat.S_ISLNK(status.st_mode):
        raise JournalFailed(f"{folder} is a symbolic link; name the folder it points to")
    if not stat.S_ISDIR(status.st_mode):
        raise JournalFailed(f"{folder} is not a folder; move it away or name another")
    if status.st_uid != os.geteuid():
        raise JournalFailed(
            f"{folder} belongs to user {status.st_uid} and this process runs as {os.geteuid()}; run it as that user"
        )


@dataclass(frozen=True)
class Identity:
    """What `journal.json` says.

    Attributes:
        id: UUID of the journal, made with the folder.
        floor: no segment with this number or a lower one will be made again.
        sequence: the next record's is this or higher.
    """

    id: str
    floor: int = 0
    sequence: int = 1

    @property
    def id_bytes(self) -> bytes:
        """The id as the 16 bytes in every segment's header."""
        return uuid.UUID(self.id).bytes


def load_identity(folder: Path) -> Identity | None:
    """The identity kept in `folder`; None if there is none.

    Raises:
        JournalFailed: made by a later version of the format.
        ValueError: the file is damaged.
    """
    try:
        data = read_file(folder / IDENTITY_NAME)
    except FileNotFoundError:
        return None
    kept = json.loads(data)
    if not isinstance(kept, dict) or kept.get("format") != IDENTITY_FORMAT:
        raise ValueError(f"not a {IDENTITY_FORMAT}")
    if kept.get("version") != IDENTITY_VERSION:
        raise JournalFailed(
            f"{folder} has version {kept.get('version')}, this program reads {IDENTITY_VERSION}: upgrade it"
        )
    try:
        return Identity(str(uuid.UUID(kept["id"])), int(kept["floor"]), int(kept["sequence"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"member missing or of the wrong type: {error}") from error


def store_identity(folder: Path, identity: Identity, disk: Disk) -> None:
    """Keep the identity durably. OSError if the disk refuses."""
    members = {"format": IDENTITY_FORMAT, "version": IDENTITY_VERSION, **asdict(identity)}
    disk.replace_file(folder / IDENTITY_NAME, json.dumps(members, indent=1).encode() + b"\n")


class FolderLock:
    """An flock on `lock`, held by the one process that may write, and gone with it however it ends.

    The file says who: `writer 1234` or `recovering 1234`. It is for people and for messages; the lock is what
    counts.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._descriptor = -1

    def acquire(self, role: str) -> bool:
        """Take the lock if it is free; False if another holds it. OSError if the disk refuses."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._note(descriptor, f"{role} {os.getpid()}")
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def acquire_for_writing(self, clock: Clock) -> None:
        """Take the lock, waiting up to RECOVERING_WAIT_S for one who only recovers.

        Raises:
            JournalBusy: another writer has it; names the process.
        """
        deadline = clock.monotonic() + RECOVERING_WAIT_S
        while not self.acquire("writer"):
            role, pid = self._holder()
            if (role == "writer" and _alive(pid)) or clock.monotonic() >= deadline:
                raise JournalBusy(f"{self._path.parent} is in use by process {pid or '?'}; one process a journal")
            clock.sleep(_LOCK_POLL_S)

    def release(self) -> None:
        """Give the lock back. Nothing happens if it is not held."""
        if self._descriptor >= 0:
            # The note is for people, and a disk that refuses must not keep the lock.
            with contextlib.suppress(OSError):
                self._note(self._descriptor, "free 0")
            self.forget()

    def forget(self) -> None:
        """Close this process' descriptor. In a forked child that leaves the parent's lock alone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _note(self, descriptor: int, text: str) -> None:
        """Always as long, so that a full disk, which is to be recovered and drained, has room for it."""
        os.pwrite(descriptor, f"{text:<{_NOTE_BYTES - 1}}\n".encode(), 0)

    def _holder(self) -> tuple[str, int]:
        """Role and process in the file; a dead holder's note may stand for a moment after the lock changed hands."""
        role, _, pid = self._path.read_text().strip().partition(" ")
        return role, int(pid) if pid.isdecimal() else 0


def _alive(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, as somebody else
        return True
    return True
