"""Tracking from a Python process: durable first, then counted, never too much."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from totalizer.errors import JournalFailed, ValidationError
from totalizer.store.usage_keys import Counter, read_key

KEPT_S = 7 * 86_400


def test_the_documented_key_is_counted_and_ends_after_seven_days(shop: Any) -> None:
    tracker = shop.tracker()
    key = f"usage:merchant_1:{shop.today}:queries"
    assert [tracker.track("merchant_1", "queries"), tracker.track("merchant_1", "queries", 41)] == [1, 42]
    assert shop.counter(key) == 42
    assert KEPT_S - 60 < shop.redis.ttl(key) <= KEPT_S
    shop.feed.load()
    assert shop.feed.rows("SELECT merchant_id, metric_type, amount FROM events.usage_records ORDER BY amount") == [
        ("merchant_1", "queries", 1), ("merchant_1", "queries", 41),
    ]  # fmt: skip


def test_it_is_counted_on_the_day_it_happened(shop: Any) -> None:
    tracker = shop.tracker()
    for at in (datetime(2025, 11, 1, 23, 59, 59, tzinfo=UTC), "2025-11-02T00:30:00+01:00", 1_762_041_599_000):
        tracker.track("m", "queries", at=at)
    assert shop.counter("usage:m:2025-11-01:queries") == 3


def test_organisations_never_share_a_counter(shop: Any) -> None:
    own, other = shop.tracker(), shop.tracker("other")
    assert [own.track("m", "q", 5), other.track("m", "q", 7), own.track("m", "q")] == [5, 7, 6]
    assert shop.counter(f"usage@{shop.feed.organization('other')}:m:{shop.today}:q") == 7


@pytest.mark.parametrize(
    "name", ["a:b", "a", "a%3Ab", "{a}", "a*", "a?b", "[a-z]", "día", "a b", "\\", "a\nb\tc\rd", "%7Ba%7D", "🙂", "-"]
)
def test_any_id_has_a_counter_of_its_own(shop: Any, name: str) -> None:
    tracker = shop.tracker()
    assert (tracker.track(name, "q", 2), tracker.track("m", name, 3)) == (2, 3)
    for merchant, metric, value in ((name, "q", 2), ("m", name, 3)):
        key = Counter(None, merchant, shop.today.isoformat(), metric).key
        assert shop.counter(key) == value
        assert read_key(key.encode()) == (None, merchant, shop.today.isoformat(), metric)
        assert not set(key) & set("{}")


def test_names_that_look_alike_when_put_together_are_different_counters() -> None:
    days = "2025-11-01"
    names = ["a", "a:2025-11-01", "2025-11-01:a", "a%3A2025-11-01", "a%253A2025-11-01"]
    keys = {Counter(None, merchant, days, metric).key for merchant in names for metric in names}
    assert len(keys) == len(names) ** 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("", "q"), "merchant_id"), (("m" * 256, "q"), "merchant_id"), ((7, "q"), "merchant_id"),
        (("m", ""), "metric_type"), (("m", None), "metric_type"), (("m", "q", 0), "amount"),
        (("m", "q", -1), "amount"), (("m", "q", 2**53 + 1), "amount"), (("m", "q", 1.5), "amount"),
        (("m", "q", True), "amount"), (("m\0", "q"), "merchant_id"), (("m", "q", 1, "yesterday"), "at"),
        (("m", "q", 1, datetime(2025, 11, 1)), "at"), (("m", "q", 1, 1.5), "at"),
        (("m", "q", 1, "9999-01-01T00:00Z"), "at"),
        (("m\ud800", "q"), ""), (("m", "q", 10**400), "amount"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_names_the_argument(shop: Any, arguments: tuple[Any, ...], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        shop.tracker().track(*arguments)
    assert raised.value.field == field
    assert shop.feed.load() == 0
    assert shop.redis.keys("usage*") == []


def test_threads_count_every_one(shop: Any) -> None:
    tracker = shop.tracker()

    def track() -> None:
        for _ in range(100):
            tracker.track("m", "q")

    threads = [threading.Thread(target=track) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.track("m", "q") == 801
    assert shop.feed.load() == 801


def test_a_forked_child_goes_on(shop: Any) -> None:
    tracker = shop.tracker()
    tracker.track("m", "q")
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if tracker.track("m", "q") == 2 else 2
            tracker.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tracker.track("m", "q") == 3
    assert shop.feed.load() == 3


def test_without_redis_nothing_is_lost_and_it_is_said_once(shop: Any) -> None:
    tracker = shop.tracker(url="unix:///nowhere/valkey.sock")
    with capture_logs() as lines:
        assert [tracker.track("m", "q") for _ in range(3)] == [None] * 3
    assert shop.feed.load() == 3
    assert [line["event"] for line in lines] == ["usage is counted without Redis; nothing is lost"]


def test_a_closed_tracker_refuses(shop: Any) -> None:
    tracker = shop.tracker()
    tracker.track("m", "q")
    tracker.close()
    tracker.close()
    with pytest.raises((ValidationError, JournalFailed), match="closed"):
        tracker.track("m", "q")


def test_a_counter_that_is_no_number_is_left_alone(shop: Any) -> None:
    tracker = shop.tracker()
    key = f"usage:m:{shop.today}:q"
    shop.redis.set(key, "many")
    assert tracker.track("m", "q") is None
    shop.redis.delete(key)
    shop.redis.lpush(key, "x")
    assert tracker.track("m", "q") is None
    assert shop.feed.load() == 2


class Proxy:
    """A Unix socket before another; on demand it swallows what is answered, or refuses."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self.target, self.deaf = path, target, False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(50)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if answers and self.deaf:
                    break
                target.sendall(data)
        except OSError:
            data = b""
        for end in (source, target):
            end.close() if data else _end(end)

    def close(self) -> None:
        self._listener.close()


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.close()


@contextmanager
def proxy_before(shop: Any, folder: Path) -> Iterator[Proxy]:
    proxy = Proxy(folder / "p", str(shop.valkey.socket_path))
    yield proxy
    proxy.close()


def test_an_addition_without_an_answer_is_not_sent_again(shop: Any, tmp_path: Path) -> None:
    with proxy_before(shop, tmp_path) as proxy:
        tracker = shop.tracker(url=f"unix://{proxy.path}")
        assert tracker.track("m", "q") == 1
        proxy.deaf = True
        assert tracker.track("m", "q", 10) is None
    assert shop.counter(f"usage:m:{shop.today}:q") == 11, "it was added once, though nobody was told"
    assert shop.feed.load() == 2


def test_what_a_rebuilt_counter_may_hold_is_not_added_again(shop: Any) -> None:
    """The tracker stands still between disk and counter, while its event is loaded and the counter rebuilt from it."""
    tracker = shop.tracker()
    tracker.track("m", "q", 5)
    payload = tracker._payload("m", "q", 3, None)
    tracked, generation = tracker._prepared(payload)
    tracker._own_journal().append_and_wait(payload)
    shop.feed.load()
    shop.redis.delete(tracked.counter.key)
    shop.job().run(shop.today)
    assert shop.counter(tracked.counter.key) == 8
    assert tracker._added(tracked, generation) is None
    assert shop.counter(tracked.counter.key) == 8
    assert tracker.track("m", "q") == 9, "the next one knows the new generation"


def test_a_lost_generation_refuses_what_the_counter_may_hold(shop: Any) -> None:
    tracker = shop.tracker()
    tracker.track("m", "q", 5)
    payload = tracker._payload("m", "q", 3, None)
    tracked, generation = tracker._prepared(payload)
    shop.redis.delete(*shop.redis.keys("totalizer:usage:generation*"))
    assert tracker._added(tracked, generation) is None
    assert shop.counter(tracked.counter.key) == 5


def test_a_server_that_forgot_the_script_is_told_it_again(shop: Any) -> None:
    tracker = shop.tracker()
    assert tracker.track("m", "q") == 1
    shop.redis.script_flush()
    assert tracker.track("m", "q") == 2
