"""A migration, and its rollback, through power losses at every call: what is not synced may be gone."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from crash.volatile import VolatileDisk
from totalizer.edge.batch import decode_failed_file
from totalizer.edge.folder import Folders
from totalizer.edge.migrate_v1 import migrate, rollback
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, OperationError

FILES = {
    "a.json": [{"user": "u", "event": "a", "ts": 1704067180}],
    "batch_b.json": {"batchId": "b", "entries": [{"user": "u", "event": "b", "ts": 1704067180}]},
    "recovery/c.failed.json": {"batchId": "c", "entries": [{"user": "u", "event": "c", "ts": 1704067180}]},
}
ACTIONS = {"a", "b", "c"}


class Machine:
    """A folder with old files, new files and backups, on a disk that may lose power.

    Args:
        root: of all of it.
        in_place: the new files go where the old ones are.
    """

    def __init__(self, root: Path, *, in_place: bool) -> None:
        self.root, self.source = root, root / "old"
        self.folders = Folders(self.source if in_place else root / "new")
        self.restore({f"old/{name}": json.dumps(document).encode() for name, document in FILES.items()})

    def restore(self, image: dict[str, bytes]) -> None:
        """Come up with these files and no others."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name, content in image.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def until_power_fails(self, what: Any, chance: random.Random, calls: int) -> bool:
        """Do something on a disk that fails after so many calls, and come up again; True if it was done before."""
        disk = VolatileDisk(self.root, chance, calls)
        try:
            what(disk)
        except OperationError:
            assert disk.image is not None, "refused without a loss"
        done = disk.image is None
        self.restore(disk.image if disk.image is not None else disk.lose_power())
        return done

    def migrate(self, disk: Any = None) -> None:
        """Migrate."""
        migrate(self.source, self.folders, **({"disk": disk} if disk else {}))

    def rollback(self, disk: Any = None) -> None:
        """Undo it."""
        rollback(self.source, **({"disk": disk} if disk else {}))

    def actions(self) -> set[str]:
        """Actions of entries that are whole, as old or as new files, outside the backup."""
        found: set[str] = set()
        for path in self.root.rglob("*.json"):
            if "v1-backup" not in path.parts:
                found |= _actions(path)
        return found

    def originals(self) -> dict[str, bytes]:
        """The old files that are where they were."""
        return {name: (self.source / name).read_bytes() for name in FILES if (self.source / name).exists()}


def _actions(path: Path) -> set[str]:
    data = path.read_bytes()
    try:
        return {each["action"] for each in decode_failed_file(data, path.name).batch.entries}
    except (BatchFileDamaged, BatchVersionUnknown):
        document = json.loads(data)
        entries = document if isinstance(document, list) else document.get("entries", [])
        return {each["event"] for each in entries if "event" in each}


@pytest.mark.parametrize("in_place", [False, True])
def test_a_loss_at_each_call_takes_nothing(tmp_path: Path, in_place: bool) -> None:
    seed = random.randrange(1 << 32)
    calls, done = 0, False
    while not done:
        chance = random.Random(f"{seed}:{calls}")
        machine = Machine(tmp_path / "root", in_place=in_place)
        before = machine.originals()
        done = machine.until_power_fails(machine.migrate, chance, calls)
        assert machine.actions() == ACTIONS, f"seed {seed}, loss at call {calls}"
        if chance.random() < 0.5:
            machine.migrate()
        if (machine.source / "v1-backup" / "manifest.json").exists():
            machine.rollback()
        assert machine.originals() == before, f"seed {seed}, loss at call {calls}"
        calls += 1
    assert calls > 30


@pytest.mark.parametrize("in_place", [False, True])
def test_a_loss_at_each_call_of_the_rollback_takes_nothing(tmp_path: Path, in_place: bool) -> None:
    seed = random.randrange(1 << 32)
    calls, done = 0, False
    while not done:
        chance = random.Random(f"{seed}:{calls}")
        machine = Machine(tmp_path / "root", in_place=in_place)
        before = machine.originals()
        machine.migrate()
        done = machine.until_power_fails(machine.rollback, chance, calls)
        assert machine.actions() == ACTIONS, f"seed {seed}, loss at call {calls}"
        if (machine.source / "v1-backup" / "manifest.json").exists():
            machine.rollback()
        assert machine.originals() == before, f"seed {seed}, loss at call {calls}"
        calls += 1
    assert calls > 15


class Forgetful(VolatileDisk):
    """Does not sync what is in files."""

    def fsync(self, descriptor: int) -> None:
        pass


def test_the_model_notices_a_migration_that_does_not_sync(tmp_path: Path) -> None:
    lost = False
    for seed in range(20):
        machine = Machine(tmp_path / "root", in_place=False)
        disk = Forgetful(machine.root, random.Random(seed), None)
        machine.migrate(disk)
        machine.restore(disk.lose_power())
        lost = lost or b"" in {path.read_bytes() for path in machine.root.rglob("*.json")}
    assert lost
