"""CloudEvents and messages of analytics libraries become events."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from totalizer.catalog import load_catalog
from totalizer.clock import utc_text
from totalizer.collect import Sent, Wrong
from totalizer.collect.analytics import Messages
from totalizer.collect.cloudevents import mapped, of_headers
from totalizer.collect.members import members

TYPES = load_catalog().event_types
EVENT = {"specversion": "1.0", "type": "a.b", "source": "/s", "id": "1"}
NOW_NS = 1_757_066_400_000_000_000
NOW, DAY_BEFORE = utc_text(NOW_NS), utc_text(NOW_NS - 86_400_000_000_000)


def cloud(**attributes: Any) -> tuple[str, dict[str, Any]]:
    """Event type and fields of a CloudEvent."""
    event_type, fields = mapped(members(json.dumps(EVENT | attributes).encode()), TYPES)
    return event_type.name, json.loads(msgspec.json.encode(fields))


@pytest.mark.parametrize(
    ("data", "kept"),
    [({"a": 0.10}, {"a": 0.10}), ([1], {"value": [1]}), ("x", {"value": "x"}), (5, {"value": 5}), (None, None)],
)
def test_any_data_is_kept(data: Any, kept: Any) -> None:
    assert cloud(data=data)[1].get("data") == kept


def test_bytes_are_kept_unless_they_are_a_json_object() -> None:
    packed = base64.b64encode(b'{"a":1}').decode()
    assert cloud(data_base64=packed)[1]["data"] == {"a": 1}
    assert cloud(data_base64=packed, datacontenttype="image/png")[1]["data"] == {"base64": packed}
    assert cloud(data_base64="AAE=")[1]["data"] == {"base64": "AAE="}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"specversion": "0.3"}, "specversion is '0.3'"), ({"specversion": None}, "specversion is None"),
        ({"specversion": 1.0}, "specversion"), ({"id": ""}, "'id' is missing"), ({"type": []}, "'type' is missing"),
        ({"source": None}, "'source' is missing"), ({"data": 1, "data_base64": "AAE="}, "both data and data_base64"),
        ({"data_base64": "?"}, "not base64"), ({"type": "commits", "data": 5}, "data is not a JSON object"),
    ],
)  # fmt: skip
def test_what_is_no_cloudevent_is_told(attributes: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cloud(**attributes)


def test_extensions_fill_declared_fields_and_are_dropped_otherwise() -> None:
    name, fields = cloud(type="x.commits", data={"repository": "r"}, author="Ada", traceparent="00-1")
    assert (name, fields) == ("commits", {"repository": "r", "author": "Ada", "id": "1", "source": "/s"})
    assert cloud(traceparent="00-1", tenant=None)[1]["extensions"] == {"traceparent": "00-1"}


def binary(body: bytes = b"", **headers: str) -> Any:
    """The fields of an event in binary mode."""
    sent = {"ce-specversion": "1.0", "ce-type": "a.b", "ce-source": "/s", "ce-id": "1"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    _, fields = mapped(of_headers(sent.items(), body), TYPES)
    return json.loads(msgspec.json.encode(fields))


@pytest.mark.parametrize(
    ("header", "value"),
    [("Z%C3%BCrich%20%25", "Zürich %"), ('"a b"', "a b"), ('"a \\"b\\""', 'a "b"'), ("ZÃ¼rich", "Zürich"), ("", None)],
)
def test_headers_are_decoded(header: str, value: str | None) -> None:
    assert (binary(ce_subject=header)["subject"] or None) == value


@pytest.mark.parametrize(
    ("body", "content_type", "data"),
    [
        (b'{"a":1}', "application/json; charset=utf-8", {"a": 1}), (b" [1] ", "application/x+json", {"value": [1]}),
        (b"\xc3\xa9", "text/plain", {"value": "é"}), (b"\xe9", "text/plain; charset=latin-1", {"base64": "6Q=="}),
        (b"\0", "application/octet-stream", {"base64": "AA=="}),
    ],
)  # fmt: skip
def test_the_body_of_the_binary_mode_is_the_data(body: bytes, content_type: str, data: Any) -> None:
    fields = binary(body, content_type=content_type)
    assert (fields["data"], fields["datacontenttype"]) == (data, content_type)


@pytest.mark.parametrize(("header", "body"), [("%ff", b""), ("x", b"{")])
def test_what_cannot_be_decoded_is_told(header: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not percent-encoded UTF-8|not JSON"):
        binary(body, ce_subject=header)


def message(kind: str | None = None, **members: Any) -> Any:
    """A message as an event; why it is none."""
    body = members if kind else {"batch": [members]}
    return only(Messages(json.dumps(body).encode(), kind, NOW_NS))


def only(messages: Messages) -> Any:
    [sent] = messages.sent()
    if isinstance(sent, Wrong):
        return sent.reason
    assert isinstance(sent, Sent)
    assert sent.event_type == "tracks"
    return json.loads(sent.raw)


def test_a_message_becomes_an_event() -> None:
    assert message(type="track", event="E", userId=7, messageId="m", properties={"a": 1}, integrations={}) == {
        "type": "track", "event": "E", "userId": "7", "subject": "7", "id": "m", "properties": {"a": 1},
        "integrations": {},
    }  # fmt: skip
    assert message("page", anonymousId="v", name="Home", type="track")["type"] == "page"
    assert message("page", anonymousId="v")["subject"] == "v"
    assert message("page")["subject"] is None


def test_the_key_is_not_kept_and_our_own_names_are_moved() -> None:
    found = message("track", writeKey="tz_secret", id="theirs", source="their source", subject="s")
    assert found == {
        "type": "track",
        "subject": None,
        "other": {"id": "theirs", "source": "their source", "subject": "s"},
    }


def test_the_context_of_a_batch_holds_for_its_messages() -> None:
    batch = {"batch": [{"type": "track"}, {"type": "track", "context": {"ip": "2"}}], "context": {"ip": "1", "os": "x"}}
    found = [json.loads(sent.raw) for sent in Messages(json.dumps(batch).encode(), None, NOW_NS).sent()]  # type: ignore[union-attr]
    assert [event["context"] for event in found] == [{"ip": "1", "os": "x"}, {"ip": "2", "os": "x"}]


@pytest.mark.parametrize(
    ("sent_at", "timestamp", "stored"),
    [
        (None, DAY_BEFORE, DAY_BEFORE),
        (NOW, DAY_BEFORE, DAY_BEFORE),
        (utc_text(NOW_NS + 299_000_000_000), DAY_BEFORE, DAY_BEFORE),
        # A clock that is a day behind, and one that is a day ahead, in milliseconds.
        (DAY_BEFORE, utc_text(NOW_NS - 86_410_000_000_000), utc_text(NOW_NS - 10_000_000_000)),
        (NOW_NS // 1_000_000 + 86_400_000, NOW_NS // 1_000_000 + 86_390_000, utc_text(NOW_NS - 10_000_000_000)),
        ("nonsense", "nonsense", "nonsense"),
        (DAY_BEFORE, "nonsense", "nonsense"),
        (DAY_BEFORE, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_a_wrong_clock_is_set_right(sent_at: Any, timestamp: Any, stored: Any) -> None:
    body = {"batch": [{"type": "track", "timestamp": timestamp}], "sentAt": sent_at}
    assert only(Messages(json.dumps(body).encode(), None, NOW_NS))["timestamp"] == stored


def test_what_is_no_message_is_told() -> None:
    assert "its type is missing" in message(event="E")
    for body in (b"", b"[]", b"{}", b'{"batch":5}', b'{"batch":null}', b"{"):
        with pytest.raises(ValueError, match=r"it is|it has no batch|no list|JSON"):
            Messages(body, None, NOW_NS)
    assert only(Messages(b'{"batch":[5]}', None, NOW_NS)).startswith("it is no usable JSON object")
