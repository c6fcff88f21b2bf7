from __future__ import annotations

from collections.abc import Callable

import pytest

from totalizer.errors import OperationError
from totalizer.ops.signals import StopRequest, never
from totalizer.ops.supervisor import ENDS_MAX, ENDS_WINDOW_SECONDS, Keeper, watch


class HandClock:
    """Time moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Fragile:
    """A service that ends when told to."""

    name = "fragile"

    def __init__(self) -> None:
        self.runs = True
        self.starts = 0
        self.refuses = False

    @property
    def pid(self) -> int | None:
        return 1 if self.runs else None

    def start(self, _cancelled: Callable[[], bool]) -> None:
        self.starts += 1
        if self.refuses:
            raise OperationError("the disk is full")
        self.runs = True

    def alive(self) -> bool:
        return self.runs

    def exit_text(self) -> str:
        return "fragile ended"

    def stop(self, _hurried: Callable[[], bool]) -> None:
        self.runs = False


def test_what_runs_is_left_alone() -> None:
    service = Fragile()
    assert not Keeper(service, HandClock()).look(never)
    assert service.starts == 0


# time       0 ......... 0.1 ...... 0.2
# service    ends        pause      starts again
def test_what_ended_is_started_again_after_a_pause() -> None:
    service, clock = Fragile(), HandClock()
    keeper = Keeper(service, clock)
    service.runs = False
    assert not keeper.look(never)
    clock.sleep(0.1)
    assert not keeper.look(never)
    assert service.starts == 0
    clock.sleep(0.11)
    assert keeper.look(never)
    assert service.runs


def test_pauses_double() -> None:
    service, clock = Fragile(), HandClock()
    keeper = Keeper(service, clock)
    pauses = []
    for _ in range(3):
        service.runs = False
        keeper.look(never)
        before = clock.now
        while not keeper.look(never):
            clock.sleep(0.05)
        pauses.append(clock.now - before)
    assert pauses == pytest.approx([0.2, 0.4, 0.8], abs=0.051)


def test_many_ends_within_the_window_are_too_many() -> None:
    service, clock = Fragile(), HandClock()
    keeper = Keeper(service, clock)
    service.refuses = True
    service.runs = False

    def until_it_gives_up() -> None:
        for _ in range(1000):
            keeper.look(never)
            clock.sleep(0.25)

    with pytest.raises(OperationError, match=f"fragile ended {ENDS_MAX} times within 60 s; the last time: the disk is"):
        until_it_gives_up()
    assert service.starts == ENDS_MAX - 1


def test_ends_far_apart_are_borne_for_ever() -> None:
    service, clock = Fragile(), HandClock()
    keeper = Keeper(service, clock)
    for _ in range(ENDS_MAX * 3):
        service.runs = False
        keeper.look(never)
        clock.sleep(ENDS_WINDOW_SECONDS / (ENDS_MAX - 1) + 1)
        assert keeper.look(never)


def test_a_start_that_was_cancelled_is_no_end() -> None:
    service, clock = Fragile(), HandClock()
    keeper = Keeper(service, clock)
    service.runs, service.refuses = False, True
    for _ in range(ENDS_MAX * 3):
        keeper.look(lambda: True)
        clock.sleep(10)


def test_watching_ends_when_asked() -> None:
    stop, service, restarts = StopRequest(), Fragile(), []
    service.runs = False

    def restarted() -> None:
        restarts.append(1)
        stop.ask()

    watch([service], stop, restarted, lambda: None)
    stop.close()
    assert restarts == [1]


def test_a_second_request_hurries() -> None:
    stop = StopRequest()
    assert not stop.wait(0)
    stop.ask()
    assert (stop.asked(), stop.hurried(), stop.wait(60)) == (True, False, True)
    stop.ask()
    assert stop.hurried()
    stop.close()
