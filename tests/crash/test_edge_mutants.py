"""Wrong aggregators: the tests of power losses must notice each of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from crash import tally
from crash.chances import Chances
from crash.mutants import patched
from crash.test_edge_power import first_broken
from totalizer.edge import Batch
from totalizer.edge import folder as folder_module
from totalizer.edge.batch_flush import BatchFlush
from totalizer.edge.courier import Courier, Outcome
from totalizer.edge.log import EntryLog, Taken
from totalizer.edge.records import Done, Seal
from totalizer.edge.sinks import file as file_module
from totalizer.edge.sinks.file import FileSink

Mutant = Callable[[], AbstractContextManager[Any]]
#: Power losses within which each must be noticed. Most are within the first ten.
LOSSES_MAX = 400


def no_seal() -> AbstractContextManager[Any]:
    """The batch's id is in memory alone."""

    def seal(self: EntryLog, batch_id: str, timestamp: int, taken: Taken) -> None:
        self.settle()
        self._seal = Seal(batch_id, timestamp, taken.through, len(taken.entries))

    return patched(EntryLog, "seal", seal)


def done_before_it_is_delivered() -> AbstractContextManager[Any]:
    """The journal says that a batch is dealt with, and then it is. It says so once: all else is right."""
    real_sealed, real_done = BatchFlush._sealed, EntryLog.done
    said: set[str] = set()

    def sealed(self: BatchFlush, log: EntryLog, taken: Taken) -> Batch:
        batch = real_sealed(self, log, taken)
        said.add(batch.batch_id)
        real_done(log, Done(batch.batch_id, taken.through, taken.after.segment, taken.after.offset, len(taken.entries)))
        log.settle()
        return batch

    def done(self: EntryLog, done: Done) -> None:
        # Only the time after is left out. A batch whose early word was lost with the power is begun, and said, again.
        if done.batch_id in said:
            said.remove(done.batch_id)
        else:
            real_done(self, done)

    mutant = ExitStack()
    mutant.enter_context(patched(BatchFlush, "_sealed", sealed))
    mutant.enter_context(patched(EntryLog, "done", done))
    return mutant


def what_was_done_is_not_said_with_the_next_seal() -> AbstractContextManager[Any]:
    """The next batch is begun, and what became of the one before is forgotten."""
    real = EntryLog.seal

    def seal(self: EntryLog, batch_id: str, timestamp: int, taken: Taken) -> None:
        self._owed = None
        real(self, batch_id, timestamp, taken)

    return patched(EntryLog, "seal", seal)


def batch_files_are_not_synced() -> AbstractContextManager[Any]:
    """The file is renamed before its bytes are on the disk."""
    return patched(file_module, "write_file", _without_sync(contents=True))


def names_of_batch_files_are_not_synced() -> AbstractContextManager[Any]:
    """The bytes are on the disk, the name is not."""
    return patched(file_module, "write_file", _without_sync(contents=False))


def _without_sync(*, contents: bool) -> Callable[..., None]:
    def write_file(path: Path, data: bytes, *, disk: Any, **options: Any) -> None:
        class Lazy:
            def __getattr__(self, name: str) -> Any:
                if name == ("fsync" if contents else "sync_folder"):
                    return lambda _: None
                return getattr(disk, name)

        lazy: Any = Lazy()
        folder_module.write_file(path, data, disk=lazy, **options)

    return write_file


def a_batch_is_not_known_again() -> AbstractContextManager[Any]:
    """A file of the same name is always taken for another batch."""
    return patched(FileSink, "_holds", lambda self, path, batch: False)


def failed_batches_are_not_kept() -> AbstractContextManager[Any]:
    """A batch that was not delivered is noted as failed, and is nowhere."""

    def keep(self: Courier, outcome: Outcome) -> list[Path]:
        return []

    return patched(Courier, "keep", keep)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: mutant
    for mutant in (
        no_seal, done_before_it_is_delivered, what_was_done_is_not_said_with_the_next_seal, batch_files_are_not_synced,
        names_of_batch_files_are_not_synced, a_batch_is_not_known_again, failed_batches_are_not_kept,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_aggregator_is_noticed(
    name: str, tmp_path: Path, chances: Chances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totalizer.edge.courier.BACKOFF_S", 0.0)
    with MUTANTS[name](), tally.deliberate():
        assert first_broken(tmp_path, chances, LOSSES_MAX) is not None, name
