"""The body of `POST /api/metrics/query`, for the API's description."""

from __future__ import annotations

from litestar.openapi.spec import OpenAPIType, Schema

from totalizer.query.metrics import METRICS_MAX
from totalizer.query.parse import GROUPS_MAX, ROWS_DEFAULT, ROWS_MAX
from totalizer.query.question import Fill
from totalizer.query.windows import TOTAL, WEEKDAYS
from totalizer.window import Grain

_WINDOWS = (*(grain.value for grain in Grain), TOTAL)


def query_schema() -> Schema:
    """What the body may hold."""
    names = Schema(type=OpenAPIType.ARRAY, items=_text("A name."))
    period = Schema(
        type=OpenAPIType.OBJECT, required=["start_date", "end_date"], additional_properties=False,
        properties={"start_date": _text("As of the query."), "end_date": _text("As of the query.")},
    )  # fmt: skip
    return Schema(
        type=OpenAPIType.OBJECT,
        description="Any other member is a condition on the dimension of its name.",
        properties={
            "event_type": _text("What to count; command_executions by default."),
            "start_date": _text("RFC 3339 time or date; a day before the end."),
            "end_date": _text("RFC 3339 time, excluded, or date, included; now."),
            "time_zone": _text("IANA zone of days; the organisation's own."),
            "aggregation_window": _text("Length of a window; 1h.", *_WINDOWS),
            "week_start": _text("With 1w: the day weeks begin with.", *WEEKDAYS),
            "fiscal_start": _text("With 1mo, 1q, 1y: month and day, such as 04-06."),
            "anchor": _text("With 1mo, 1q, 1y: a day that a cycle begins with."),
            "rolling": _text("Windows of so many days, each ending with a day: 7d."),
            "group_by": Schema(type=OpenAPIType.ARRAY, items=_text("A dimension."), max_items=GROUPS_MAX),
            "measures": names,
            "metrics": Schema(
                type=OpenAPIType.ARRAY, items=Schema(one_of=[_text("event_type.measure"), _metric()]),
                max_items=METRICS_MAX,
            ),
            "metric_types": names,
            "filters": Schema(type=OpenAPIType.OBJECT, description="Dimension → a value, several, or conditions."),
            "order": Schema(type=OpenAPIType.ARRAY, items=_text("window or a metric; - before it: largest first.")),
            "fill": _text("Windows without events; none.", *(fill.value for fill in Fill)),
            "compare": Schema(one_of=[_text("The period before.", "previous"), period]),
            "limit": Schema(
                type=OpenAPIType.INTEGER, minimum=1, maximum=ROWS_MAX, description=f"Rows at most; {ROWS_DEFAULT}."
            ),
            "cursor": _text("next_cursor of the page before."),
            "exact": Schema(type=OpenAPIType.BOOLEAN, description="Refuse rather than tell stale numbers."),
            "explain": Schema(type=OpenAPIType.BOOLEAN, description="Say how the answer was found."),
        },
    )  # fmt: skip


def _metric() -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT, required=["measure"], additional_properties=False,
        properties={
            "measure": _text("Of a rollup of the event type."),
            "name": _text("In the answer."),
            "event_type": _text("If another than the query's."),
            "filters": Schema(type=OpenAPIType.OBJECT, description="Further conditions."),
            "over": Schema(type=OpenAPIType.OBJECT, description="A metric to divide by."),
        },
    )  # fmt: skip


def _text(description: str, *values: str) -> Schema:
    return Schema(type=OpenAPIType.STRING, description=description, enum=list(values) or None)
