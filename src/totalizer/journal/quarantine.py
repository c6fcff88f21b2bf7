"""What could not be read as records: the bytes kept aside in `quarantine/`, and a note of what was lost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from totalizer import failpoint
from totalizer.failpoint import Failpoint
from totalizer.journal.disk import Disk, read_file

QUARANTINE_NAME = "quarantine"


@dataclass(frozen=True)
class Damage:
    """A stretch of a segment, or a whole one, that holds no readable records.

    Attributes:
        segment: its number.
        offset: first damaged byte.
        length: how many bytes.
        records_lost: how many records were in it, from the gap in the sequence; None if that cannot be told.
        reason: what was found, for people.
        kept: name of the copy in `quarantine/`; None if there were no bytes to copy or copying failed.
    """

    segment: int
    offset: int
    length: int
    records_lost: int | None
    reason: str
    kept: str | None = None


def keep(folder: Path, damage: Damage, data: bytes, disk: Disk) -> Damage:
    """Copy damaged bytes to the quarantine, durably, once.

    Returns:
        The damage with `kept` set; the note already there if the same place was kept before; or, if the copy
        could not be made (a full disk), the damage with that said in its reason: reading on matters more than
        the copy.
    """
    name = f"{damage.segment:016x}-{damage.offset:x}"
    try:
        earlier = _note(folder / QUARANTINE_NAME / f"{name}.json")
        if earlier is not None:
            return earlier
        kept = replace(damage, kept=f"{name}.bytes" if data else None)
        _make_folder(folder, disk)
        if data:
            disk.replace_file(folder / QUARANTINE_NAME / f"{name}.bytes", data)
        _write_note(folder, name, kept, disk)
    except OSError as error:
        return replace(damage, reason=f"{damage.reason}; not copied to quarantine: {error}")
    return kept


def move_segment(folder: Path, path: Path, damage: Damage, disk: Disk) -> Damage:
    """Take a whole segment file out of the journal. OSError if the disk refuses."""
    _make_folder(folder, disk)
    name, count = path.name, 1
    while (folder / QUARANTINE_NAME / name).exists():
        name, count = f"{path.name}.{count}", count + 1
    kept = replace(damage, kept=name)
    _write_note(folder, name, kept, disk)
    if failpoint.ARMED:
        failpoint.hit(Failpoint.RECOVERY_NOTED)
    disk.rename(path, folder / QUARANTINE_NAME / name)
    disk.sync_folder(folder / QUARANTINE_NAME)
    disk.sync_folder(folder)
    return kept


def quarantined(folder: Path) -> list[Damage]:
    """Every damage noted so far for the journal in `folder`, by segment and offset."""
    notes = [_note(path) for path in (folder / QUARANTINE_NAME).glob("*.json")]
    return sorted((note for note in notes if note), key=lambda note: (note.segment, note.offset))


def _make_folder(folder: Path, disk: Disk) -> None:
    if not (folder / QUARANTINE_NAME).is_dir():
        disk.mkdir(folder / QUARANTINE_NAME)
        disk.sync_folder(folder)


def _write_note(folder: Path, name: str, damage: Damage, disk: Disk) -> None:
    text = json.dumps(asdict(damage), indent=1)
    disk.replace_file(folder / QUARANTINE_NAME / f"{name}.json", text.encode())


def _note(path: Path) -> Damage | None:
    """A note read back; None if there is none or it is itself damaged, and then it is written anew."""
    try:
        return Damage(**json.loads(read_file(path)))
    except (FileNotFoundError, ValueError, TypeError):
        return None
