"""The route that tracks usage: one record, or several."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIType, Schema

from totalizer.collect import Collector
from totalizer.collect.each import Sent, Wrong, admit_each
from totalizer.collect.members import members
from totalizer.errors import Refusal, Refused
from totalizer.store.merchant_usage import EVENT_TYPE
from totalizer.web.described import taken
from totalizer.web.described.forms import Form
from totalizer.web.intake import Admitted, Counting, Request, Route, batch_answer, wants_atomic
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
    answers = MappingProxyType({202: taken.TRACKED})

    def __init__(self, collector: Collector, counting: Counting) -> None:
        self._collector, self.counting = collector, counting
        self.body = Form(_schema(collector), {"merchant_id": "merchant_1", "metric_type": "queries", "amount": 1})

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        atomic, sent = wants_atomic(request), _sent(body)
        self._collector.refuse_too_many(len(sent))
        admission = admit_each(self._collector, principal.organization_id, sent, identity)
        if not admission.accepted or (atomic and admission.items):
            self._collector.refuse_wholly(admission)
        return admission.payload, batch_answer(admission), 202, admission.accepted


def _sent(body: bytes) -> list[Sent | Wrong]:
    try:
        request = members(body)
    except ValueError as error:
        raise Refused(Refusal.BAD_JSON, f"the body is not valid JSON: {error}") from None
    if "events" not in request:
        return [_completed(request)]
    return [_record(each) for each in _events(request)]


def _record(raw: bytes) -> Sent | Wrong:
    try:
        return _completed(members(raw))
    except ValueError as error:
        return Wrong(str(error), event_type=EVENT_TYPE)


def _completed(record: dict[str, msgspec.Raw]) -> Sent:
    return Sent(EVENT_TYPE, msgspec.json.encode({"amount": _ONE} | record))


def _events(sent: dict[str, msgspec.Raw]) -> list[bytes]:
    if len(sent) > 1:
        other = next(name for name in sent if name != "events")
        raise Refused(Refusal.BAD_REQUEST, f"{other[:80]}: unknown beside `events`; give it to each of them")
    try:
        return [bytes(each) for each in _LIST.decode(sent["events"])]
    except msgspec.DecodeError:
        raise Refused(Refusal.BAD_REQUEST, "events: must be a list of objects") from None


def _schema(collector: Collector) -> Schema:
    event: Any = event_schema(collector.tools[EVENT_TYPE].event_type)
    event.required = ["merchant_id", "metric_type"]
    several = Schema(
        type=OpenAPIType.OBJECT, required=["events"], additional_properties=False,
        properties={"events": Schema(type=OpenAPIType.ARRAY, items=event)},
    )  # fmt: skip
    return Schema(one_of=[event, several])
