"""Tracks, crashes, lost memories and job runs in any order: the table comes to equal what was tracked."""

from __future__ import annotations

import contextlib
import itertools
from datetime import date, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

METRICS = ("queries", "tokens")
#: Each is done with a number from 0 to 7.
STEPS = (
    "track", "track", "track_other", "send_with_id", "stop_before_counting", "count_late", "flush", "evict",
    "roll_back", "remember", "load", "refresh", "run", "run_stopped", "restart",
)  # fmt: skip
_examples = itertools.count()


class Model:
    """The shop, and what was tracked in it: merchants of this example only."""

    def __init__(self, shop: Any) -> None:
        self.shop, self.name = shop, f"merchant{next(_examples)}"
        self.tracked: dict[tuple[str, str, str, str], int] = {}
        self.owners = {"default": shop.organization_id, "other": shop.feed.organization("other")}
        self.trackers = {name: shop.tracker(name) for name in self.owners}
        self.ids: set[str] = set()
        self.waiting: list[Any] = []
        self.remembered: dict[bytes, bytes] = {}

    def note(self, owner: str, day: date, metric: str, amount: int) -> None:
        key = (self.owners[owner], self.name, day.isoformat(), metric)
        self.tracked[key] = self.tracked.get(key, 0) + amount

    def day(self, number: int) -> date:
        return self.shop.today - timedelta(days=number % 2)

    def track(self, number: int, owner: str = "default") -> None:
        day, metric = self.day(number), METRICS[number // 2 % 2]
        self.trackers[owner].track(self.name, metric, number + 1, at=f"{day}T00:00:00Z")
        self.note(owner, day, metric, number + 1)

    def track_other(self, number: int) -> None:
        self.track(number, "other")

    def send_with_id(self, number: int) -> None:
        day, metric, name = self.day(number), METRICS[number // 2 % 2], f"{self.name} {number}"
        record = {"id": name, "merchant_id": self.name, "metric_type": metric, "amount": 100, "at": f"{day}T00:00:00Z"}
        self.shop.feed.send(self.owners["default"], usage_records=[record])
        if name not in self.ids:
            self.ids.add(name)
            self.note("default", day, metric, 100)

    def stop_before_counting(self, number: int) -> None:
        """A process that stands still, or dies, between disk and counter."""
        tracker, day, metric = self.trackers["default"], self.day(number), METRICS[number // 2 % 2]
        payload = tracker._payload(self.name, metric, number + 1, f"{day}T00:00:00Z")
        tracked, generation = tracker._prepared(payload)
        tracker._own_journal().append_and_wait(payload)
        self.note("default", day, metric, number + 1)
        self.waiting.append((tracker, tracked, generation))

    def count_late(self, number: int) -> None:
        if self.waiting:
            tracker, tracked, generation = self.waiting.pop(number % len(self.waiting))
            tracker._added(tracked, generation)

    def flush(self, _number: int) -> None:
        self.shop.redis.flushall()

    def evict(self, number: int) -> None:
        keys = sorted(self.shop.redis.keys("*"))
        if keys:
            self.shop.redis.delete(keys[number % len(keys)])

    def remember(self, _number: int) -> None:
        """What the server has on its disk."""
        self.remembered = {key: self.shop.redis.get(key) for key in self.shop.redis.keys("*")}

    def roll_back(self, _number: int) -> None:
        """The server lost its machine, and what was not on its disk."""
        self.shop.redis.flushall()
        for key, value in self.remembered.items():
            self.shop.redis.set(key, value)

    def load(self, _number: int) -> None:
        self.shop.feed.load()

    def refresh(self, _number: int) -> None:
        self.shop.feed.refresh()

    def run(self, number: int) -> None:
        assert self.shop.job().run(self.day(number)).success

    def run_stopped(self, number: int) -> None:
        """A run that ends between two of its steps."""
        job = self.shop.job()
        stopped = ("_move_counters", "_settle", "_rebuild")[number % 3]
        setattr(job, stopped, _stop)
        with contextlib.suppress(Stopped):
            job.run(self.day(number))

    def restart(self, _number: int) -> None:
        """The trackers' processes start anew."""
        for name, tracker in self.trackers.items():
            tracker.close()
            self.trackers[name] = self.shop.tracker(name)
        self.waiting = []

    def check(self) -> None:
        """Nothing is ever more than what was tracked."""
        for key, value in self.table().items():
            assert value <= self.tracked.get(key, 0), key
        for key, value in self.counters().items():
            assert value <= self.tracked.get(key, 0), key

    def table(self) -> dict[tuple[str, str, str, str], int]:
        return {key: value for key, value in self.shop.tables().items() if key[1] == self.name}

    def counters(self) -> dict[tuple[str, str, str, str], int]:
        found = {}
        for key in self.shop.redis.scan_iter(f"usage*:{self.name}:*"):
            owner, merchant, day, metric = key.decode().split(":")
            found[owner.partition("@")[2] or self.owners["default"], merchant, day, metric] = self.shop.counter(key)
        return found

    def finish(self) -> None:
        self.shop.feed.load()
        for number in (1, 0):
            assert self.shop.job().run(self.day(number)).success
        assert self.table() == self.tracked
        today = {key: value for key, value in self.tracked.items() if key[2] == str(self.shop.today)}
        assert {key: value for key, value in self.counters().items() if key in today} == today
        for late in self.waiting:
            late[0]._added(*late[1:])
        self.check()


class Stopped(Exception):
    """The process is gone."""


def _stop(*_arguments: Any) -> None:
    raise Stopped


@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), min_size=5, max_size=30))
def test_whatever_happens_the_table_equals_what_was_tracked(shop: Any, steps: list[tuple[str, int]]) -> None:
    model = Model(shop)
    try:
        for name, number in steps:
            getattr(model, name)(number)
            model.check()
        model.finish()
    finally:
        for tracker in model.trackers.values():
            tracker.close()
