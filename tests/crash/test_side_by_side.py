"""Random lives of the real journal, on a model of a disk, beside the one on SQLite: both give a reader the same."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crash import tally
from crash.chances import Chances
from crash.oracle import payload_of
from crash.sqlite_journal import SqliteJournal, SqliteReader
from crash.volatile import VolatileDisk, restore
from support import PATIENCE_S, wait_until
from totalizer.errors import JournalFailed, JournalFull
from totalizer.journal import BEGINNING, Journal, JournalReader, Position, Record, recover_idle

#: Lives in the normal run, and with `--long`; changes in one life.
LIVES, LIVES_LONG, STEPS = 40, 3000, 40
READ_ALL = {"records_max": 1000, "bytes_max": 1 << 24}


def read_all(reader: Any, after: Position) -> list[Record]:
    """Everything after a position."""
    found: list[Record] = []
    while records := reader.read(after, **READ_ALL):
        assert all(record.position_after > after for record in records)
        found += records
        after = records[-1].position_after
    return found


class SideBySide(RuleBasedStateMachine):
    """What the real one acknowledges the other is given too; what is in doubt when it dies, it is given if it is there.

    A record is in doubt if its writer was refused or died before the answer, and no later one was acknowledged.
    """

    @initialize(
        chance=st.integers(0, 1 << 30), segment=st.sampled_from([16 << 10, 24 << 10]),
        quota=st.sampled_from([80 << 10, 1 << 20]),
    )  # fmt: skip
    def begin(self, chance: int, segment: int, quota: int) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.chance, self.sizes = random.Random(chance), {"segment_bytes": segment, "quota_bytes": quota}
        self.real: Journal | None = None
        self.other: SqliteJournal | None = None
        self.position, self.other_position = BEGINNING, BEGINNING
        self.sent = self.generation = 0
        self.in_doubt: list[bytes] = []
        self.just_recovered, self.settled = False, False
        self.answers: dict[object, bool] = {}
        self.answered = threading.Condition()
        self._move_to({})
        self.reopen()
        while self.real is None:
            self.reopen()

    def teardown(self) -> None:
        if self.real is not None:
            self.real.close()
        if self.other is not None:
            self.other.close()
        shutil.rmtree(self.root)

    # What may happen.

    @precondition(lambda self: self.real is None)
    @rule(loss=st.one_of(st.none(), st.integers(0, 25)))
    def reopen(self, loss: int | None = None) -> None:
        """Start again; the power may fail on the way, or soon after."""
        if loss is not None:
            self.disk.fail_after(loss)
        try:
            self.real = Journal.open(self.folder, disk=self.disk, on_commit=self._on_commit, **self.sizes)
        except JournalFailed:
            self._notice_loss()
            return
        self.other = SqliteJournal.open(self.root / "sqlite", **{**self.sizes, "quota_bytes": 1 << 30})
        self.just_recovered = not self.settled
        self.settled = True

    @precondition(lambda self: self.real is None and not self.settled)
    @rule(loss=st.one_of(st.none(), st.integers(0, 12)))
    def recover(self, loss: int | None) -> None:
        """As a loader does with the journal of a dead process."""
        if not self.folder.exists():
            return
        if loss is not None:
            self.disk.fail_after(loss)
        try:
            assert recover_idle(self.folder, disk=self.disk)
        except JournalFailed:
            self._notice_loss()
            return
        self.just_recovered = self.settled = (self.root / "sqlite").exists()

    @precondition(lambda self: self.real is not None)
    @rule()
    def append_one(self) -> None:
        self._append_and_wait(self._next())

    @precondition(lambda self: self.real is not None)
    @rule(count=st.integers(2, 12))
    def append_many(self, count: int) -> None:
        """Some groups, all on their way at once."""
        assert self.real is not None
        payloads = []
        for payload in [self._next() for _ in range(count)]:
            try:
                self.real.append(payload, payload)
            except (JournalFull, JournalFailed):
                continue  # not accepted: it must never be seen
            payloads.append(payload)
        with self.answered:
            assert self.answered.wait_for(lambda: all(each in self.answers for each in payloads), PATIENCE_S)
        for payload in payloads:
            self._hear(payload, self.answers[payload])
        self._notice_loss()

    @precondition(lambda self: self.real is not None and self.sizes["quota_bytes"] < 1 << 20)
    @rule()
    def append_until_full(self) -> None:
        full = False
        while self.real is not None and not full:
            full = not self._append_and_wait(self._next() + b"." * 3000)
        tally.count("full disk", full)

    @precondition(lambda self: self.disk.refuse_in is None)
    @rule(calls=st.integers(0, 12), times=st.integers(1, 4))
    def refuse_some_calls(self, calls: int, times: int) -> None:
        """One, or some in a row, so that the way out is refused as well."""
        if self.real is not None:
            self.disk.refuse_in, self.disk.refusals = calls, times

    @precondition(lambda self: self.real is not None)
    @rule(calls=st.integers(0, 30))
    def lose_power_soon(self, calls: int) -> None:
        self.disk.fail_after(calls)

    @rule()
    def lose_power(self) -> None:
        if self.disk.image is None:
            self.disk.lose_power()
        self._notice_loss()

    @precondition(lambda self: self.real is not None)
    @rule(waiting=st.integers(0, 5))
    def kill(self, waiting: int) -> None:
        """The process ends while some appends are on their way."""
        assert self.real is not None
        for payload in [self._next() for _ in range(waiting)]:
            try:
                self.real.append(payload, payload)
            except (JournalFull, JournalFailed):
                continue
            self.in_doubt.append(payload)
        if self.disk.image is not None:
            self._notice_loss()
            return
        self.disk.kill()
        tally.count("kill")
        self._end()
        self.disk, self.settled = self.disk.after_kill(), False

    @precondition(lambda self: self.settled)
    @rule(count=st.integers(1, 9), size=st.sampled_from([1, 5000, 1 << 20]))
    def read_in_step(self, count: int, size: int) -> None:
        with SqliteReader(self.root / "sqlite") as other:
            expected = other.read(self.other_position, records_max=count, bytes_max=size)
        with JournalReader(self.folder, disk=self.disk) as reader:
            found: list[Record] = []
            while len(found) < len(expected):
                after = found[-1].position_after if found else self.position
                records = reader.read(after, records_max=len(expected) - len(found), bytes_max=size)
                assert records, "less than the other one has"
                found += records
        assert [each.payload for each in found] == [each.payload for each in expected]
        if found:
            self.position, self.other_position = found[-1].position_after, expected[-1].position_after

    @precondition(lambda self: self.settled)
    @rule()
    def discard(self) -> None:
        with SqliteReader(self.root / "sqlite") as other:
            other.discard(self.other_position)
        try:
            with JournalReader(self.folder, disk=self.disk) as reader:
                reader.discard(self.position)
        except JournalFailed:
            self._notice_loss()

    @precondition(lambda self: self.real is not None)
    @rule()
    def close(self) -> None:
        assert self.real is not None
        assert self.other is not None
        self.real.close()
        self.other.close()
        self.real = self.other = None
        self._notice_loss()

    @precondition(lambda self: self.real is not None)
    @rule()
    def drain_and_go_on(self) -> None:
        """However full it was: once all is read and discarded, something is taken, unless the power fails."""
        self._drain()

        def on() -> bool:
            self.discard()
            return self.real is None or self._append_and_wait(self._next())

        wait_until(on, "room")

    # What must hold.

    @invariant()
    def both_give_the_same(self) -> None:
        if not getattr(self, "settled", False):
            return
        with SqliteReader(self.root / "sqlite") as other:
            expected = [record.payload for record in read_all(other, self.other_position)]
        with JournalReader(self.folder, disk=self.disk) as reader:
            found = [record.payload for record in read_all(reader, self.position)]
        more = found[len(expected) :]
        assert found[: len(expected)] == expected
        assert more == [] or self.just_recovered, "records that were refused, given by a living journal"
        left = iter(self.in_doubt)
        assert all(payload in left for payload in more), "something that was not in doubt, or out of order"
        if self.just_recovered:
            self._give_other(more)
            self.in_doubt, self.just_recovered = [], False

    # How it is done.

    def _next(self) -> bytes:
        self.sent += 1
        return payload_of(f"{self.sent}")

    def _on_commit(self, tokens: list[object], error: JournalFailed | None) -> None:
        with self.answered:
            self.answers.update(dict.fromkeys(tokens, error is None))
            self.answered.notify_all()

    def _append_and_wait(self, payload: bytes) -> bool:
        """False if there was no room."""
        assert self.real is not None
        try:
            self.real.append_and_wait(payload, PATIENCE_S)
        except JournalFull:
            self._notice_loss()
            return False
        except JournalFailed:
            self._hear(payload, False)
            self._notice_loss()
            if self.real is not None:
                # The disk is looked at again each half second; here it is back at once.
                journal = self.real
                wait_until(lambda: journal.stats().refusal is None or self.disk.image is not None, "the disk")
                self._notice_loss()
            return True
        self._hear(payload, True)
        return True

    def _hear(self, payload: bytes, acknowledged: bool) -> None:
        if acknowledged:
            self._give_other([payload])
            self.in_doubt = []
        else:
            self.in_doubt.append(payload)

    def _give_other(self, payloads: list[bytes]) -> None:
        if self.other is not None:
            for payload in payloads:
                self.other.append_and_wait(payload)
        elif payloads:
            with SqliteJournal.open(self.root / "sqlite", segment_bytes=1, quota_bytes=1 << 30) as other:
                for payload in payloads:
                    other.append_and_wait(payload)

    def _drain(self) -> None:
        with SqliteReader(self.root / "sqlite") as other, JournalReader(self.folder, disk=self.disk) as reader:
            expected, found = read_all(other, self.other_position), read_all(reader, self.position)
        assert [each.payload for each in found] == [each.payload for each in expected]
        if found:
            self.position, self.other_position = found[-1].position_after, expected[-1].position_after

    def _notice_loss(self) -> None:
        """If the process is dead or the power gone, come up again from what the disk has kept."""
        image = self.disk.image
        if image is None:
            return
        tally.count("power loss")
        self._end()
        self._move_to(image)

    def _end(self) -> None:
        """The process has gone: what it still does reaches nobody."""
        if self.real is not None:
            self.real.close()
        if self.other is not None:
            self.other.kill()
        self.real = self.other = None

    def _move_to(self, image: dict[str, bytes]) -> None:
        if self.generation:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.generation += 1
        self.folder = self.root / f"{self.generation}"
        restore(image, self.folder)
        self.disk = VolatileDisk(self.folder, self.chance, None)
        self.settled = False


def live(seed_number: int, lives: int, *phases: Phase) -> None:
    """Try so many lives; raises what the first that went wrong raised."""
    run_state_machine_as_test(
        seed(seed_number)(SideBySide),
        settings=settings(
            max_examples=lives, stateful_step_count=STEPS, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck), phases=phases or tuple(Phase), report_multiple_bugs=False,
        ),
    )  # fmt: skip


def test_both_journals_give_the_same_whatever_happens(chances: Chances) -> None:
    live(chances.seed, LIVES if chances.stride > 1 else LIVES_LONG)
