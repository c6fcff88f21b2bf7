"""HttpSink against a server that keeps the contract, and against one that breaks it in every way we know."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from standin_server import KEY, StandinServer, standin_server
from totalizer.edge.batch import Batch
from totalizer.edge.sinks.http import HttpSink
from totalizer.errors import ConfigurationError, SinkRefused, SinkUnavailable

NOW_MS = 1_757_066_400_000


@pytest.fixture
def server() -> Iterator[StandinServer]:
    with standin_server() as server:
        yield server


@pytest.fixture
def make(server: StandinServer) -> Iterator[Callable[..., HttpSink]]:
    sinks: list[HttpSink] = []

    def make(url: str | None = None, key: str = KEY, **options: Any) -> HttpSink:
        sinks.append(HttpSink(url or server.url, key, **({"timeout_s": 5} | options)))
        return sinks[-1]

    yield make
    for sink in sinks:
        sink.close()


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "userId": "u", "action": "a", "timestamp": NOW_MS + number, **more}


def batch(count: int, first: int = 0, **more: Any) -> Batch:
    return Batch("1757066400000_abc123", NOW_MS, tuple(entry(n, **more) for n in range(first, first + count)))


# ------------------------------------------------------------------------------------------------ what is sent


def test_a_batch_is_one_request_under_its_id(make: Any, server: StandinServer) -> None:
    metadata = {"sessionId": "s", "taskId": "t", "duration": 5, "file": "x"}
    delivery = make().deliver(batch(3, metadata=metadata))

    assert (delivery.accepted, delivery.refused) == (3, ())
    [request] = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["idempotency-key"] == "1757066400000_abc123"
    assert request.headers["user-agent"].startswith("totalizer-edge/")
    assert request.events[0] == {
        "id": "e0", "userId": "u", "action": "a", "timestamp": NOW_MS, "metadata": metadata,
        "sessionId": "s", "taskId": "t", "duration": 5,
    }  # fmt: skip


def test_large_bodies_are_compressed_and_small_ones_are_not(make: Any, server: StandinServer) -> None:
    sink = make()
    sink.deliver(batch(1))
    sink.deliver(batch(200, 10))

    small, large = server.requests
    assert "content-encoding" not in small.headers
    assert large.headers["content-encoding"] == "gzip"
    assert len(large.sent) < len(large.body) / 5
    assert len(server.stored) == 201


def test_the_connection_is_kept(make: Any, server: StandinServer) -> None:
    sink = make()
    for number in range(20):
        sink.deliver(batch(1, number))
    assert (len(server.requests), server.connections) == (20, 1)


def test_a_connection_that_was_closed_meanwhile_is_replaced(make: Any, server: StandinServer) -> None:
    server.script = ["store", "close", "drop", "store"]
    sink = make()
    for number in range(4):
        # The third request goes over a new connection, and is dropped: that is a failure. The fourth makes another.
        if number == 2:
            with pytest.raises(SinkUnavailable):
                sink.deliver(batch(1, number))
        else:
            assert sink.deliver(batch(1, number)).accepted == 1


def test_a_kept_connection_that_breaks_at_its_next_use_is_tried_anew_once(make: Any, server: StandinServer) -> None:
    server.script = ["store", "drop", "store"]
    sink = make()
    sink.deliver(batch(1))
    assert sink.deliver(batch(1, 1)).accepted == 1
    assert len(server.requests) == 3


def test_many_entries_go_in_several_requests_with_keys_of_their_own(make: Any, server: StandinServer) -> None:
    assert make().deliver(batch(2500)).accepted == 2500

    assert [len(request.events) for request in server.requests] == [1000, 1000, 500]
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert len(keys) == 3
    assert all(key.startswith("1757066400000_abc123-") for key in keys)
    assert len(server.stored) == 2500


def test_large_entries_go_in_several_requests(make: Any, server: StandinServer) -> None:
    assert make().deliver(batch(100, metadata={"text": "x" * 60_000})).accepted == 100
    assert [len(request.events) for request in server.requests] == [69, 31]
    assert all(len(request.body) < 4 << 20 for request in server.requests)


def test_the_same_attempt_again_has_the_same_keys_and_bytes(make: Any, server: StandinServer) -> None:
    sink = make()
    for _ in range(2):
        sink.deliver(batch(1500))
    first, again = server.requests[:2], server.requests[2:]
    assert [r.headers["idempotency-key"] for r in first] == [r.headers["idempotency-key"] for r in again]
    assert [r.sent for r in first] == [r.sent for r in again]


def test_an_entry_json_cannot_say_is_refused_alone(make: Any, server: StandinServer) -> None:
    good = batch(3)
    bad = Batch(good.batch_id, NOW_MS, (good.entries[0], entry(1, metadata={"x": "\ud800"}), good.entries[2]))
    delivery = make().deliver(bad)

    assert delivery.accepted == 2
    assert [(refused.index, refused.code) for refused in delivery.refused] == [(1, "invalid_event")]


# ------------------------------------------------------------------------------------------------ refusals


def test_refused_entries_are_named_with_the_servers_reason(make: Any, server: StandinServer) -> None:
    server.refuse = lambda event: "odd" if event["id"] in ("e1", "e3") else None
    delivery = make().deliver(batch(5))

    assert delivery.accepted == 3
    assert [(r.index, r.code, r.message) for r in delivery.refused] == [
        (1, "invalid_event", "odd"), (3, "invalid_event", "odd"),
    ]  # fmt: skip


def test_a_batch_refused_entry_by_entry_says_why_for_each(make: Any, server: StandinServer) -> None:
    server.refuse = lambda event: "odd"
    delivery = make().deliver(batch(5))
    assert (delivery.accepted, len(delivery.refused), len(server.requests)) == (0, 5, 1)


def test_what_a_refusal_does_not_name_is_sent_again(make: Any, server: StandinServer) -> None:
    item = {"event_type": "time_entries", "index": 1, "code": "invalid_event", "message": "odd"}
    server.script = [(422, {"code": "invalid_event", "detail": "x", "items": [item]})]
    delivery = make().deliver(batch(4))
    assert (delivery.accepted, [refused.index for refused in delivery.refused]) == (3, [1])
    assert set(server.stored) == {"e0", "e2", "e3"}


@pytest.mark.parametrize(
    "item",
    [
        {"status": 503, "code": "whatever"},
        {"status": "429", "code": "whatever"},
        {"status": "rejected", "code": "journal_full"},
        {"status": "rejected", "code": "rate_limited"},
    ],
)
def test_entries_the_server_cannot_take_now_are_left_undelivered(make: Any, server: StandinServer, item: Any) -> None:
    whole = {"event_type": "time_entries", "message": "later", **item}
    server.refuse = lambda event: {"e1": whole, "e2": "odd"}.get(event["id"])
    with pytest.raises(SinkUnavailable, match="later") as caught:
        make().deliver(batch(4))

    assert caught.value.undelivered == (1,)
    assert [(refused.index, refused.message) for refused in caught.value.refused] == [(2, "odd")]
    assert set(server.stored) == {"e0", "e3"}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_entry_at_fault_is_found_in_halves(make: Any, server: StandinServer, status: int) -> None:
    def poisoned(request: Any) -> Any:
        if any(event["id"] == "e11" for event in request.events):
            return status, {"code": "bad_thing", "detail": "cannot be read"}
        return "store"

    server.always = poisoned
    delivery = make().deliver(batch(20))

    assert delivery.accepted == 19
    assert [(refused.index, refused.code) for refused in delivery.refused] == [(11, "bad_thing")]
    assert "cannot be read" in delivery.refused[0].message
    assert len(server.requests) < 15


def test_a_server_that_takes_fewer_events_gets_fewer_from_then_on(make: Any, server: StandinServer) -> None:
    server.events_max = 300
    sink = make()
    assert sink.deliver(batch(1000)).accepted == 1000
    before = len(server.requests)
    assert sink.deliver(batch(1000, 1000)).accepted == 1000
    assert [len(request.events) for request in server.requests[before:]] == [250] * 4


def test_a_server_that_refuses_all_gets_no_endless_row_of_halves(make: Any, server: StandinServer) -> None:
    server.always = 400
    delivery = make().deliver(batch(1000))
    assert (delivery.accepted, len(delivery.refused)) == (0, 1000)
    assert len(server.requests) < 600


@pytest.mark.parametrize("status", [402, 410, 415, 451])
def test_other_refusals_are_for_good_and_not_repeated(make: Any, server: StandinServer, status: int) -> None:
    server.always = status
    with pytest.raises(SinkRefused, match=f"answers {status}: scripted {status}"):
        make().deliver(batch(3))
    assert len(server.requests) == 1


def test_a_part_refused_for_good_leaves_the_other_parts_delivered(make: Any, server: StandinServer) -> None:
    server.script = ["store", 410, "store"]
    delivery = make().deliver(batch(2500))
    assert delivery.accepted == 1500
    assert [refused.index for refused in delivery.refused] == list(range(1000, 2000))


@pytest.mark.parametrize("status", [400, 415])
def test_a_server_that_cannot_unpack_gets_plain_bodies_from_then_on(
    make: Any, server: StandinServer, status: int
) -> None:
    def old(request: Any) -> Any:
        return status if "content-encoding" in request.headers else "store"

    server.always = old
    sink = make()
    assert sink.deliver(batch(100)).accepted == 100
    assert sink.deliver(batch(100, 100)).accepted == 100
    assert ["content-encoding" in request.headers for request in server.requests] == [True, False, False]
    assert server.requests[0].headers["idempotency-key"] == server.requests[1].headers["idempotency-key"]


def test_a_spent_key_is_left_out(make: Any, server: StandinServer) -> None:
    def keyed(request: Any) -> Any:
        if "idempotency-key" in request.headers:
            return 422, {"title": "Idempotency-Key is already used", "detail": "with another body"}
        return "store"

    server.always = keyed
    assert make().deliver(batch(100)).accepted == 100
    assert ["idempotency-key" in request.headers for request in server.requests] == [True, False]


# ------------------------------------------------------------------------------------------------ try again later


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 599])
def test_busy_servers_are_asked_again_later(make: Any, server: StandinServer, status: int) -> None:
    server.script = [(status, {"detail": "busy"}, {"Retry-After": "7"})]
    with pytest.raises(SinkUnavailable, match=f"answers {status}: busy") as caught:
        make().deliver(batch(3))
    assert (caught.value.retry_after_s, caught.value.undelivered) == (7.0, None)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407])
def test_a_wrong_key_or_address_keeps_the_batch_and_says_so(make: Any, server: StandinServer, status: int) -> None:
    server.script = [(status, {"detail": "no"})]
    words = "check api_key" if status in (401, 403) else "check the url"
    with pytest.raises(SinkUnavailable, match=words):
        make().deliver(batch(3))


@pytest.mark.parametrize(
    ("dates", "expected"),
    [((0, 90), 90.0), ((0, -90), 0.0), ((1_000_000, 1_000_060), 60.0)],
    ids=["future", "past", "clocks that differ"],
)
def test_a_date_to_come_back_at_is_counted_by_the_servers_clock(
    make: Any, server: StandinServer, dates: tuple[int, int], expected: float
) -> None:
    date, until = (formatdate(NOW_MS / 1000 + seconds, usegmt=True) for seconds in dates)
    server.script = [(503, {}, {"Retry-After": until, "Date": date})]
    with pytest.raises(SinkUnavailable) as caught:
        make().deliver(batch(1))
    assert caught.value.retry_after_s == expected


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(make: Any, server: StandinServer, status: int) -> None:
    with standin_server() as other:
        server.script = [(status, {}, {"Location": other.url})]
        with pytest.raises(SinkUnavailable, match="sends elsewhere"):
            make().deliver(batch(1))
        assert other.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"accepted": 3, "rejected": 0, "items": []}),
        (204, b""),
        (202, b""),
        (202, b"<html>welcome</html>"),
        (202, b"\xff\xfe"),
        (202, b"[" * 5000),
        (202, {"hello": "world"}),
        (202, {"accepted": "3", "rejected": 0, "items": []}),
        (202, {"accepted": 2, "rejected": 0, "items": []}),
        (202, {"accepted": 4, "rejected": -1, "items": []}),
        (202, {"accepted": 2, "rejected": 1, "items": []}),
        (202, {"accepted": 2, "rejected": 1, "items": [{"event_type": "time_entries", "index": 3}]}),
        (202, {"accepted": 2, "rejected": 1, "items": [{"event_type": "time_entries", "index": -1}]}),
        (202, {"accepted": 2, "rejected": 1, "items": [{"event_type": "commits", "index": 0}]}),
        (202, {"accepted": 1, "rejected": 2, "items": [{"event_type": "time_entries", "index": 0}] * 2}),
        (400, b"<html>Bad Request, says a proxy</html>"),
        (410, b""),
        (422, {"code": "x", "detail": "x", "items": [{"event_type": "time_entries", "index": 99}]}),
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 500\r\n\r\n{}",
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\n" + b"X-Filler: x\r\n" * 500 + b"\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"",
        "cut",
        "lose",
        "drop",
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_relied_on_delivers_nothing_and_a_resend_counts_once(
    make: Any, server: StandinServer, answer: Any
) -> None:
    server.script = [answer]
    sink = make(gzip=False)
    with pytest.raises(SinkUnavailable) as caught:
        sink.deliver(batch(3))
    assert caught.value.undelivered is None
    assert server.url in str(caught.value)

    assert sink.deliver(batch(3)).accepted == 3
    assert sorted(server.stored) == ["e0", "e1", "e2"]


@pytest.mark.parametrize("act", ["silent", "drip", "drip head", "endless"])
def test_an_answer_without_end_is_given_up(make: Any, server: StandinServer, act: str) -> None:
    server.script = [act]
    with pytest.raises(SinkUnavailable, match=r"in time|longer than"):
        make(timeout_s=0.3).deliver(batch(1))


def test_a_server_that_does_not_read_is_given_up(make: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        sink = make(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.5, gzip=False)
        with pytest.raises(SinkUnavailable, match="in time"):
            sink.deliver(batch(60, metadata={"text": os.urandom(30_000).hex()}))


def test_nobody_there(make: Any) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(SinkUnavailable, match="no connection"):
            make(f"http://127.0.0.1:{reserved.getsockname()[1]}").deliver(batch(1))
    with pytest.raises(SinkUnavailable):
        make("http://nobody.invalid").deliver(batch(1))


def test_what_was_taken_before_the_server_failed_is_not_sent_again(make: Any, server: StandinServer) -> None:
    server.refuse = lambda event: "odd" if event["id"] == "e5" else None
    server.script = ["store", 503]
    sink = make()
    with pytest.raises(SinkUnavailable) as caught:
        sink.deliver(batch(2500))

    assert caught.value.undelivered == tuple(range(1000, 2500))
    assert [refused.index for refused in caught.value.refused] == [5]
    assert len(server.requests) == 2, "a server that asks to be left alone was sent the third part"
    assert sink.deliver(batch(2500).only(caught.value.undelivered)).accepted == 1500


def test_a_slow_server_ends_a_long_delivery_with_what_is_done(make: Any, server: StandinServer) -> None:
    class Clock:
        now = 0.0

        def now_ns(self) -> int:
            return 0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            raise AssertionError

    clock = Clock()

    def late(request: Any) -> Any:
        clock.now += 40.0  # within the time of one request, whether the client waits for its answer already or not
        return "store"

    server.always = late
    with pytest.raises(SinkUnavailable, match="longer than 150 s") as caught:
        make(clock=clock, timeout_s=50, connect_timeout_s=30, events_max=500).deliver(batch(2500))
    assert caught.value.undelivered == tuple(range(2000, 2500))


# ------------------------------------------------------------------------------------------------ the rest


def test_a_child_makes_a_connection_of_its_own(make: Any, server: StandinServer) -> None:
    sink = make()
    sink.deliver(batch(1))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if sink.deliver(batch(1, 1)).accepted == 1 else 2
            sink.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sink.deliver(batch(1, 2)).accepted == 1
    assert (len(server.stored), server.connections) == (3, 2)


def test_closing_twice_does_nothing(make: Any, server: StandinServer) -> None:
    sink = make()
    sink.close()
    sink.deliver(batch(1))
    sink.close()
    sink.close()


def test_the_key_is_never_shown(make: Any, server: StandinServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sink = make(key="tz_secret")
    shown = [repr(sink), sink.name]
    for act in (401, 503, 410, "drop", b"nonsense\r\n"):
        server.script = [act]
        with pytest.raises((SinkUnavailable, SinkRefused)) as caught:
            sink.deliver(batch(1))
        shown.append(repr(caught.value))
    with pytest.raises(ConfigurationError) as wrong:
        make(key="tz_secret with blanks")
    assert not any("tz_secret" in text for text in [*shown, str(wrong.value), caplog.text])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": ""}, ["url=''", "http://"]),
        ({"url": "ftp://x"}, ["url='ftp://x'"]),
        ({"url": "http://host:99999"}, ["url=", "99999"]),
        ({"url": "http://"}, ["url="]),
        ({"url": "http://a b/"}, ["url="]),
        ({"url": 5}, ["url=5"]),
        ({"url": "http://user:secret@host"}, ["url", "user"]),
        ({"url": "http://host/?key=secret"}, ["url", "query"]),
        ({"api_key": ""}, ["api_key"]),
        ({"api_key": "a\nb"}, ["api_key"]),
        ({"api_key": None}, ["api_key"]),
        ({"timeout_s": 0}, ["timeout_s=0", "0.1 to 600"]),
        ({"timeout_s": float("nan")}, ["timeout_s=nan"]),
        ({"timeout_s": True}, ["timeout_s=True"]),
        ({"connect_timeout_s": "5"}, ["connect_timeout_s='5'"]),
        ({"gzip": 1}, ["gzip=1", "True or False"]),
        ({"ca_bundle": "/nowhere/at/all"}, ["ca_bundle='/nowhere/at/all'"]),
        ({"ca_bundle": 5}, ["ca_bundle='5'"]),
        ({"events_max": 0}, ["events_max=0", "100000"]),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpSink(**({"url": "http://host", "api_key": KEY} | options))
    for word in words:
        assert word in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_path_below_the_host_and_a_slash_at_its_end(make: Any, server: StandinServer) -> None:
    with pytest.raises(SinkUnavailable, match="answers 404"):
        make(server.url + "/below/").deliver(batch(1))
    assert server.requests[0].path == "/below/api/metrics/batch"
    assert make(server.url + "/").deliver(batch(1)).accepted == 1
