"""Random lives of a journal against a list."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from totalizer.errors import JournalFull
from totalizer.journal import BEGINNING, Journal, JournalReader, Position, recover_idle

from .conftest import FaultyDisk, wait_until


class JournalLife(RuleBasedStateMachine):
    """Appends, syncs that fail, reads, discards, closes, reopens, forgets the watermark."""

    @initialize(segment=st.sampled_from([16 << 10, 32 << 10]), quota=st.sampled_from([64 << 10, 1 << 20]))
    def begin(self, segment: int, quota: int) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "journal"
        self.disk = FaultyDisk()
        self.faulty = False
        self.sizes = {"segment_bytes": segment, "quota_bytes": quota}
        self.journal: Journal | None = None
        self.reader: JournalReader | None = None
        self.position: Position = BEGINNING
        self.unread: list[bytes] = []
        self.reopen()

    def teardown(self) -> None:
        if self.journal is not None:
            self.journal.close()
        if self.reader is not None:
            self.reader.close()
        shutil.rmtree(self.root)

    @precondition(lambda self: self.journal is None)
    @rule()
    def reopen(self) -> None:
        self.journal = Journal.open(self.folder, disk=self.disk, **self.sizes)
        self.reader = self.reader or JournalReader(self.folder)
        assert self.journal.id == self.reader.id
        assert self.journal.recovery.damage == []

    @precondition(lambda self: self.journal is not None)
    @rule(payload=st.one_of(st.binary(max_size=200), st.builds(lambda n: b"\0" * n, st.integers(0, 40_000))))
    def append(self, payload: bytes) -> None:
        assert self.journal is not None
        try:
            self.journal.append_and_wait(payload)
        except JournalFull:
            return
        self.unread.append(payload)

    @precondition(lambda self: self.journal is not None)
    @rule(method=st.sampled_from(["fdatasync", "pwrite", "truncate", "fsync"]), nth=st.integers(0, 3))
    def fail_later(self, method: str, nth: int) -> None:
        self.disk.countdown = {method: nth}
        self.faulty = True

    @rule(records=st.integers(1, 5), size=st.integers(1, 50_000))
    def read(self, records: int, size: int) -> None:
        assert self.reader is not None
        found = self.reader.read(self.position, records_max=records, bytes_max=size)
        assert bool(found) == bool(self.unread)
        assert [record.payload for record in found] == self.unread[: len(found)]
        for record in found:
            assert record.position_after > self.position
            self.position = record.position_after
        del self.unread[: len(found)]

    @rule()
    def discard(self) -> None:
        assert self.reader is not None
        self.reader.discard(self.position)

    @rule()
    def renew_reader(self) -> None:
        assert self.reader is not None
        assert self.reader.damage == []
        self.reader.close()
        self.reader = JournalReader(self.folder)

    @precondition(lambda self: self.journal is not None)
    @rule()
    def close(self) -> None:
        assert self.journal is not None
        self.journal.close()
        self.journal = None
        self.disk.countdown = {}

    @precondition(lambda self: self.journal is None)
    @rule()
    def lose_power(self) -> None:
        """Everything that was synced is there; the watermark is not."""
        (self.folder / "durable").write_bytes(b"\xff" * 128)
        assert recover_idle(self.folder)

    @invariant()
    def quota_holds(self) -> None:
        """Except that what a failing disk does not give back counts on top."""
        if self.faulty:
            return
        assert sum(path.stat().st_size for path in self.folder.glob("*.segment")) <= self.sizes["quota_bytes"]

    @precondition(lambda self: self.journal is not None)
    @rule()
    def drain_and_go_on(self) -> None:
        """However full it was, after everything was read and discarded an append is taken."""
        assert self.journal is not None
        journal = self.journal
        self.disk.countdown = {}
        while self.unread:
            self.read(5, 50_000)

        def taken() -> bool:
            self.discard()
            try:
                journal.append_and_wait(b"on")
            except JournalFull:
                return False
            return True

        wait_until(taken)
        self.unread.append(b"on")


JournalLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestJournalLife = JournalLife.TestCase
