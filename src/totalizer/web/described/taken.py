"""What is answered to what is sent."""

from __future__ import annotations

from typing import Final

from litestar.openapi.spec import OpenAPIType, Schema

from totalizer.web.described.forms import Form, flag, identifier, integer, or_null, record, several, text

TAG: Final = "Sending events"
RECEIPT: Final = "97d5c55029c34466935a077e64da1043-1a-2-6b027eae-5a93adfaf0f8fa8adcdb5ada"
_RECEIPT = text("Tells later what became of the events.")
_ITEM = record(
    {
        "event_type": text(),
        "index": integer("Its place in its type's list."),
        "status": text("", "rejected"),
        "code": text("Why, for programs."),
        "message": text("Why, for people."),
        "id": or_null(text("What its sender called it.")),
    }
)
_COUNTS = {
    "accepted": integer("Events that are on disk."), "rejected": integer("Events that are not accepted."),
    "items": several(_ITEM, "The events that are not accepted."),
}  # fmt: skip
_NOTHING_REJECTED = {"accepted": 1, "rejected": 0, "items": []}
_REJECTED = {
    "event_type": "command_executions", "index": 1, "status": "rejected", "code": "invalid_event",
    "message": "status: must be one of success, error, timeout, cancelled", "id": "order-17",
}  # fmt: skip

ONE: Final = Form(
    record({**_COUNTS, "id": identifier("Of the stored event."), "receipt": _RECEIPT}),
    {**_NOTHING_REJECTED, "id": "01991e5a-5f00-7000-8000-4a5b6c7d8e9f", "receipt": RECEIPT},
)
MANY: Final = Form(
    record({**_COUNTS, "receipt": _RECEIPT}),
    {"accepted": 1, "rejected": 1, "items": [_REJECTED], "receipt": RECEIPT},
)
STREAM: Final = Form(
    record(
        {
            "accepted": _COUNTS["accepted"], "rejected": _COUNTS["rejected"], "lines": integer("Lines that were read."),
            "items": several(
                record({"line": integer("From 1."), "event_type": text(), "code": text(), "message": text()}),
                "The first 100 events that are not accepted.",
            ),
            "receipts": several(
                record({"first_line": integer(), "last_line": integer(), "receipt": _RECEIPT}),
                "One for each block of lines.",
            ),
        }
    ),
    {
        "accepted": 1000, "rejected": 0, "lines": 1000, "items": [],
        "receipts": [{"first_line": 1, "last_line": 1000, "receipt": RECEIPT}],
    },
)  # fmt: skip
CLOUD_EVENTS: Final = Form(
    record(_COUNTS), {"accepted": 1, "rejected": 1, "items": [_REJECTED]}, "Some events are not accepted."
)
ANALYTICS: Final = Form(
    Schema(
        type=OpenAPIType.OBJECT, properties={"success": flag("true"), **_COUNTS}, required=["success"],
        description="The counts are there if some messages are not accepted.",
    ),
    {"success": True},
)  # fmt: skip
SESSION: Final = Form(
    record({**_COUNTS, "session_id": identifier("To update and end it by."), "receipt": _RECEIPT}),
    {**_NOTHING_REJECTED, "session_id": "5b8c6a1e-3d0f-4b7a-9f5e-1c2d3e4f5a6b", "receipt": RECEIPT},
)
TRACKED: Final = Form(
    record(
        {
            **_COUNTS, "receipt": _RECEIPT,
            "counters": several(
                record(
                    {
                        "merchant_id": text(), "date": text("UTC day."), "metric_type": text(),
                        "value": or_null(integer("After this request; null if that cannot be told.")),
                    }
                ),
                "The counters that were added to.",
            ),
        }
    ),
    {
        **_NOTHING_REJECTED, "receipt": RECEIPT,
        "counters": [
            {"merchant_id": "merchant_1", "date": "2025-11-01", "metric_type": "queries", "value": 1523}
        ],
    },
)  # fmt: skip

#: A time that examples name.
TIME: Final = "2025-09-05T10:00:00Z"
