"""Admitting events one by one, whatever form they came in: each already knows its type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from totalizer.collect.admission import Admission
from totalizer.collect.bodies import UNDECODABLE, not_json
from totalizer.collect.explain import explain
from totalizer.collect.type_tools import TypeTools
from totalizer.errors import Refusal

if TYPE_CHECKING:
    from totalizer.collect.admit import Collector


class Sent(NamedTuple):
    """One event as it is sent to its type's own route.

    Attributes:
        event_type: its name; need not be declared.
        raw: JSON.
    """

    event_type: str
    raw: bytes


class Wrong(NamedTuple):
    """What was sent instead of an event, and why it is none."""

    reason: str
    refusal: Refusal = Refusal.INVALID_EVENT
    event_type: str = ""


def admit_each(
    collector: Collector, organization_id: str, sent: Iterable[Sent | Wrong | None], request: bytes | None = None
) -> Admission:
    """Admit events in the order they were sent; `Item.index` counts them from 0, whatever their types.

    Args:
        collector: knows the types.
        organization_id: whose events they are.
        sent: the events; None in a place that holds none, and counts all the same.
        request: as in `Collector.admit_batch`.

    Returns:
        The admission, which may have accepted nothing.
    """
    admission = collector.begin(organization_id, b"", request)
    by_type: dict[str, tuple[TypeTools, list[Any], list[int] | None]] = {}
    for index, one in enumerate(sent):
        if one is None:
            continue
        event = _decoded(collector, admission, index, one)
        if event is None:
            continue
        tools, decoded = event
        _, events, indexes = by_type.setdefault(tools.event_type.name, (tools, [], []))
        events.append(decoded)
        assert indexes is not None
        indexes.append(index)
    admission.events.extend(by_type.values())
    collector.finish(admission)
    admission.items.sort(key=lambda item: item.index)
    return admission


def admit_lines(collector: Collector, organization_id: str, event_type: str, lines: Sequence[bytes]) -> Admission:
    """Admit events of one type, one a line, as `admit_each` would; empty lines hold none and count all the same.

    All are decoded in one go, which is much the faster; only if anything is wrong, or a line empty, one by one.

    Args:
        collector: knows the type.
        organization_id: whose events they are.
        event_type: its name.
        lines: JSON, without newlines.
    """
    tools = collector.tools[event_type]
    try:
        events = list(map(tools.decoder.decode, lines))
    except UNDECODABLE:
        return admit_each(
            collector, organization_id, (Sent(event_type, line) if line.strip() else None for line in lines)
        )
    # What is looked for in the body is a backslash, which makes texts need an escape.
    admission = collector.begin(organization_id, b"\\" if any(b"\\" in line for line in lines) else b"")
    admission.events.append((tools, events, None))
    collector.finish(admission)
    return admission


def _decoded(collector: Collector, admission: Admission, index: int, one: Sent | Wrong) -> tuple[TypeTools, Any] | None:
    if isinstance(one, Wrong):
        admission.reject(one.event_type[:80], index, one.refusal, one.reason)
        return None
    tools = collector.tools.get(one.event_type)
    if tools is None:
        reason = f"{one.event_type:.80}: unknown event type; use one of {', '.join(collector.tools)}"
        admission.reject(one.event_type[:80], index, Refusal.UNKNOWN_EVENT_TYPE, reason)
        return None
    if b"\\" in one.raw:
        admission.body = one.raw  # one text that may need an escape makes all be looked at
    try:
        return tools, tools.decode(one.raw)
    except msgspec.ValidationError as error:
        reason, refusal = explain(error, one.raw, tools.event_type), Refusal.INVALID_EVENT
    except UNDECODABLE as error:
        reason, refusal = f"it {not_json(error)}", Refusal.BAD_JSON
    admission.reject(one.event_type, index, refusal, reason)
    return None
