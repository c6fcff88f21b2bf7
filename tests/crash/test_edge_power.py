"""Power losses under an aggregator: of journal, batch files and failed batches only what was synced is sure.

The disk is modelled (`volatile.py`): a name may be there or not until its folder is synced, and a file's sectors in any
mixture until the file is.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from crash import tally
from crash.chances import Chances
from crash.edge_accounts import entry_of, judge_folders
from crash.oracle import KEPT, Known, Verdict
from crash.volatile import VolatileDisk, restore
from totalizer.edge import Batch, Delivery, FileSink, FlushError, SinkUnavailable, SmartBatchAggregator
from totalizer.edge.folder import Folders
from totalizer.errors import ConfigurationError, JournalError

#: Power losses that one set of folders lives through.
GENERATIONS = 3


class Moody:
    """A folder that some batches do not get into, so that they are kept for recovery."""

    def __init__(self, sink: FileSink, chance: random.Random) -> None:
        self._sink, self._chance = sink, chance
        self._moods: dict[str, bool] = {}

    @property
    def name(self) -> str:
        return self._sink.name

    def deliver(self, batch: Batch) -> Delivery:
        if self._moods.setdefault(batch.batch_id, self._chance.random() < 0.3):
            raise SinkUnavailable("in a mood")
        return self._sink.deliver(batch)

    def close(self) -> None:
        self._sink.close()


class Machine:
    """Folders that are written and lose power again and again."""

    def __init__(self, place: Path, chance: random.Random) -> None:
        self._place, self._chance = place, chance
        self.known, self.losses = Known(), 0
        self.folders = self._folders()
        self.folders.make()

    def _folders(self) -> Folders:
        return Folders(self._place / str(self.losses) / "aggregated")

    def live_until_the_power_fails(self) -> None:
        """Add, flush; then come up again from what the disk has."""
        disk = VolatileDisk(self.folders.data, self._chance, self._chance.randrange(150))
        sink = FileSink(self.folders.data, disk=disk)
        try:
            aggregator = SmartBatchAggregator(
                data_path=self.folders.data, disk=disk, sink=Moody(sink, self._chance), batch_size=3,
                flush_threshold=1.0, quota_bytes=1 << 20, flush_on_sigterm=False,
            )  # fmt: skip
        except ConfigurationError:
            assert disk.image is not None, "refused without a loss"
        else:
            self._use(aggregator, disk)
        image = disk.image if disk.image is not None else disk.lose_power()
        shutil.rmtree(self.folders.data.parent)
        self.losses += 1
        tally.count("power loss")
        self.folders = self._folders()
        self.folders.data.parent.mkdir(parents=True)
        # A draft has the number of its process in its name. Those before the loss were of another one.
        gone = {name.replace(f".{os.getpid()}.", ".4194305."): content for name, content in image.items()}
        restore(gone, self.folders.data)

    def _use(self, aggregator: SmartBatchAggregator, disk: VolatileDisk) -> None:
        for number in range(30):
            name = f"{self.losses}-{number}"
            self.known.sent.append(name)
            try:
                aggregator.add(entry_of(name))
                self.known.acknowledged.append(name)
                if self._chance.random() < 0.3:
                    aggregator.flush()
            except JournalError:
                assert disk.image is not None, "refused without a loss"
                break
            except FlushError:
                continue
        aggregator._shut(0)

    def verdict(self) -> Verdict:
        """What is found when everything has been put right."""
        self.folders.make()
        return judge_folders(self.folders, self.known)


def first_broken(place: Path, chances: Chances, losses: int) -> tuple[str, Verdict] | None:
    """Lose power so often; the first loss that broke the promise, None if none did."""
    for number in range(-(-losses // GENERATIONS)):
        machine = Machine(place / str(number), chances.of("edge power", number))
        for _ in range(GENERATIONS):
            machine.live_until_the_power_fails()
            verdict = machine.verdict()
            if verdict != KEPT:
                return f"seed {chances.seed}, machine {number}, loss {machine.losses}", verdict
        shutil.rmtree(place / str(number))
    return None


def test_power_losses_take_nothing_that_was_acknowledged(
    tmp_path: Path, chances: Chances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totalizer.edge.courier.BACKOFF_S", 0.0)
    assert first_broken(tmp_path, chances, chances.share("edge power")) is None
