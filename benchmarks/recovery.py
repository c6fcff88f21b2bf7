"""Opening a journal again: after a kill, when its last segment must be scanned, and after an orderly end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.progress import note
from benchmarks.result import Result, less_is_better, more_is_better
from totalizer.journal import Journal

BENCH = "journal"
READING = "reading the same file"
SCANNED = "after a kill, in one segment"
MB = 1_000_000
#: Payload of a record, bytes: a request of one event.
RECORD_BYTES = 600
#: A segment of the usual size, bytes.
SMALL_SEGMENT_BYTES = 64 << 20
#: Records after which the one that writes waits for the disk.
RECORDS_PENDING = 1000
#: Bytes read at once by the baseline.
PIECE_BYTES = 1 << 20


class Opened(NamedTuple):
    """One round: seconds to open a journal of one size in each state, and to read the first one's files.

    Attributes:
        reading: every byte of the files, which then are in the system's cache for all of these.
        scanned: after a kill, all records in one segment.
        divided: after a kill, in segments of SMALL_SEGMENT_BYTES.
        sealed: after an orderly end.
    """

    reading: float
    scanned: float
    divided: float
    sealed: float


def run_recovery(sizes_mb: tuple[int, ...], rounds: int) -> Iterator[Result]:
    """How long it takes until a journal of so many megabytes takes appends again."""
    for size_mb in sizes_mb:
        played = []
        for number in range(rounds):
            played.append(_play(size_mb * MB))
            times = ", ".join(f"{name} {seconds * 1000:,.1f} ms" for name, seconds in played[-1]._asdict().items())
            note(f"open {size_mb} MB, round {number + 1} of {rounds}: {times}")
        yield more_is_better(
            BENCH, f"open after a kill, {size_mb} MB in one segment", "MB/s",
            [size_mb / one.scanned for one in played], READING, [size_mb / one.reading for one in played],
        )  # fmt: skip
        scanned_ms = [one.scanned * 1000 for one in played]
        divided_ms = [one.divided * 1000 for one in played]
        sealed_ms = [one.sealed * 1000 for one in played]
        case = f"open after a kill, {size_mb} MB in segments of 64 MiB"
        yield less_is_better(BENCH, case, "ms", divided_ms, SCANNED, scanned_ms)
        case = f"open after an orderly end, {size_mb} MB"
        yield less_is_better(BENCH, case, "ms", sealed_ms, SCANNED, scanned_ms)


def _play(size: int) -> Opened:
    with _filled(size, killed=True, segment_bytes=2 * size) as folder:
        reading, scanned = _read(folder), _open(folder, size)
    with _filled(size, killed=True, segment_bytes=SMALL_SEGMENT_BYTES) as folder:
        _read(folder)
        divided = _open(folder, size)
    with _filled(size, killed=False, segment_bytes=SMALL_SEGMENT_BYTES) as folder:
        _read(folder)
        sealed = _open(folder, size)
    return Opened(reading, scanned, divided, sealed)


@contextmanager
def _filled(size: int, *, killed: bool, segment_bytes: int) -> Iterator[Path]:
    """A journal folder that a process has written and left, gone after the with-block."""
    with tempfile.TemporaryDirectory(prefix="totalizer-bench-") as name:
        folder = Path(name) / "journal"
        _fill(folder, killed=killed, segment_bytes=segment_bytes, size=size)
        yield folder


def _fill(folder: Path, *, killed: bool, segment_bytes: int, size: int) -> None:
    """Have a process write the journal, and kill it or let it end."""
    command = [sys.executable, "-m", "benchmarks.recovery", str(folder), str(segment_bytes), str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"{' '.join(command)} ended with {process.wait()}")
            if killed:
                process.kill()
            process.communicate()
        finally:
            process.kill()
    if process.returncode != (-signal.SIGKILL if killed else 0):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")


def _open(folder: Path, size: int) -> float:
    """Seconds until the journal takes appends. Its records must all be there."""
    begun = time.monotonic()
    journal = Journal.open(folder, segment_bytes=SMALL_SEGMENT_BYTES, quota_bytes=_quota(size))
    seconds = time.monotonic() - begun
    end = journal.recovery.end
    journal.close()
    if end.sequence - 1 != size // RECORD_BYTES:
        raise RuntimeError(f"{end.sequence - 1} records of {size // RECORD_BYTES} were found in {folder}")
    return seconds


def _read(folder: Path) -> float:
    """Seconds to read every segment once, after which all are in the system's cache for both sides."""
    for warm in (True, False):
        begun = time.monotonic()
        for path in sorted(folder.glob("*.segment")):
            with path.open("rb", buffering=0) as file:
                while file.read(PIECE_BYTES):
                    pass
        if not warm:
            break
    return time.monotonic() - begun


def _quota(size: int) -> int:
    return 4 * size + 4 * SMALL_SEGMENT_BYTES


def main() -> None:
    """Write a journal: FOLDER SEGMENT_BYTES SIZE; say when it is durable, and end it when the input ends."""
    folder, segment_bytes, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    payload, records = os.urandom(RECORD_BYTES), size // RECORD_BYTES
    with Journal.open(folder, segment_bytes=segment_bytes, quota_bytes=_quota(size)) as journal:
        for number in range(1, records + 1):
            if number % RECORDS_PENDING and number < records:
                journal.append(payload, None)
            else:
                journal.append_and_wait(payload)
        sys.stdout.write("durable\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
