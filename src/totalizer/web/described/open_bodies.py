"""The bodies of open protocols: CloudEvents, and the messages of analytics libraries."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import OpenAPIType, Reference, Schema

from totalizer.collect.analytics import KINDS
from totalizer.web.described.forms import ANY, Form, by_name, several, text

_TEXT = Schema(type=OpenAPIType.STRING, min_length=1)
_MAPPING = by_name(ANY)
_CLOUD_EVENT = Schema(
    type=OpenAPIType.OBJECT,
    title="CloudEvent 1.0",
    properties={
        "specversion": text("", "1.0"), "id": _TEXT, "source": _TEXT, "type": _TEXT, "subject": text(), "time": text(),
        "datacontenttype": text(), "dataschema": text(), "data": Schema(description="Any JSON value."),
        "data_base64": text("Instead of data: bytes."),
    },
    required=["specversion", "id", "source", "type"],
)  # fmt: skip
_ORDER = {
    "specversion": "1.0", "id": "order-17", "source": "/shop", "type": "com.example.order.paid",
    "subject": "customer-1",
    "time": "2025-09-05T10:00:00Z", "data": {"total": 12.5},
}  # fmt: skip
_ORDERS = several(_CLOUD_EVENT)

#: One; several; either; what one is about, its attributes being in header fields.
CLOUD_EVENT: Final = Form(_CLOUD_EVENT, _ORDER)
CLOUD_EVENTS: Final = Form(_ORDERS, [_ORDER])
EITHER: Final = Form(Schema(one_of=[_CLOUD_EVENT, _ORDERS]), _ORDER)
DATA: Final = Form(Schema(description="The data of an event."))

_WHO = {"messageId": "m-1", "userId": "u-1"}
#: What a message of each kind says, beside who.
_SAYS: dict[str, dict[str, Any]] = {
    "track": {"event": "Signed up", "properties": {"plan": "free"}}, "identify": {"traits": {"plan": "free"}},
    "page": {"name": "Home"}, "screen": {"name": "Home"}, "group": {"groupId": "g-1"}, "alias": {"previousId": "a-1"},
}  # fmt: skip


def messages(kind: str | None) -> Form:
    """A message of a kind; a batch of messages, if there is none."""
    if kind is not None:
        return Form(_message(kind), {**_WHO, **_SAYS[kind]})
    schema = Schema(
        type=OpenAPIType.OBJECT, required=["batch"],
        properties={"batch": several(_message(None)), "sentAt": text(), "context": _MAPPING},
    )  # fmt: skip
    return Form(schema, {"batch": [{"type": "track", **_WHO, **_SAYS["track"]}]})


def _message(kind: str | None) -> Schema:
    texts = ("messageId", "userId", "anonymousId", "groupId", "previousId", "event", "name", "timestamp", "sentAt")
    properties: dict[str, Reference | Schema] = {name: text() for name in texts}
    properties |= dict.fromkeys(("properties", "traits", "context"), _MAPPING)
    if kind is not None:
        return Schema(type=OpenAPIType.OBJECT, title=kind, properties=properties)
    properties["type"] = text("", *KINDS)
    return Schema(type=OpenAPIType.OBJECT, title="Message", properties=properties, required=["type"])
