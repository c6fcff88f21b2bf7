"""Live windows through a running stack: asked for, over a WebSocket, as Server-Sent Events."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from serving import second_api, served
from support import Stack, new_organization, wait_until

USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
#: Long names, and how often each is sent where much is to be told.
MANY, ROUNDS = [f"{number:03d}{'x' * 240}" for number in range(600)], 80
BY_NAME = {"group_by": ["command_name"], "measures": ["executions"]}


def command(**fields: Any) -> dict[str, Any]:
    return {"user_id": USER, "command_name": "plan", "execution_time_ms": 15, "status": "success", **fields}


def send(stack: Stack, *commands: dict[str, Any], url: str | None = None) -> None:
    answer = urllib3.request(
        "POST", (url or stack.url) + "/api/metrics/batch", body=json.dumps({"command_executions": commands}),
        headers={"authorization": f"Bearer {stack.key}", "content-type": "application/json"},
    )  # fmt: skip
    assert answer.status == 202, answer.data


def send_rounds(stack: Stack) -> None:
    """Megabytes of changes, as fast as frames are sent."""
    for _ in range(ROUNDS):
        send(stack, *(command(command_name=name) for name in MANY))
        time.sleep(0.12)


def real_time(stack: Stack, window: str = "5m", url: str | None = None, **query: str) -> Any:
    answer = urllib3.request(
        "GET", f"{url or stack.url}/api/metrics/real-time/{window}", fields=query,
        headers={"authorization": f"Bearer {stack.key}"},
    )  # fmt: skip
    return answer.json() | {"status": answer.status} if answer.status != 200 else answer.json()


def rows(answer: Any) -> dict[str, int]:
    return {row["command_name"]: row["executions"] for row in answer["data"]}


def live(stack: Stack, url: str | None = None, **options: Any) -> ClientConnection:
    """A WebSocket that has said who it is."""
    headers = {"authorization": f"Bearer {stack.key}"}
    address = (url or stack.url).replace("http", "ws") + "/api/metrics/live"
    return connect(address, additional_headers=headers, open_timeout=30, close_timeout=5, **options)


def receive(socket: ClientConnection, *kinds: str) -> Any:
    """The next message of these kinds."""
    while True:
        message = json.loads(socket.recv(timeout=30))
        if message["type"] in kinds:
            return message
        assert message["type"] in ("welcome", "subscribed", "heartbeat", "unsubscribed", "delta"), message


def subscribe(socket: ClientConnection, name: str = "a", **more: Any) -> Any:
    socket.send(json.dumps({"type": "subscribe", "id": name, "window": "5m", **BY_NAME, **more}))
    return receive(socket, "snapshot", "error")


def follow(socket: ClientConnection, state: dict[str, int], wanted: dict[str, int]) -> Any:
    """Apply what comes until the state is as wanted; the last message."""
    message = None
    while state != wanted:
        message = receive(socket, "delta", "snapshot")
        if message["type"] == "snapshot":
            state.clear()
        state.update(rows(message))
        for gone in message.get("removed", ()):
            state.pop(gone["command_name"])
    return message


def test_a_window_holds_what_was_just_acknowledged(stack: Stack) -> None:
    send(stack, command(), command(command_name="build"))
    assert rows(real_time(stack, group_by="command_name")) == {"plan": 1, "build": 1}
    stack.drain()
    answer = real_time(stack, group_by="command_name", measures="executions")
    assert (rows(answer), answer["exact"]) == ({"plan": 1, "build": 1}, True)
    assert rows(real_time(stack, "1d", group_by="command_name", command_name="plan")) == {"plan": 1}


@pytest.mark.parametrize(
    ("window", "query", "named"),
    [
        ("2m", {}, "window=2m"), ("5m", {"event_type": "x"}, "event_type=x"), ("5m", {"colour": "red"}, "colour"),
        ("5m", {"user_id": "x"}, "user_id=x"), ("5m", {"measures": "nothing"}, "nothing"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_is_refused_by_name(
    stack: Stack, window: str, query: dict[str, str], named: str
) -> None:
    answer = real_time(stack, window, **query)
    assert (answer["status"], answer["code"]) == (422, "invalid_query")
    assert named in answer["detail"]


def test_a_subscription_begins_with_a_snapshot_and_goes_on_with_what_changes(stack: Stack) -> None:
    send(stack, command())
    with live(stack) as socket:
        snapshot = subscribe(socket)
        assert (snapshot["type"], snapshot["id"], rows(snapshot)) == ("snapshot", "a", {"plan": 1})
        send(stack, command(), command(command_name="build"))
        message = follow(socket, rows(snapshot), {"plan": 2, "build": 1})
        assert (message["id"], message["window"]) == ("a", "5m")
        socket.send(json.dumps({"type": "unsubscribe", "id": "a"}))
        assert receive(socket, "unsubscribed")["id"] == "a"
        socket.send(json.dumps({"type": "ping"}))
        assert receive(socket, "pong")


def test_an_event_that_leaves_the_window_is_told(stack: Stack) -> None:
    send(stack, command(executed_at=_ago(57)))
    with live(stack) as socket:
        snapshot = subscribe(socket, window="1m")
        follow(socket, rows(snapshot), {})


def test_who_comes_back_gets_what_it_missed_and_no_snapshot(stack: Stack) -> None:
    with live(stack) as socket:
        state = rows(subscribe(socket))
        send(stack, command())
        cursor = follow(socket, state, {"plan": 1})["cursor"]
    send(stack, command(command_name="build"))
    with live(stack) as socket:
        socket.send(json.dumps({"type": "subscribe", "id": "b", "window": "5m", **BY_NAME, "cursor": cursor}))
        first = receive(socket, "delta", "snapshot")
        assert first["type"] == "delta"
        state |= rows(first)
        if state != {"plan": 1, "build": 1}:
            follow(socket, state, {"plan": 1, "build": 1})
    with live(stack) as socket:
        assert subscribe(socket, cursor="0badc0de-7")["type"] == "snapshot"


def test_a_client_that_cannot_set_headers_says_who_it_is_first(stack: Stack) -> None:
    address = stack.url.replace("http", "ws") + "/api/metrics/live"
    with connect(address) as socket:
        socket.send(json.dumps({"type": "auth", "token": stack.key}))
        assert subscribe(socket)["type"] == "snapshot"
    with connect(address) as socket:
        socket.send(json.dumps({"type": "subscribe", "id": "a", "window": "5m"}))
        assert receive(socket, "error")["code"] == "unauthenticated"
        assert receive(socket, "closing")["code"] == 1008
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_a_wrong_key_gets_no_socket(stack: Stack) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(
            stack.url.replace("http", "ws") + "/api/metrics/live",
            additional_headers={"authorization": "Bearer ttz_wrong"},
        )
    assert refused.value.response.status_code == 401


def test_another_path_is_no_socket(stack: Stack) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(stack.url.replace("http", "ws") + "/api/metrics/other")
    assert refused.value.response.status_code == 404


@pytest.mark.parametrize(
    "message", ["no json", "[]", '{"type":"dance"}', '{"type":"subscribe","id":"a","window":"9m"}']
)
def test_a_message_that_is_not_understood_is_answered_and_the_connection_lives(stack: Stack, message: str) -> None:
    with live(stack) as socket:
        socket.send(message)
        assert receive(socket, "error")["detail"]
        assert subscribe(socket)["type"] == "snapshot"


def test_a_revoked_key_ends_its_connections(stack: Stack) -> None:
    with live(stack) as socket:
        subscribe(socket)
        with stack.running.connect(None) as connection:
            connection.execute(
                "UPDATE totalizer.api_keys SET revoked_at = now() WHERE organization_id = %s", [stack.organization_id]
            )
        began = time.monotonic()
        assert receive(socket, "closing")["code"] == 1008
        assert time.monotonic() - began < 20


def test_nobody_sees_another_organisation(stack: Stack) -> None:
    other = new_organization(stack.running)
    with live(stack) as mine, live(other) as theirs:
        assert (rows(subscribe(mine)), rows(subscribe(theirs))) == ({}, {})
        send(other, command(command_name="secret"))
        cursor = follow(theirs, {}, {"secret": 1})["cursor"]
        send(stack, command(command_name="own"))
        follow(mine, {}, {"own": 1})
        assert rows(subscribe(mine, "b", cursor=cursor)) == {"own": 1}
    assert rows(real_time(stack, group_by="command_name")) == {"own": 1}
    assert rows(real_time(other, group_by="command_name")) == {"secret": 1}
    events = Events(stack)
    assert rows(events.next("snapshot")[1]) == {"own": 1}
    send(other, command(command_name="secret"))
    send(stack, command(command_name="own"))
    assert rows(events.next("delta")[1]) == {"own": 2}
    assert rows(Events(stack, cursor=cursor).next("snapshot")[1]) == {"own": 2}


class Events:
    """A reader of Server-Sent Events."""

    def __init__(self, stack: Stack, cursor: str | None = None, url: str | None = None) -> None:
        headers = {"authorization": f"Bearer {stack.key}"} | ({"last-event-id": cursor} if cursor else {})
        self.answer = urllib3.request(
            "GET", (url or stack.url) + "/api/metrics/live/events", headers=headers, preload_content=False, timeout=30,
            fields={"window": "5m", "group_by": "command_name"},
        )  # fmt: skip
        self._lines = self._read()

    def _read(self) -> Iterator[str]:
        rest = b""
        for chunk in self.answer.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode() for line in lines)

    def any(self) -> tuple[str, str, Any]:
        """Kind, id and data of the next event."""
        found: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line:
                found[name] = value
            elif "event" in found:
                kind, data = found["event"], found["data"]
                return kind, found.get("id", ""), data if kind == "closing" else json.loads(data)
            else:
                found = {}
        raise AssertionError("nothing more")

    def next(self, kind: str) -> tuple[str, Any]:
        """Id and data of the next event of a kind."""
        while True:
            each, cursor, data = self.any()
            if each == kind:
                return cursor, data


def test_server_sent_events_tell_the_same_and_resume(stack: Stack) -> None:
    assert urllib3.request("GET", stack.url + "/api/metrics/live/events?window=5m").status == 401
    events = Events(stack)
    assert events.answer.headers["content-type"].startswith("text/event-stream")
    assert rows(events.next("snapshot")[1]) == {}
    send(stack, command())
    cursor, delta = events.next("delta")
    assert rows(delta) == {"plan": 1}
    events.answer.close()
    send(stack, command())
    assert rows(Events(stack, cursor=cursor).next("delta")[1]) == {"plan": 2}


def test_a_reader_of_events_that_goes_gives_its_seat_back(stack: Stack, tmp_path: Path) -> None:
    with served(stack.running, tmp_path, TOTALIZER_LIVE_CONNECTIONS_MAX="1") as api:
        url = f"http://{api.host}:{api.port}"
        events = Events(stack, url=url)
        events.next("snapshot")
        assert Events(stack, url=url).answer.status == 429
        events.answer.close()
        wait_until(lambda: Events(stack, url=url).answer.status == 200, "a seat getting free")


def test_a_connection_of_events_ends_when_it_has_had_enough_and_its_reader_goes_on(stack: Stack) -> None:
    """So that no more than that can wait for one who reads nothing."""
    events, state, closed = Events(stack), dict[str, int](), list[str]()
    cursor = ""

    def apply() -> None:
        nonlocal events, cursor
        while state != dict.fromkeys(MANY, ROUNDS):
            kind, cursor_now, data = events.any()
            if kind == "closing":
                closed.append(data)
                events = Events(stack, cursor=cursor)
                continue
            cursor = cursor_now
            if kind == "snapshot":
                state.clear()
            state.update(rows(data))

    reader = threading.Thread(target=apply)
    reader.start()
    send_rounds(stack)
    reader.join(60)
    assert state == dict.fromkeys(MANY, ROUNDS)
    assert set(closed) == {"1000 a connection has so much and no more; go on from your cursor"}
    events.answer.close()


def test_limits_of_connections_and_subscriptions(stack: Stack, tmp_path: Path) -> None:
    limits = {"TOTALIZER_LIVE_CONNECTIONS_MAX": "2", "TOTALIZER_LIVE_SUBSCRIPTIONS_MAX": "1"}
    with served(stack.running, tmp_path, **limits) as api:
        url = f"http://{api.host}:{api.port}"
        with live(stack, url) as first, live(stack, url):
            assert subscribe(first)["type"] == "snapshot"
            assert subscribe(first, "b")["code"] == "live_limit"
            with pytest.raises(InvalidStatus) as refused:
                live(stack, url)
            assert refused.value.response.status_code == 429
        wait_until(lambda: _may_connect(stack, url), "a seat getting free")


def _may_connect(stack: Stack, url: str) -> bool:
    try:
        with live(stack, url):
            pass
    except InvalidStatus:
        return False
    return True


def test_a_server_that_ends_says_so(stack: Stack, tmp_path: Path) -> None:
    with served(stack.running, tmp_path) as api:
        url = f"http://{api.host}:{api.port}"
        events = Events(stack, url=url)
        with live(stack, url) as socket:
            subscribe(socket)
            api.process.send_signal(signal.SIGTERM)
            assert receive(socket, "closing")["code"] == 1001
            assert events.next("closing")[1].startswith("1001")
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=30)
            assert closed.value.rcvd is not None, "the connection was cut, not closed"


def test_two_processes_tell_the_same(stack: Stack, tmp_path: Path) -> None:
    """Both read all journals of the machine, also that of the other."""
    with served(stack.running, tmp_path, TOTALIZER_WORKERS="2") as api:
        url = f"http://{api.host}:{api.port}"
        with live(stack) as here, live(stack, url) as there:
            states: list[dict[str, int]] = [rows(subscribe(here)), rows(subscribe(there))]
            for number in range(1, 4):
                send(stack, command())
                send(stack, command(), url=url)
                for socket, state in zip((here, there), states, strict=True):
                    follow(socket, state, {"plan": 2 * number})
        assert real_time(stack, url=url)["data"] == real_time(stack)["data"]


def test_another_machine_tells_what_was_just_acknowledged_here(stack: Stack, tmp_path: Path) -> None:
    """Its data folder is its own, and nobody loads what is sent to it."""
    with second_api(stack.running, tmp_path) as url, live(stack) as socket:
        state = rows(subscribe(socket))
        events = Events(stack, url=url)
        events.next("snapshot")
        send(stack, command(), url=url)
        follow(socket, state, {"plan": 1})
        send(stack, command())
        follow(socket, state, {"plan": 2})
        while rows(events.next("delta")[1]) != {"plan": 2}:
            pass
        events.answer.close()
        for address in (stack.url, url):
            assert rows(real_time(stack, url=address, group_by="command_name")) == {"plan": 2}


def test_a_slow_reader_is_let_go_and_the_others_are_not_held_up(stack: Stack) -> None:
    """One reads nothing: its kernel's buffers fill, then its queue; the other gets every change meanwhile."""
    slow = _raw_socket(stack)
    try:
        with live(stack, max_size=None) as quick:
            state = rows(subscribe(quick))
            done = threading.Event()

            def apply() -> None:
                follow(quick, state, dict.fromkeys(MANY, ROUNDS))
                done.set()

            reader = threading.Thread(target=apply)
            reader.start()
            send_rounds(stack)
            reader.join(60)
            assert done.is_set()
        slow.settimeout(30)
        data = b""
        while chunk := slow.recv(1 << 20):
            data += chunk
        # Everything would be 14 MB.
        assert len(data) < 12 << 20
    except ConnectionResetError:
        pass
    finally:
        slow.close()


def _raw_socket(stack: Stack) -> socket.socket:
    """A WebSocket that has subscribed, and reads nothing from then on."""
    raw = socket.create_connection(("127.0.0.1", stack.running.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    raw.sendall(
        b"GET /api/metrics/live HTTP/1.1\r\nhost: here\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        + f"authorization: Bearer {stack.key}\r\n\r\n".encode()
    )
    assert b" 101 " in raw.recv(1000)
    text = json.dumps({"type": "subscribe", "id": "a", "window": "5m", **BY_NAME}).encode()
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
    raw.sendall(bytes([0x81, 0x80 | 126]) + len(text).to_bytes(2, "big") + mask + masked)
    return raw


def _ago(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def test_keys_are_in_no_log(stack: Stack) -> None:
    with live(stack) as socket:
        subscribe(socket)
    assert stack.key not in stack.running.output()
    for path in (stack.home / "log").glob("*") if (stack.home / "log").exists() else ():
        assert stack.key.encode() not in path.read_bytes()
