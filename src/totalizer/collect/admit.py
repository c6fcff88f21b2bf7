"""Admitting a request: the order of work from body to journal payload, and the answer to every event."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from totalizer.catalog import Catalog, EventType
from totalizer.clock import Clock, utc_text, utc_text_and_later
from totalizer.collect.admission import Admission, AdmittedEvent, Item
from totalizer.collect.bodies import BATCH_FORM, BOM, UNDECODABLE, bad_json, kept, raw_events_of, timestamp_of
from totalizer.collect.explain import explain
from totalizer.collect.placing import fresh_ids, places, sent_id
from totalizer.collect.render import Stamps
from totalizer.collect.times import FUTURE_TOLERANCE, canonical_time
from totalizer.collect.type_tools import TypeTools, tools_of
from totalizer.collect.validator import batch_struct, event_struct
from totalizer.errors import Refusal, Refused
from totalizer.event import ID, BatchHeader, Section, encode_batch, new_event_ids, request_event_uuid

_RAW_BATCH = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TOLERANCE_S = int(FUTURE_TOLERANCE.total_seconds())
_TOLERANCE_NS = _TOLERANCE_S * 1_000_000_000
#: What is counted of an event that could have been accepted, had the whole batch been.
_IN_BAD_COMPANY = Item("", 0, "rejected", "atomic", "")


class Collector:
    """Turns request bodies into journal payloads. Holds no state between requests; used from one thread.

    Args:
        catalog: the event types to take.
        clock: for the time of receipt.
        batch_events_max: events in one batch request.

    Attributes:
        on_rejected: told of events that are not accepted: (organisation, answers). Must not block.
    """

    def __init__(self, catalog: Catalog, clock: Clock, *, batch_events_max: int) -> None:
        structs = {name: event_struct(event_type) for name, event_type in catalog.event_types.items()}
        self._types = {name: tools_of(catalog.event_types[name], struct) for name, struct in structs.items()}
        self._by_route = {tools.event_type.route: tools for tools in self._types.values()}
        self._batch: msgspec.json.Decoder[Any] = msgspec.json.Decoder(batch_struct(catalog, structs))
        self._clock, self.batch_events_max = clock, batch_events_max
        self.on_rejected: Callable[[str, list[Item]], None] = lambda _organization_id, _items: None

    @property
    def tools(self) -> dict[str, TypeTools]:
        """What it has made of each event type, by name."""
        return self._types

    @property
    def event_types(self) -> list[EventType]:
        """The event types it takes."""
        return [tools.event_type for tools in self._types.values()]

    def type_of_route(self, route: str) -> str:
        """The name of the event type whose single events come by a route."""
        return self._by_route[route].event_type.name

    def admit_one(self, organization_id: str, route: str, body: bytes, request: bytes | None = None) -> AdmittedEvent:
        """Admit a body that is one event.

        Args:
            organization_id: whose it is.
            route: `EventType.route` of one of `event_types`.
            body: JSON.
            request: as in `admit_batch`.

        Raises:
            Refused: it is not accepted.
        """
        received_ns = self._clock.now_ns()
        tools = self._by_route[route]
        try:
            event = tools.decoder.decode(body)
        except msgspec.ValidationError:
            event = kept(tools, body)
        except UNDECODABLE as error:
            if body.startswith(BOM) and not body.startswith(BOM * 2):
                return self.admit_one(organization_id, route, body.removeprefix(BOM), request)
            raise bad_json(error) from None
        received_at, latest = utc_text_and_later(received_ns, _TOLERANCE_S)
        fresh = partial(_fresh_id, received_ns)
        if request is not None:
            fresh = partial(request_event_uuid, request, tools.event_type.name)
        stamps = Stamps(organization_id, received_at, received_at, latest, fresh)
        render = tools.escaping if b"\\" in body else tools.plain
        keyed, unkeyed = render([event], stamps, tools.refuse)
        (line,) = keyed or unkeyed
        encoder = tools.unkeyed if unkeyed and request is None else tools.keyed
        return AdmittedEvent(encoder.encode(organization_id, received_at, line), line[ID])

    def admit_batch(
        self, organization_id: str, body: bytes, request: bytes | None = None, *, atomic: bool = False
    ) -> Admission:
        """Admit a body that is a batch: an object with a list of events under each type's name.

        Args:
            organization_id: whose events they are.
            body: JSON.
            request: at most 64 bytes that stand for the request, the same at each attempt to send it: its events
                without an id are found when it is sent again. None if it cannot be told from another.
            atomic: True to accept all of its events or none.

        Raises:
            Refused: the batch as a whole cannot be taken, or none of its events can; the answers are in `extra`.
        """
        admission = self.begin(organization_id, body, request)
        for step in self.steps():
            step(admission)
        if admission.items:
            admission.items.sort()
        if not admission.accepted or (atomic and admission.items):
            self.refuse_wholly(admission)
        return admission

    def now_ns(self) -> int:
        """The time of receipt of a request that is read now, nanoseconds since 1970."""
        return self._clock.now_ns()

    def begin(self, organization_id: str, body: bytes, request: bytes | None = None) -> Admission:
        """A request of several events, received now; the arguments are those of `admit_batch`."""
        return Admission(organization_id, body, self._clock.now_ns(), request)

    def steps(self) -> tuple[Callable[[Admission], None], ...]:
        """The order of work on a batch."""
        return (self._decode, self._check_size, self.finish)

    def _decode(self, admission: Admission) -> None:
        """Decode all at once; if anything is wrong, once more event by event, to keep the good ones."""
        try:
            batch = self._batch.decode(admission.body)
        except msgspec.ValidationError:
            self._decode_each(admission)
            return
        except UNDECODABLE as error:
            if admission.body.startswith(BOM) and not admission.body.startswith(BOM * 2):
                admission.body = admission.body.removeprefix(BOM)
                self._decode(admission)
                return
            raise bad_json(error) from None
        self._set_default_time(admission, batch.timestamp)
        for name, tools in self._types.items():
            events = getattr(batch, name)
            if events:
                admission.events.append((tools, events, None))

    def _decode_each(self, admission: Admission) -> None:
        try:
            batch = _RAW_BATCH.decode(admission.body)
            timestamp = timestamp_of(batch)
            raw_events = {name: raw_events_of(name, raw) for name, raw in batch.items()}
            self._set_default_time(admission, timestamp)
            self.refuse_too_many(sum(map(len, raw_events.values())))
            for name, events in raw_events.items():
                self._decode_list(admission, name, events)
        except msgspec.ValidationError:
            raise Refused(Refusal.BAD_REQUEST, f"a batch must be a JSON object, {BATCH_FORM}") from None
        except UNDECODABLE as error:
            # What is skipped over at first is looked at closely only here.
            raise bad_json(error) from None

    def _decode_list(self, admission: Admission, name: str, raw_events: list[msgspec.Raw]) -> None:
        tools = self._types.get(name)
        good: list[Any] = []
        indexes: list[int] = []
        for index, raw in enumerate(raw_events):
            if tools is None:
                known = ", ".join(self._types)
                admission.reject(
                    name, index, Refusal.UNKNOWN_EVENT_TYPE, f"{name:.80}: unknown event type; use one of {known}",
                    sent_id(raw),
                )  # fmt: skip
                continue
            try:
                good.append(tools.decode(raw))
                indexes.append(index)
            except msgspec.ValidationError as error:
                admission.reject(
                    name, index, Refusal.INVALID_EVENT, explain(error, bytes(raw), tools.event_type), sent_id(raw)
                )
        if tools is not None and good:
            admission.events.append((tools, good, indexes))

    def _set_default_time(self, admission: Admission, timestamp: str | int | None) -> None:
        if timestamp is None:
            return
        try:
            admission.default_time = canonical_time(timestamp, utc_text(admission.received_ns + _TOLERANCE_NS))
        except ValueError as error:
            raise Refused(Refusal.INVALID_TIME, f"timestamp: {error}") from None

    def _check_size(self, admission: Admission) -> None:
        self.refuse_too_many(sum(len(events) for _, events, _ in admission.events))

    def refuse_too_many(self, count: int) -> None:
        """Refuse a request of more events than one may have.

        Raises:
            Refused: it has.
        """
        if count > self.batch_events_max:
            raise Refused(Refusal.BATCH_TOO_LARGE, f"{count} events in one batch; send at most {self.batch_events_max}")

    def finish(self, admission: Admission) -> None:
        """Stamp and render the decoded events, and put the journal payload together."""
        escaping = b"\\" in admission.body
        latest = utc_text(admission.received_ns + _TOLERANCE_NS)
        for tools, events, indexes in admission.events:
            fresh = fresh_ids(admission, tools.event_type.name, indexes)
            stamps = Stamps(admission.organization_id, admission.received_at, admission.default_time, latest, fresh)
            render = tools.escaping if escaping else tools.plain
            keyed, unkeyed = render(events, stamps, partial(_reject, admission, tools, events, indexes))
            whole = indexes is None and len(events) in (len(keyed), len(unkeyed))
            for lines, with_id in ((keyed, True), (unkeyed, False)):
                at = None if whole else places(admission, tools.event_type.name, events, indexes, with_id=with_id)
                self._add_section(admission, tools, lines, at, keyed=with_id or admission.request is not None)
        if admission.accepted:
            header = BatchHeader(admission.organization_id, admission.received_at, tuple(admission.sections))
            admission.payload = encode_batch(header, b"".join(admission.blocks))
        if admission.items:
            self.on_rejected(admission.organization_id, admission.items)

    def _add_section(
        self, admission: Admission, tools: TypeTools, lines: list[str], at: tuple[int, ...] | None, *, keyed: bool
    ) -> None:
        if not lines:
            return
        block = "".join(lines).encode()
        admission.sections.append(Section(tools.event_type.name, tools.columns, keyed, len(lines), len(block), at))
        admission.blocks.append(block)
        admission.accepted += len(lines)

    def refuse_wholly(self, admission: Admission) -> None:
        """Refuse a request none of whose events is accepted, with the answer to each.

        Raises:
            Refused: always.
        """
        if not admission.items:
            raise Refused(Refusal.BATCH_EMPTY, "the batch holds no event")
        items, count = msgspec.to_builtins(admission.items), len(admission.items) + admission.accepted
        which = f"none of the {count} events can be accepted"
        if admission.accepted:
            self.on_rejected(admission.organization_id, [_IN_BAD_COMPANY] * admission.accepted)
            which = f"{len(items)} of the {count} events cannot be accepted, so none is"
        raise Refused(
            Refusal.INVALID_EVENT, f"{which}; the first: {admission.items[0].message}",
            accepted=0, rejected=count, items=items,
        )  # fmt: skip


def _fresh_id(received_ns: int, _index: int) -> str:
    """The id of a single event that has none."""
    return next(new_event_ids(received_ns))


def _reject(
    admission: Admission, tools: TypeTools, events: list[Any], indexes: list[int] | None,
    index: int, field: str, reason: str,
) -> None:  # fmt: skip
    """Note an event of a batch that cannot be rendered, by its place in the request."""
    place = index if indexes is None else indexes[index]
    admission.reject(tools.event_type.name, place, tools.refusal(field), f"{field}: {reason}", events[index].id)
