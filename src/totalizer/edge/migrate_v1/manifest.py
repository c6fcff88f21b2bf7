"""What a migration is about to do, or did: kept beside the originals, so that it can be finished or undone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from totalizer.errors import OperationError
from totalizer.journal.disk import DISK, Disk
from totalizer.prepared import prepared

#: Folder below the source that the originals are moved to, and the file in it that says what became of each.
BACKUP_NAME = "v1-backup"
MANIFEST_NAME = "manifest.json"
_FORMAT = "totalizer migration of version 1 batch files"
_VERSION = 1


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """One file's way.

    Attributes:
        source: the original, relative to the source folder; below BACKUP_NAME, the same path is its backup.
        source_digest: of its bytes.
        target: absolute path of the new file.
        target_digest: of its bytes.
        entries: how many are in it.
    """

    source: str
    source_digest: str
    target: str
    target_digest: str
    entries: int


@prepared
class Manifest(msgspec.Struct, rename="camel"):
    """All steps of the migrations of one source folder that have not been undone."""

    format: str = _FORMAT
    version: int = _VERSION
    migrated_at: int = 0
    steps: list[Step] = []


def digest_of(data: bytes) -> str:
    """The digest by which a file is known again, 64 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str | None:
    """The digest of a file's bytes; None if it is not there. OSError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def load_manifest(source: Path) -> Manifest | None:
    """The manifest kept below `source`; None if there is none.

    Raises:
        OperationError: it cannot be read.
    """
    path = source / BACKUP_NAME / MANIFEST_NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OperationError(f"{path} cannot be read ({error}); the originals are beside it") from error
    if (manifest.format, manifest.version) != (_FORMAT, _VERSION):
        raise OperationError(f"{path} is of another version of this program; use that one")
    return manifest


def store_manifest(source: Path, manifest: Manifest, disk: Disk = DISK) -> None:
    """Keep the manifest durably. OSError if the disk refuses."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    disk.replace_file(source / BACKUP_NAME / MANIFEST_NAME, data)
