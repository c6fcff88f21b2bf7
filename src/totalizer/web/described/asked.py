"""What is answered to questions: totals, dashboards, events, the catalog, live windows, exports."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema

from totalizer.catalog import EventType, Field
from totalizer.web.described.forms import (
    ANY,
    Form,
    by_name,
    flag,
    identifier,
    integer,
    moment,
    or_null,
    record,
    several,
    text,
)
from totalizer.web.schemas import TIME_EXAMPLE, UUID_EXAMPLE, field_example, field_schema

TAG, LIVE_TAG, EXPORT_TAG = "Asking", "Live windows", "Exports"
_NUMBERS = by_name(ANY, "Numbers by name.")
_NEXT = or_null(text("Where the next page begins; null on the last."))
_SPANS = several(record({"start_date": moment(), "end_date": moment()}))
_HOW = {
    "as_of": moment("When the snapshot was taken."),
    "exact": flag("False if something is told from rollups that are behind."),
    "source": text("What was read."),
    "query": by_name(ANY, "The query as it was understood."),
}
_COMPLETE = {"complete": flag("True if everything acknowledged here before the request is in it.")}
_ROW = record(
    {"window_start": moment("Of the window, in the query's zone.")}, {"previous": _NUMBERS, "change": _NUMBERS},
    more=ANY, description="The dimensions of group_by and the numbers, by name.",
)  # fmt: skip
_TOLD = {
    **_HOW,
    "dirty_buckets": integer("Quarters of an hour of the range that were behind."),
    "estimates": several(text(), "Numbers that are estimates in some row."),
}
_SOMETIMES = {"stale": _SPANS, "missing": _SPANS}
_TOLD_EXAMPLE: dict[str, Any] = {
    "as_of": TIME_EXAMPLE, "exact": True, "source": "1d", "dirty_buckets": 0, "estimates": [],
    "query": {"event_type": "command_executions", "aggregation_window": "1d", "time_zone": "UTC"},
}  # fmt: skip
_ROW_EXAMPLE = {"window_start": "2025-09-01T00:00:00+00:00", "team_id": UUID_EXAMPLE, "executions": 1200}

#: A query, as parameters and as a body.
RANGE: Final = {"start_date": "2025-09-01", "end_date": "2025-09-30"}
TOTALS_ASKED: Final = {**RANGE, "aggregation_window": "1d", "group_by": "team_id", "measures": "executions"}
QUERY: Final = {
    **RANGE, "aggregation_window": "1d", "group_by": ["team_id"], "filters": {"status": {"not": ["cancelled"]}},
    "metrics": ["executions", "error_rate"], "order": ["-executions"], "compare": "previous",
}  # fmt: skip
TOTALS: Final = Form(
    record(
        {**_COMPLETE, "data": several(_ROW, "A row for each window and group."), "next_cursor": _NEXT, **_TOLD},
        {**_SOMETIMES, "explanation": by_name(ANY, "With explain: how the answer was found.")},
    ),
    {"complete": True, "data": [_ROW_EXAMPLE], "next_cursor": None, **_TOLD_EXAMPLE},
)
_SECTION = record(
    {
        "title": text(), "rollup": text(), "totals": _NUMBERS, "previous": _NUMBERS, "change": _NUMBERS,
        "series": several(_ROW, "By window."),
    },
    {
        "top": record({"dimension": text(), "rows": several(by_name(ANY))}, description="The most frequent names."),
        "by_status": several(by_name(ANY)),
    },
)  # fmt: skip
DASHBOARD: Final = Form(
    record({**_COMPLETE, "data": by_name(_SECTION, "By event type."), **_HOW}),
    {
        "complete": True,
        "data": {
            "command_executions": {
                "title": "Command executions", "rollup": "command_usage", "totals": {"executions": 1200},
                "previous": {"executions": 1100}, "change": {"executions": 100},
                "series": [{"window_start": "2025-09-04T11:00:00+00:00", "executions": 50}],
                "top": {"dimension": "command_name", "rows": [{"command_name": "plan", "executions": 700}]},
                "by_status": [{"status": "success", "executions": 1180}],
            }
        },
        "as_of": TIME_EXAMPLE, "exact": True, "source": "1h",
        "query": {"time_range": "1d", "aggregation_window": "1h", "time_zone": "UTC"},
    },
)  # fmt: skip
CATALOG: Final = Form(
    record(
        {
            "event_types": several(
                record(
                    {"name": text(), "title": text(), "route": text(), "time": text(), "fields": several(by_name(ANY))}
                )
            ),
            "rollups": several(
                record(
                    {
                        "name": text(), "title": text(), "event_type": text(), "subject": text(),
                        "dimensions": several(text()), "measures": several(text()),
                    }
                )
            ),
        }
    ),
    {
        "event_types": [
            {"name": "commits", "title": "Commits", "route": "/api/metrics/commits", "time": "committed_at",
             "fields": [{"name": "repository", "type": "text", "required": True}]}
        ],
        "rollups": [
            {"name": "commits_by_author", "title": "Commits by author", "event_type": "commits",
             "subject": "author_email", "dimensions": ["repository", "author_email"], "measures": ["commits"]}
        ],
    },
)  # fmt: skip
LIVE: Final = Form(
    record(
        {
            "data": several(by_name(ANY), "A row for each group."), "window": text(), "from": moment(),
            "to": moment("Excluded."), "as_of": moment(),
            "exact": flag("False if some groups are known only as part of other."),
            "complete": _COMPLETE["complete"],
            "pending": integer("Events that are counted and not in the database yet."),
            "source": text("", "live"), "failed": integer("Events that were not understood."), "query": by_name(ANY),
        },
        {"other": _NUMBERS},
    ),
    {
        "data": [{"command_name": "plan", "executions": 7}], "window": "5m", "from": "2025-09-05T09:55:05Z",
        "to": "2025-09-05T10:00:05Z", "as_of": "2025-09-05T10:00:01.250000Z", "exact": True, "complete": True,
        "pending": 2,
        "source": "live", "failed": 0, "query": {"window": "5m", "group_by": ["command_name"]},
    },
)  # fmt: skip
LIVE_EVENTS: Final = Form(
    text("Events `snapshot`, `delta`, `gone` and `closing`."),
    'event: snapshot\nid: 4b5c6d7e-0\ndata: {"type":"snapshot","data":[{"executions":7}],"window":"5m"}\n\n',
    media_type="text/event-stream",
)
_EXPORTED = {"data": several(by_name(ANY)), "rows": integer(), "next_cursor": _NEXT}
EXPORT_ASKED: Final = {"event_type": "commits", **RANGE}
#: By format.
EXPORTS: Final = {
    "json": Form(
        record(_EXPORTED, more=ANY, description="With what the answer says of itself."),
        {
            "event_type": "commits", "as_of": TIME_EXAMPLE, "cursor": "WyJlOGI5…", "data": [], "rows": 0,
            "next_cursor": None,
        },
    ),
    "ndjson": Form(text("A line for each row."), '{"executions":7}\n', media_type="application/x-ndjson"),
    "csv": Form(text("A header, and a line for each row."), "executions\r\n7\r\n", media_type="text/csv"),
    "parquet": Form(
        Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="A Parquet file."),
        media_type="application/vnd.apache.parquet",
    ),
}  # fmt: skip


def events_of(event_type: EventType) -> Form:
    """A page of single events of a type."""
    time = {event_type.time_field: moment("When it happened, in the query's zone.")}
    fields = {field.name: _stored(field) for field in event_type.fields}
    sender = {
        "source": or_null(text("What its id is unique within.")),
        "external_id": or_null(text("Its sender's name for it.")),
    }
    row = record({"id": identifier(), **time, **fields, **sender})
    shown = {
        "id": UUID_EXAMPLE, event_type.time_field: "2025-09-05T10:00:00+00:00",
        **{field.name: field_example(field) if field.required else None for field in event_type.fields},
        "source": None, "external_id": f"{event_type.route}-17",
    }  # fmt: skip
    about = {"as_of": TIME_EXAMPLE, "exact": True, "source": "events", "query": {"event_type": event_type.name}}
    return Form(
        record({**_COMPLETE, "data": several(row, "The latest first."), "next_cursor": _NEXT, **_HOW}),
        {"complete": True, "data": [shown], "next_cursor": None, **about},
    )


def _stored(field: Field) -> Schema:
    """A field as it is told. What is stored may be older than its declared bounds."""
    schema = field_schema(field)
    told = Schema(type=schema.type, format=schema.format, description=schema.description)
    return told if field.required else or_null(told)
