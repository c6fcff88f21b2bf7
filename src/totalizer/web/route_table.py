"""Every way in: path → media type → route. The server, the framework behind it and the API's description follow it."""

from __future__ import annotations

from totalizer.catalog import EventType
from totalizer.collect import Collector
from totalizer.collect.analytics import KINDS
from totalizer.web import open_protocols, usage_track
from totalizer.web.described import open_bodies
from totalizer.web.described.forms import Form
from totalizer.web.intake import ANY, JSON, BatchRoute, Counting, Route, SingleRoute
from totalizer.web.open_protocols import CLOUD_EVENT, CLOUD_EVENTS, AnalyticsRoute, CloudEventsRoute
from totalizer.web.schemas import batch_form, event_example, event_schema
from totalizer.web.sessions import Sessions, SessionStart
from totalizer.web.stream import MEDIA_TYPES, StreamRoute

PREFIX = "/api/metrics/"
BATCH = PREFIX + "batch"
STREAM = PREFIX + "stream/"
CLOUDEVENTS = "/api/v1/events"
ANALYTICS = "/v1/"
#: How senders spell it; other spellings take a moment longer.
_JSON_SPELLINGS = (JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8")

#: Routes of one path by media type.
ByMediaType = dict[str | None, Route]


def route_table(collector: Collector, *, line_bytes_max: int) -> dict[str, ByMediaType]:
    """The ingest routes, those of most events first.

    Args:
        collector: admits what comes by them.
        line_bytes_max: longest line of a stream.
    """
    table: dict[str, ByMediaType] = {}
    streams = {}
    for event_type in collector.event_types:
        stream = StreamRoute(collector, event_type, line_bytes_max)
        table[PREFIX + event_type.route] = _json(_single(collector, event_type)) | _lines(stream)
        streams[STREAM + event_type.name] = _lines(stream) | {ANY: stream}
    batch = BatchRoute(collector)
    batch.body = batch_form(collector.event_types)
    table[BATCH] = _json(batch) | _lines(StreamRoute(collector, None, line_bytes_max))
    return table | {CLOUDEVENTS: _cloudevents(collector)} | _analytics(collector) | streams


def _single(collector: Collector, event_type: EventType) -> Route:
    route = SingleRoute(collector, event_type.route)
    route.summary = f"Send one event: {event_type.title}"
    route.body = Form(event_schema(event_type), event_example(event_type))
    return route


def session_routes(sessions: Sessions) -> dict[str, ByMediaType]:
    """The route that starts sessions."""
    return {f"{PREFIX}{sessions.route}/start": _json(SessionStart(sessions))}


def usage_track_routes(collector: Collector, counting: Counting) -> dict[str, ByMediaType]:
    """The route that tracks usage."""
    return {usage_track.PATH: _json(usage_track.UsageTrack(collector, counting))}


def _json(route: Route) -> ByMediaType:
    return dict.fromkeys(_JSON_SPELLINGS, route)


def _lines(route: Route) -> ByMediaType:
    return dict.fromkeys(MEDIA_TYPES, route)


def _cloudevents(collector: Collector) -> ByMediaType:
    return {
        CLOUD_EVENT: CloudEventsRoute(collector, open_protocols.one, open_bodies.CLOUD_EVENT),
        CLOUD_EVENTS: CloudEventsRoute(collector, open_protocols.several, open_bodies.CLOUD_EVENTS),
        JSON: CloudEventsRoute(collector, open_protocols.any_json, open_bodies.EITHER),
        ANY: CloudEventsRoute(collector, open_protocols.binary, open_bodies.DATA),
    }


def _analytics(collector: Collector) -> dict[str, ByMediaType]:
    # Browsers that send on leaving a page say text/plain.
    return {
        f"{ANALYTICS}{kind or 'batch'}": dict.fromkeys(
            (*_JSON_SPELLINGS, "text/plain"), AnalyticsRoute(collector, kind)
        )
        for kind in (None, *KINDS)
    }
