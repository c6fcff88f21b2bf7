"""The route that tracks usage: one record, or several."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIType, Schema

from totalizer.collect import Collector
from totalizer.collect.each import Sent, admit_each
from totalizer.collect.members import members
from totalizer.errors import Refusal, Refused
from totalizer.store.merchant_usage import EVENT_TYPE
from totalizer.web.intake import Counting, Request, Route, batch_answer
from totalizer.web.principal import Principal
from totalizer.web.schemas import event_schema

PATH = "/api/usage/track"
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.Raw(b"1")


class UsageTrack(Route):
    """Takes `{"merchant_id": …, "metric_type": …, "amount": …}`, or `{"events": [those, …]}`.

    Args:
        collector: admits them.
        counting: counts them.
    """

    summary = "Track usage"
    many = True
    receipts = True

    def __init__(self, collector: Collector, counting: Counting) -> None:
        self._collector, self.counting = collector, counting
        self.schema = _schema(collector)

    def admit(
        self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None
    ) -> tuple[bytes, bytes, int]:
        sent = _members(body)
        if "events" in sent:
            events = [msgspec.json.encode(_completed(_members(each))) for each in _events(sent)]
        else:
            events = [msgspec.json.encode(_completed(sent))]
        self._collector.refuse_too_many(len(events))
        admission = admit_each(
            self._collector, principal.organization_id, (Sent(EVENT_TYPE, each) for each in events), identity
        )
        if not admission.accepted:
            self._collector.refuse_wholly(admission)
        return admission.payload, batch_answer(admission), 202


def _events(sent: dict[str, msgspec.Raw]) -> list[bytes]:
    if len(sent) > 1:
        other = next(name for name in sent if name != "events")
        raise Refused(Refusal.BAD_REQUEST, f"{other[:80]}: unknown beside `events`; give it to each of them")
    try:
        return [bytes(each) for each in _LIST.decode(sent["events"])]
    except msgspec.DecodeError:
        raise Refused(Refusal.BAD_REQUEST, "events: must be a list of objects") from None


def _completed(event: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {"amount": _ONE} | event


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return members(body)
    except ValueError as error:
        raise Refused(Refusal.BAD_JSON, f"the body is not valid JSON: {error}") from None


def _schema(collector: Collector) -> Schema:
    event: Any = event_schema(collector.tools[EVENT_TYPE].event_type)
    event.required = ["merchant_id", "metric_type"]
    several = Schema(
        type=OpenAPIType.OBJECT, required=["events"], additional_properties=False,
        properties={"events": Schema(type=OpenAPIType.ARRAY, items=event)},
    )  # fmt: skip
    return Schema(one_of=[event, several])
