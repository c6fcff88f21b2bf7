"""Power losses by the hundred: only what POSIX promises is left, and of the rest what chance leaves.

The disk is modelled (`volatile.py`), so this needs no root and tears what a real file system rarely tears; the losses
of a real one are in tests/unit/journal/test_power_loss.py.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

from crash import tally
from crash.chances import Chances
from crash.oracle import KEPT, Known, Verdict, judge_journal, payload_of
from crash.volatile import VolatileDisk, restore
from totalizer.errors import JournalError, JournalFailed
from totalizer.journal import Journal, JournalReader, recover_idle

SIZES = {"segment_bytes": 24 << 10, "quota_bytes": 4 << 20}
#: Power losses that one journal lives through.
GENERATIONS = 4


class Machine:
    """A journal that is written, read, and loses power again and again."""

    def __init__(self, place: Path, chance: random.Random) -> None:
        self._place, self._chance = place, chance
        self.known = Known()
        self.folder = place / "0"
        self.folder.mkdir(mode=0o700)
        self.losses = 0

    def live_until_the_power_fails(self) -> None:
        """Open, append in groups, now and then read and discard; then come up again from what the disk has."""
        disk = VolatileDisk(self.folder, self._chance, self._chance.randrange(90))
        try:
            with Journal.open(self.folder, disk=disk, on_commit=self._on_commit, **SIZES) as journal:  # type: ignore[arg-type]
                self._append(journal, disk)
        except JournalError:
            assert disk.image is not None, "refused without a loss"
        image = disk.image if disk.image is not None else disk.lose_power()
        self.losses += 1
        tally.count("power loss")
        shutil.rmtree(self.folder)
        self.folder = self._place / str(self.losses)
        restore(image, self.folder)

    def _append(self, journal: Journal, disk: VolatileDisk) -> None:
        for number in range(40):
            names = [f"{self.losses}-{number}-{each}" for each in range(self._chance.choice((1, 1, 2, 5)))]
            for name in names:
                self.known.sent.append(name)
                journal.append(payload_of(name), name)
            self.known.sent.append(f"{self.losses}-{number}-last")
            journal.append_and_wait(payload_of(self.known.sent[-1]))
            self.known.acknowledged.append(self.known.sent[-1])
            if self._chance.random() < 0.1:
                self._read_and_discard(disk)

    def _on_commit(self, tokens: list[object], error: JournalFailed | None) -> None:
        if error is None:
            self.known.acknowledged += map(str, tokens)

    def _read_and_discard(self, disk: VolatileDisk) -> None:
        with JournalReader(self.folder, disk=disk) as reader:
            while records := reader.read(self.known.position, records_max=50, bytes_max=1 << 20):
                self.known.position = records[-1].position_after
                self.known.read += [record.payload.split(b"|")[0].decode() for record in records]
            reader.discard(self.known.position)

    def verdict(self) -> Verdict:
        """What is found after the loss. A torn last group may be reported as damage: it was never acknowledged."""
        assert recover_idle(self.folder)
        return replace(judge_journal(self.folder, self.known), books=())

    def fresh_record_goes_through(self) -> None:
        """Life goes on, on a disk that keeps its power."""
        with Journal.open(self.folder, **SIZES) as journal:
            name = f"fresh-{len(self.known.sent)}"
            self.known.sent.append(name)
            journal.append_and_wait(payload_of(name), timeout_s=60)
            self.known.acknowledged.append(name)


def first_broken(place: Path, chances: Chances) -> tuple[str, Verdict] | None:
    """Lose power as often as is to be tried; the first loss that broke the promise, None if none did."""
    for number in range(-(-chances.share("power") // GENERATIONS)):
        chance = chances.of("power", number)
        machine = Machine(place, chance)
        for _ in range(GENERATIONS):
            machine.live_until_the_power_fails()
            verdict = machine.verdict()
            if verdict != KEPT:
                return f"seed {chances.seed}, machine {number}, loss {machine.losses}", verdict
            if chance.random() < 0.3:
                machine.fresh_record_goes_through()
        machine.fresh_record_goes_through()
        assert machine.verdict() == KEPT
        shutil.rmtree(machine.folder)
    return None


def test_power_losses_take_nothing_that_was_acknowledged(tmp_path: Path, chances: Chances) -> None:
    assert first_broken(tmp_path, chances) is None
