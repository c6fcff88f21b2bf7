"""A file system that loses power: only what reached the disk is there afterwards.

An ext4 image on a loop device is shut down without writing anything back (FS_IOC_SHUTDOWN with
EXT4_GOING_FLAGS_NOLOGFLUSH, linux/fs/ext4/ext4.h), unmounted and mounted again. Killing a process cannot show what is
missing here, since the kernel still writes its pages.
"""

from __future__ import annotations

import fcntl
import operator
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Journal, JournalReader, Position, quarantined, recover_idle

from .conftest import drain, payloads_in, wait_until

_SHUTDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = 2
IMAGE_BYTES = 32 << 20


class LosableDisk:
    """A mounted image that can lose power."""

    def __init__(self, image: Path, mounted: Path) -> None:
        self.image, self.mounted = image, mounted

    def mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", "loop", self.image, self.mounted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting an image is not allowed here: {done.stderr.strip()}")

    def umount(self) -> None:
        subprocess.run(["umount", self.mounted], check=True)

    def cut_power(self) -> None:
        """From here on nothing reaches the image; every call that would gets EIO."""
        descriptor = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)


@pytest.fixture
def losable(tmp_path: Path) -> Iterator[LosableDisk]:
    if os.geteuid() != 0 or not sys.platform.startswith("linux") or not shutil.which("mkfs.ext4"):
        pytest.skip("mounting an ext4 image needs root on Linux and mkfs.ext4")
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    disk = LosableDisk(image, mounted)
    disk.mount()
    yield disk
    if os.path.ismount(mounted):
        # Lazily: after a failed test a journal may still be open in there.
        subprocess.run(["umount", "--lazy", mounted], check=True)


def keep_in(answers: dict[object, bool]) -> Callable[[list[object], JournalFailed | None], None]:
    """An on_commit that keeps each token's answer, True for durable."""
    return lambda tokens, error: answers.update(dict.fromkeys(tokens, error is None))


def test_what_was_acknowledged_survives_power_losses_and_what_was_refused_does_not_come_back(
    losable: LosableDisk,
) -> None:
    folder = losable.mounted / "deep" / "journal"
    acknowledged: list[bytes] = []
    for run in range(4):
        answers: dict[object, bool] = {}

        journal = Journal.open(folder, segment_bytes=64 << 10, quota_bytes=16 << 20, on_commit=keep_in(answers))
        assert quarantined(folder) == []
        tokens = []
        for number in range(random.randrange(60, 120)):
            tokens.append(b"%d/%d" % (run, number) + b"." * (number * 37 % 3000))
            journal.append(tokens[-1], tokens[-1])
            if number % 3 == 0:
                wait_until(partial(operator.contains, answers, tokens[-1]))
        for token in tokens:
            wait_until(partial(operator.contains, answers, token))
        losable.cut_power()
        with pytest.raises(JournalFailed):
            journal.append_and_wait(b"after the end")
        journal.close()
        acknowledged += [token for token in tokens if answers[token]]
        assert len(acknowledged) >= 60 * (run + 1)
        losable.umount()
        losable.mount()
        assert recover_idle(folder)
        assert payloads_in(folder) == acknowledged


def test_positions_go_on_rising_over_power_losses_while_everything_is_discarded(losable: LosableDisk) -> None:
    folder, position = losable.mounted / "journal", BEGINNING
    identities = set()
    for run in range(6):
        journal = Journal.open(folder, segment_bytes=16 << 10, quota_bytes=1 << 20)
        identities.add(journal.id)
        with JournalReader(folder) as reader:
            if run % 3 != 2:
                journal.append_and_wait(b"%d" % run)
            records = drain(reader, position)
            assert [record.payload for record in records] == ([b"%d" % run] if run % 3 != 2 else [])
            for record in records:
                assert record.position_after > position
                position = Position(record.position_after.segment, record.position_after.offset)
            reader.discard(position)
        losable.cut_power()
        journal.close()
        losable.umount()
        losable.mount()
        assert recover_idle(folder)
    assert len(identities) == 1
