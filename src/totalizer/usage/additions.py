"""What a journalled batch adds to the counters: read from what went to the disk, so that the two cannot differ."""

from __future__ import annotations

import re
from typing import NamedTuple

from totalizer.event import DAY, decode_batch
from totalizer.store.merchant_usage import EVENT_TYPE
from totalizer.store.usage_keys import Counter

#: The collector's escapes of COPY's text format.
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}


class Tracked(NamedTuple):
    """An amount that a batch adds to a counter.

    Attributes:
        counter: which.
        amount: how much; 0 if all of it is of events that have ids of their senders'.
    """

    counter: Counter
    amount: int


def tracked_in(payload: bytes, organization_id: str | None) -> list[Tracked]:
    """What a batch adds, each counter once, in the order in which they first come.

    Events with an id of the sender's are left to the database: whether one was counted before, only that knows.

    Args:
        payload: of a journal's record.
        organization_id: as a counter's name has it.
    """
    header, blocks = decode_batch(payload)
    amounts: dict[Counter, int] = {}
    for section, block in zip(header.sections, blocks, strict=True):
        if section.event_type != EVENT_TYPE:
            continue
        merchant, metric, amount = (section.columns.index(name) for name in ("merchant_id", "metric_type", "amount"))
        for line in block.decode().split("\n")[:-1]:
            fields = line.split("\t")
            counter = Counter(organization_id, _text(fields[merchant]), line[DAY], _text(fields[metric]))
            amounts[counter] = amounts.get(counter, 0) + (0 if section.keyed else int(fields[amount]))
    return [Tracked(counter, amount) for counter, amount in amounts.items()]


def _text(field: str) -> str:
    if "\\" not in field:
        return field
    return _ESCAPED.sub(lambda found: _CONTROLS.get(found[1], found[1]), field)
