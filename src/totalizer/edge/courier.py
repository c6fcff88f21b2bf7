"""Bringing a batch to its target: a few attempts, and a safe place for what was not taken."""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from totalizer.clock import Clock
from totalizer.edge.batch import Batch, FailedBatch, RefusedEntry, decode_failed_file
from totalizer.edge.folder import Folders, write_file
from totalizer.edge.sinks.sink import Sink
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, SinkRefused, SinkUnavailable
from totalizer.journal.disk import Disk

LOGGER = logging.getLogger("totalizer.edge")
#: Attempts of one flush.
ATTEMPTS_MAX = 3
#: Pause before the second attempt, seconds; doubled for each further one, and then 50 to 100 % of it.
BACKOFF_S = 0.1
#: A target that asks for a longer pause, seconds, gets it from the recovery daemon: the flush ends without it.
RETRY_AFTER_MAX_S = 5.0


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        batch: as it was handed over.
        delivered: entries that are durable at the target.
        undelivered: indexes of the entries that it could not take now.
        refused: entries that it refuses for good, by their indexes in the batch.
        attempts: how many there were.
        error: why the last attempt failed; "" if it did not.
        retry_after_s: seconds the target asked to be left alone for; None if it did not.
        cut_short: True if there was no time for a further attempt.
    """

    batch: Batch
    delivered: int = 0
    undelivered: tuple[int, ...] = ()
    refused: list[RefusedEntry] = field(default_factory=list)
    attempts: int = 0
    error: str = ""
    retry_after_s: float | None = None
    cut_short: bool = False


class Courier:
    """Delivers batches to one sink; for any thread, one at a time reaches the sink.

    Args:
        sink: the target.
        folders: where what was not delivered is kept.
        clock: for dates.
        disk: for the files.
    """

    def __init__(self, sink: Sink, folders: Folders, clock: Clock, disk: Disk) -> None:
        self.sink, self._folders, self._clock, self._disk = sink, folders, clock, disk
        self._one_at_a_time = threading.Lock()

    def deliver(self, batch: Batch, pause: Callable[[float], bool], attempts_max: int = ATTEMPTS_MAX) -> Outcome:
        """Try until the target has dealt with every entry, or has refused to often enough.

        Args:
            batch: its entries have ids.
            pause: sleeps for so many seconds; False ends the attempts.
            attempts_max: at least 1.
        """
        outcome = Outcome(batch, undelivered=tuple(range(len(batch.entries))))
        while True:
            outcome.attempts += 1
            outcome.error, outcome.retry_after_s = "", None
            with self._one_at_a_time:
                self._attempt(outcome)
            if not outcome.undelivered or outcome.attempts >= attempts_max:
                return outcome
            asked_s = outcome.retry_after_s or 0.0
            if asked_s > RETRY_AFTER_MAX_S:
                return outcome
            if not pause(max(_backoff_s(outcome.attempts), asked_s)):
                outcome.cut_short = True
                return outcome

    def keep(self, outcome: Outcome) -> list[Path]:
        """Write what was not delivered to the recovery folder, durably; the files. OSError if the disk refuses."""
        now_ms = self._clock.now_ns() // 1_000_000
        files = []
        if outcome.undelivered:
            retry_at = None if outcome.retry_after_s is None else now_ms + int(outcome.retry_after_s * 1000)
            failed = FailedBatch(
                outcome.batch.only(outcome.undelivered), 0, outcome.error, now_ms, next_retry_at=retry_at
            )
            files.append(self._put(self._folders.recovery, failed))
        if outcome.refused:
            refusals = tuple(replace(refusal, index=place) for place, refusal in enumerate(outcome.refused))
            abandoned = FailedBatch(
                outcome.batch.only(refusal.index for refusal in outcome.refused), 0, refusals[0].message, now_ms,
                abandoned_at=now_ms, refusals=refusals,
            )  # fmt: skip
            files.append(self._put(self._folders.abandoned, abandoned))
        return files

    def _attempt(self, outcome: Outcome) -> None:
        """One attempt with what is left; changes the outcome."""
        places = outcome.undelivered
        rest = outcome.batch if len(places) == len(outcome.batch.entries) else outcome.batch.only(places)
        try:
            delivery = self.sink.deliver(rest)
        except SinkUnavailable as error:
            outcome.error, outcome.retry_after_s = str(error), error.retry_after_s
            if error.undelivered is not None:
                outcome.undelivered = tuple(places[index] for index in error.undelivered)
                self._refuse(outcome, places, error.refused)
                outcome.delivered += len(places) - len(outcome.undelivered) - len(error.refused)
        except SinkRefused as error:
            outcome.error, outcome.undelivered = str(error), ()
            whole = tuple(RefusedEntry(index, "refused", str(error)) for index in range(len(places)))
            self._refuse(outcome, places, whole)
        except Exception as error:
            # A sink of somebody else's: whatever it raises, the batch is kept and tried again.
            LOGGER.exception("%s: the sink failed on batch %s", self.sink.name, outcome.batch.batch_id)
            outcome.error = f"{type(error).__name__}: {error}"
        else:
            outcome.undelivered = ()
            self._refuse(outcome, places, delivery.refused)
            outcome.delivered += len(places) - len(delivery.refused)
            outcome.error = delivery.refused[0].message if delivery.refused else ""

    @staticmethod
    def _refuse(outcome: Outcome, places: tuple[int, ...], refused: tuple[RefusedEntry, ...]) -> None:
        outcome.refused += [replace(refusal, index=places[refusal.index]) for refusal in refused]

    def _put(self, folder: Path, failed: FailedBatch) -> Path:
        """Write under the first name that is free, or has these entries already."""
        if not folder.is_dir():
            self._folders.make(self._disk)
        for number in itertools.count(1):
            stem = f"batch_{failed.batch_id}" if number == 1 else f"batch_{failed.batch_id}-{number}"
            path = folder / failed.file_name.replace(f"batch_{failed.batch_id}", stem)
            try:
                write_file(path, failed.encode(), exclusive=True, disk=self._disk)
            except FileExistsError:
                if _has(path, failed):
                    self._disk.sync_folder(folder)
                    return path
            else:
                return path
        raise AssertionError("numbers have no end")


def _has(path: Path, failed: FailedBatch) -> bool:
    try:
        there = decode_failed_file(path.read_bytes(), path.name)
    except (FileNotFoundError, BatchFileDamaged, BatchVersionUnknown):
        return False
    return [entry["id"] for entry in there.batch.entries] == [entry.get("id") for entry in failed.batch.entries]


def _backoff_s(attempts: int) -> float:
    pause_s: float = BACKOFF_S * 2 ** (attempts - 1)
    return pause_s * random.uniform(0.5, 1.0)
