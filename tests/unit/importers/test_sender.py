"""The sender: retries without doubling, halves what is too large, and gives up with a word about why."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest

from totalizer.errors import OperationError
from totalizer.ops.importers.batch import BATCH_BYTES_MAX, Batch, Item, encode_item
from totalizer.ops.importers.sender import Sender, StoppedError
from totalizer.ops.importers.source import Event, Line
from totalizer.ops.importers.stop import Stop
from totalizer.ops.importers.target import Target

from .conftest import Receiver

KEY = "tk_test_0123456789"


def items(count: Any, event_type: Any = "usage", start: Any = 1) -> Any:
    return [
        encode_item(Event(event_type, {"id": str(n), "n": n}), Line(n, b"raw")) for n in range(start, start + count)
    ]


@pytest.fixture
def said() -> Any:
    return []


@pytest.fixture
def make(receiver: Receiver, said: list[str]) -> Any:
    senders = []

    def make(url: Any = None, key: Any = KEY, give_up_after_s: Any = 20.0) -> Any:
        senders.append(Sender(Target(url or receiver.url, key), Stop(), said.append, give_up_after_s=give_up_after_s))
        return senders[-1]

    yield make
    for sender in senders:
        sender.close()


def test_a_batch_of_several_types_is_stored_and_refusals_find_their_lines(
    make: Callable[..., Sender], receiver: Receiver
) -> None:
    receiver.refuse = lambda event_type, event: "odd" if event["n"] in (2, 12) else None

    refused = make().send(items(3, "a") + items(3, "b", start=11))

    assert [(line.line.number, line.reason) for line in refused] == [
        (2, "invalid_event: odd"), (12, "invalid_event: odd"),
    ]  # fmt: skip
    assert len(receiver.stored) == 4


def test_a_batch_refused_item_by_item_is_refused(make: Callable[..., Sender], receiver: Receiver) -> None:
    receiver.refuse = lambda event_type, event: "odd"

    assert [line.line.number for line in make().send(items(5))] == [1, 2, 3, 4, 5]
    assert receiver.requests == 1


def test_events_that_a_refusal_does_not_name_are_sent_again(make: Callable[..., Sender], receiver: Receiver) -> None:
    first = {"event_type": "usage", "index": 0, "code": "invalid_event", "message": "odd"}
    receiver.script = [(422, {"title": "no event was accepted", "items": [first]})]

    assert [line.line.number for line in make().send(items(5))] == [1]
    assert len(receiver.stored) == 4


@pytest.mark.parametrize(
    "answer",
    [
        {"accepted": 0, "rejected": 1, "items": []},
        {"accepted": 0, "rejected": 1, "items": [{"event_type": "usage", "index": 7}]},
        {"accepted": 0, "rejected": 1, "items": [{"event_type": "other", "index": 0}]},
        {"hello": "world"},
    ],
)
def test_an_answer_that_does_not_fit_ends_the_import(
    make: Callable[..., Sender], receiver: Receiver, answer: dict[str, Any]
) -> None:
    receiver.script = [(202, answer)]

    with pytest.raises(OperationError):
        make().send(items(1))


def test_connections_are_kept(make: Callable[..., Sender], receiver: Receiver) -> None:
    sender = make()
    wait([sender.submit(items(1, start=n)) for n in range(1, 40)])

    assert receiver.requests == 39
    assert receiver.connections <= 3


def test_the_same_bytes_are_sent_again(make: Callable[..., Sender], receiver: Receiver) -> None:
    receiver.script = ["lose", "drop", 503, 500]

    assert make().send(items(10)) == []
    assert len(receiver.stored) == 10
    assert receiver.received == 20


def test_a_server_that_takes_fewer_events_gets_fewer(make: Callable[..., Sender], receiver: Receiver) -> None:
    receiver.events_max = 100
    sender = make()

    assert sender.send(items(1000)) == []
    assert sender.events_max <= 125
    assert len(receiver.stored) == 1000


def test_one_event_the_server_cannot_read_is_found_in_halves(make: Callable[..., Sender], receiver: Receiver) -> None:
    receiver.script = [400, 400, "store", 400, "store", 400]  # the first of four, looked for in halves

    refused = make().send(items(4))

    assert len(refused) == 1
    assert refused[0].reason == "scripted 400"
    assert len(receiver.stored) == 3


def test_a_server_that_refuses_everything_ends_the_import(make: Callable[..., Sender], receiver: Receiver) -> None:
    receiver.script = [400] * 5000

    with pytest.raises(OperationError, match="refuses all that is sent: scripted 400"):
        make().send(items(1000))


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "API key"), (403, "answered 403"), (404, "answered 404"), (415, "answered 415"), (307, "sends elsewhere")],
)
def test_what_no_retry_can_mend_ends_the_import(
    make: Callable[..., Sender], receiver: Receiver, status: Any, words: Any
) -> None:
    receiver.script = [status]

    with pytest.raises(OperationError, match=words):
        make().send(items(1))
    assert receiver.requests == 1


def test_it_gives_up_with_the_reason(make: Callable[..., Sender], receiver: Receiver, said: list[str]) -> None:
    receiver.script = [503] * 1000
    receiver.retry_after = None

    with pytest.raises(OperationError, match="the server answers 503, for 1 s now"):
        make(give_up_after_s=1).send(items(1))
    assert "next attempt in" in said[0]


def test_a_server_that_comes_back_is_found(make: Callable[..., Sender], said: list[str]) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
    sender = make(url, give_up_after_s=1)

    with pytest.raises(OperationError, match="no answer"):
        sender.send(items(1))
    assert url in said[0]


def test_a_stop_ends_the_waiting(make: Callable[..., Sender], receiver: Receiver) -> None:
    receiver.script = [503] * 1000
    receiver.retry_after = "600"
    sender = make()
    future = sender.submit(items(1))
    threading.Timer(0.2, sender.stop.ask).start()

    with pytest.raises(StoppedError):
        future.result()


def test_the_key_is_never_shown(
    make: Callable[..., Sender], receiver: Receiver, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.script = [503, 401]
    with pytest.raises(OperationError) as raised:
        make(key="tk_secret").send(items(1))

    shown = [str(raised.value), repr(Target("http://x", "tk_secret")), *said, caplog.text]
    assert not any("tk_secret" in text for text in shown)


def test_a_batch_is_bounded_by_count_and_bytes() -> None:
    batch = Batch()
    big = Item("a", b"x" * (BATCH_BYTES_MAX // 2 + 1), Line(1, b""))
    assert batch.has_room_for(big, 1000)
    batch.add(big)
    assert not batch.has_room_for(big, 1000)
    assert batch.has_room_for(Item("a", b"x", Line(2, b"")), 1000)
    assert not batch.has_room_for(Item("a", b"x", Line(2, b"")), 1)
