"""A writer killed at any moment: what it acknowledged is there, what is there was appended, and life goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from totalizer.journal import BEGINNING, Journal, JournalReader, Position, quarantined, recover_idle

from .conftest import drain, payloads_in

WRITER = """
import sys, threading
from pathlib import Path
from totalizer.errors import JournalError, JournalFull
from totalizer.journal import Journal

run = int(sys.argv[2])
lock = threading.Lock()

def on_commit(tokens, error):
    assert error is None
    with lock:
        sys.stdout.write("".join(f"{token}\\n" for token in tokens))
        sys.stdout.flush()

journal = Journal.open(Path(sys.argv[1]), segment_bytes=256 << 10, quota_bytes=1 << 30, on_commit=on_commit)
print("open", flush=True)
number = 0
while True:
    token = f"{run}/{number}"
    try:
        journal.append(token.encode() + b"." * (number % 1500), token)
    except JournalFull:
        continue
    number += 1
"""


def tokens_of(payloads: list[bytes]) -> list[str]:
    """The token each payload was made from."""
    for payload in payloads:
        token = payload.rstrip(b".")
        assert len(payload) == len(token) + int(token.split(b"/")[1]) % 1500
    return [payload.rstrip(b".").decode() for payload in payloads]


@pytest.mark.parametrize("recovered_by", ["writer", "reader"])
def test_acknowledged_records_survive_kills_at_random_times(tmp_path: Path, recovered_by: str) -> None:
    folder, seed = tmp_path / "journal", random.randrange(1 << 32)
    moments = random.Random(seed)
    acknowledged: list[str] = []
    for run in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, folder, str(run)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        time.sleep(moments.random() * 0.15)
        writer.send_signal(signal.SIGKILL)
        lines = writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        writer.stdout.close()
        acknowledged += [line.rstrip("\n") for line in lines if line.endswith("\n")]
        if recovered_by == "reader":
            assert recover_idle(folder)
    assert recover_idle(folder)
    found = tokens_of(payloads_in(folder))
    assert len(found) == len(set(found)), f"seed {seed}"
    assert set(acknowledged) <= set(found), f"seed {seed}"
    assert len(acknowledged) > 100
    for run in range(8):
        numbers = [int(token.split("/")[1]) for token in found if token.startswith(f"{run}/")]
        assert numbers == list(range(len(numbers))), f"seed {seed}"
    assert quarantined(folder) == []


def test_a_reader_in_another_process_follows_a_writer_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """It reads and discards all the while, and misses nothing that was acknowledged, and sees nothing twice."""
    folder, seed = tmp_path / "journal", random.randrange(1 << 32)
    moments = random.Random(seed)
    Journal.open(folder, segment_bytes=1 << 20, quota_bytes=1 << 20).close()
    position, found, acknowledged = BEGINNING, [], []
    with JournalReader(folder) as reader:

        def follow() -> Position:
            after = position
            while records := reader.read(after, records_max=1000, bytes_max=1 << 18):
                assert all(record.position_after > after for record in records)
                found.extend(record.payload for record in records)
                after = records[-1].position_after
                reader.discard(after)
            return after

        for run in range(5):
            with (tmp_path / "acknowledged").open("w+") as output:
                writer = subprocess.Popen([sys.executable, "-c", WRITER, folder, str(run)], stdout=output)
                deadline = time.monotonic() + 0.3 + moments.random() * 0.2
                while time.monotonic() < deadline:
                    position = follow()
                writer.send_signal(signal.SIGKILL)
                writer.wait()
                output.seek(0)
                acknowledged += [line.rstrip("\n") for line in output if line.endswith("\n")]
        assert recover_idle(folder)
        position = follow()
        assert drain(reader, position) == []
        assert reader.damage == []
    acknowledged = [token for token in acknowledged if token != "open"]
    tokens = tokens_of(found)
    assert len(tokens) == len(set(tokens)), f"seed {seed}"
    assert set(acknowledged) <= set(tokens), f"seed {seed}"
    assert len(acknowledged) > 100
