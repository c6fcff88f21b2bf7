"""The ways in that other people's clients speak: CloudEvents, and the messages of analytics libraries."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import msgspec

from totalizer.collect import Admission, Collector, Sent, Wrong, admit_each
from totalizer.collect.analytics import Messages
from totalizer.collect.bodies import BOM, UNDECODABLE, bad_json
from totalizer.collect.cloudevents import Attributes, mapped, of_headers
from totalizer.collect.members import members
from totalizer.errors import Refusal, Refused
from totalizer.web.described import taken
from totalizer.web.described.forms import Form
from totalizer.web.described.open_bodies import messages
from totalizer.web.intake import JSON, Admitted, Request, Route, batch_answer, wants_atomic
from totalizer.web.principal import Principal

_RAW_EVENTS = msgspec.json.Decoder(list[msgspec.Raw])
CLOUD_EVENT = "application/cloudevents+json"
CLOUD_EVENTS = "application/cloudevents-batch+json"
_VERSION_HEADER = "ce-specversion"
_SUCCESS = b'{"success":true}'


class CloudEventsRoute(Route):
    """CloudEvents 1.0 over HTTP.

    The answer is 204 without a body once all are on disk; 202 with the answers per item if only some could be accepted.

    Args:
        collector: admits them.
        read: gives the events of a body, or says what is no event.
    """

    summary = "Send CloudEvents"
    answers = MappingProxyType({204: Form(None, None, "All of them are on disk."), 202: taken.CLOUD_EVENTS})

    def __init__(
        self, collector: Collector, read: Callable[[Request, bytes], list[bytes] | Attributes], body: Form
    ) -> None:
        self._collector, self._read, self.body = collector, read, body
        self._types = {event_type.name: event_type for event_type in collector.event_types}

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        atomic = wants_atomic(request)
        found = self._read(request, body.removeprefix(BOM))
        if isinstance(found, list):
            self._collector.refuse_too_many(len(found))
            sent = [self._sent(raw) for raw in found]
        else:
            sent = [self._mapped(found)]
        admission = admit_each(self._collector, principal.organization_id, sent, identity)
        _check_taken(self._collector, admission, atomic=atomic)
        if admission.items:
            return admission.payload, batch_answer(admission), 202, admission.accepted
        return admission.payload, b"", 204, admission.accepted

    def _sent(self, raw: bytes) -> Sent | Wrong:
        try:
            return self._mapped(members(raw))
        except ValueError as error:
            return Wrong(str(error))

    def _mapped(self, attributes: Attributes) -> Sent | Wrong:
        try:
            event_type, fields = mapped(attributes, self._types)
            return Sent(event_type.name, msgspec.json.encode(fields))
        except ValueError as error:
            return Wrong(str(error))


def one(_: Request, body: bytes) -> list[bytes]:
    """The structured mode: the body is an event."""
    try:
        msgspec.json.decode(body)
    except UNDECODABLE as error:
        raise bad_json(error) from None
    return [body]


def several(_: Request, body: bytes) -> list[bytes]:
    """The batched mode: the body is an array of events."""
    try:
        return [bytes(raw) for raw in _RAW_EVENTS.decode(body)]
    except msgspec.ValidationError:
        raise Refused(Refusal.BAD_REQUEST, "a batch of CloudEvents must be a JSON array of events") from None
    except UNDECODABLE as error:
        raise bad_json(error) from None


def binary(request: Request, body: bytes) -> Attributes:
    """The binary mode: attributes in headers, the body is the data."""
    if _VERSION_HEADER not in request.headers:
        content_type = request.headers.get("content-type", "")
        raise Refused(
            Refusal.UNSUPPORTED_MEDIA_TYPE, f"content type {content_type[:80]!r} without a header {_VERSION_HEADER} is "
            f"no CloudEvent; send {CLOUD_EVENT}, {CLOUD_EVENTS}, {JSON}, or the attributes in headers",
        )  # fmt: skip
    if request.headers.get("content-type", "").strip().lower().startswith("application/cloudevents"):
        raise Refused(Refusal.UNSUPPORTED_MEDIA_TYPE, f"of the formats of CloudEvents {CLOUD_EVENT} is taken")
    try:
        return of_headers(request.headers.items(), body)
    except ValueError as error:
        raise Refused(Refusal.INVALID_EVENT, str(error)) from None


def any_json(request: Request, body: bytes) -> list[bytes] | Attributes:
    """Plain JSON: the data of an event whose attributes are in headers, an array of events, or one."""
    if _VERSION_HEADER in request.headers:
        return binary(request, body)
    return several(request, body) if body.lstrip()[:1] == b"[" else one(request, body)


class AnalyticsRoute(Route):
    """Messages of analytics libraries.

    Args:
        collector: admits them.
        kind: what the one message is; None for a batch.
    """

    answers = MappingProxyType({200: taken.ANALYTICS})

    def __init__(self, collector: Collector, kind: str | None) -> None:
        self._collector, self._kind = collector, kind
        self.many = kind is None
        self.summary = "Send messages of an analytics library" if kind is None else f"Send one message: {kind}"
        self.body = messages(kind)

    def admit(self, principal: Principal, request: Request, body: bytes, identity: bytes | None = None) -> Admitted:
        atomic = wants_atomic(request)
        try:
            messages = Messages(body.removeprefix(BOM), self._kind, self._collector.now_ns())
        except ValueError as error:
            raise Refused(Refusal.BAD_REQUEST, f"the body is no message of an analytics library: {error}") from None
        if len(messages.raw) > self._collector.batch_events_max:
            detail = f"{len(messages.raw)} messages in one batch; send at most {self._collector.batch_events_max}"
            raise Refused(Refusal.BODY_TOO_LARGE, detail)
        admission = admit_each(self._collector, principal.organization_id, messages.sent(), identity)
        if not admission.items and admission.accepted:
            return admission.payload, _SUCCESS, 200, admission.accepted
        # Its clients take 400 for a request that will never do, and know no other status for that.
        _check_taken(self._collector, admission, Refusal.BAD_REQUEST, atomic=atomic)
        answer = msgspec.json.decode(batch_answer(admission), type=dict[str, msgspec.Raw])
        return admission.payload, msgspec.json.encode({"success": True} | answer), 200, admission.accepted


def _check_taken(collector: Collector, admission: Admission, refusal: Refusal | None = None, *, atomic: bool) -> None:
    """Refuse a request none of whose events is accepted, or not all and it is atomic; a lone event for its own reason.

    Raises:
        Refused: it is so.
    """
    if admission.accepted and not (atomic and admission.items):
        return
    if len(admission.items) == 1 and not admission.accepted:
        [item] = admission.items
        raise Refused(refusal or Refusal(item.code), item.message)
    try:
        collector.refuse_wholly(admission)
    except Refused as refused:
        raise Refused(refusal or refused.refusal, refused.detail, **refused.extra) from None
