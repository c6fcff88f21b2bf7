"""How a batch is tried again: three attempts, ever further apart, and never two processes in step."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from totalizer.clock import SYSTEM_CLOCK
from totalizer.edge import Batch
from totalizer.edge.courier import Courier, Outcome
from totalizer.edge.folder import Folders
from totalizer.journal.disk import DISK
from unit.edge.parts import MemorySink, entry

BATCH = Batch("b", 1, (entry(1, id="1"),))


def pauses_of(folder: Path, sink: MemorySink, attempts_max: int = 3) -> tuple[Outcome, list[float]]:
    """What becomes of a batch, and the pauses between the attempts, which nobody waits for."""
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return True

    courier = Courier(sink, Folders(folder), SYSTEM_CLOCK, DISK)
    return courier.deliver(BATCH, pause, attempts_max), pauses


def test_each_pause_is_twice_the_one_before_less_up_to_half_by_chance(tmp_path: Path) -> None:
    sink = MemorySink()
    sink.refuse()
    rounds = [pauses_of(tmp_path, sink, attempts_max=5)[1] for _ in range(20)]
    for pauses in rounds:
        longest = [0.1, 0.2, 0.4, 0.8]
        assert [0.5 <= pause / most <= 1 for pause, most in zip(pauses, longest, strict=True)] == [True] * 4
    assert len(set(itertools.chain.from_iterable(rounds))) == 80, "no two processes come again at once"


def test_a_flush_makes_three_attempts(tmp_path: Path) -> None:
    sink = MemorySink()
    sink.refuse()
    outcome, pauses = pauses_of(tmp_path, sink)
    assert (outcome.attempts, len(pauses), outcome.undelivered) == (3, 2, (0,))


@pytest.mark.parametrize(("asked_s", "attempts"), [(3.0, 3), (5.0, 3), (5.1, 1)])
def test_a_target_may_ask_for_longer_pauses_and_for_none_of_the_flush_s_own(
    tmp_path: Path, asked_s: float, attempts: int
) -> None:
    sink = MemorySink()
    sink.refuse(retry_after_s=asked_s)
    outcome, pauses = pauses_of(tmp_path, sink)
    assert (outcome.attempts, pauses) == (attempts, [asked_s] * (attempts - 1))
    assert outcome.retry_after_s == asked_s


def test_no_time_for_another_attempt_is_told(tmp_path: Path) -> None:
    sink = MemorySink()
    sink.refuse()
    outcome = Courier(sink, Folders(tmp_path), SYSTEM_CLOCK, DISK).deliver(BATCH, lambda seconds: False)
    assert (outcome.attempts, outcome.cut_short) == (1, True)
