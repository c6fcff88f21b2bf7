"""Every way in: path → media type → route. The server, the framework behind it and the API's description follow it."""

from __future__ import annotations

from totalizer.collect import Collector
from totalizer.web.intake import JSON, BatchRoute, Route, SingleRoute
from totalizer.web.schemas import batch_schema, event_schema

PREFIX = "/api/metrics/"
BATCH = PREFIX + "batch"
#: How senders spell it; other spellings take a moment longer.
_JSON_SPELLINGS = (JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8")

#: Routes of one path by media type.
ByMediaType = dict[str | None, Route]


def route_table(collector: Collector) -> dict[str, ByMediaType]:
    """The ingest routes, those of most events first."""
    table: dict[str, ByMediaType] = {}
    event_types = collector.event_types
    for event_type in event_types:
        single = SingleRoute(collector, event_type.route)
        single.summary, single.schema = f"Send one event: {event_type.title}", event_schema(event_type)
        table[PREFIX + event_type.route] = _json(single)
    batch = BatchRoute(collector)
    batch.schema = batch_schema(event_types)
    table[BATCH] = _json(batch)
    return table


def _json(route: Route) -> ByMediaType:
    return dict.fromkeys(_JSON_SPELLINGS, route)
