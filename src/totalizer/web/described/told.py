"""What is answered about what was sent: receipts, sums, quarantine, usage; and about keys."""

from __future__ import annotations

from typing import Final

from totalizer.query.fates import FATES
from totalizer.store.keys import SCOPES
from totalizer.store.merchant_usage import WINDOWS
from totalizer.web.described.forms import (
    ANY,
    Form,
    by_name,
    identifier,
    integer,
    moment,
    one_of_these,
    or_null,
    record,
    several,
    text,
)
from totalizer.web.described.taken import RECEIPT
from totalizer.web.schemas import TIME_EXAMPLE, UUID_EXAMPLE

TAG, USAGE_TAG, KEYS_TAG = "What became of events", "Usage", "Keys"
_FIGURES = {name: integer() for name in ("accepted", "loaded", *FATES)}
_FIGURES_EXAMPLE = {"accepted": 3, "loaded": 2, "duplicate": 1, "conflict": 0, "quarantined": 0, "dropped": 0}

OUTCOME: Final = Form(
    record(
        {
            "receipt": text(), "status": text("", "pending", "done"), **_FIGURES, "lost": integer(),
            "items": several(
                record(
                    {
                        "event_type": or_null(text()), "index": or_null(integer("Its place in the request.")),
                        "id": or_null(text("What its sender called it.")), "status": text("Its fate."),
                        "code": text(), "message": text(), "quarantine_id": or_null(integer()),
                    }
                ),
                "Events that are not stored.",
            ),
        }
    ),
    {
        "receipt": RECEIPT, "status": "done", **_FIGURES_EXAMPLE, "lost": 0,
        "items": [
            {"event_type": "command_executions", "index": 2, "id": "order-17", "status": "duplicate",
             "code": "duplicate", "message": "an event with this id was stored before", "quarantine_id": None}
        ],
    },
)  # fmt: skip
_HOUR = {"sent": integer(), "rejected": integer(), **_FIGURES}
_HOUR_EXAMPLE = {"sent": 4, "rejected": 1, **_FIGURES_EXAMPLE}
STATS: Final = Form(
    record(
        {
            "as_of": moment(), "since": moment(), **_HOUR, "rejected_by_code": by_name(integer()),
            "hours": several(record({"hour": moment("Of receipt, UTC."), **_HOUR})),
        }
    ),
    {
        "as_of": TIME_EXAMPLE, "since": "2025-09-04T11:00:00Z", **_HOUR_EXAMPLE,
        "rejected_by_code": {"invalid_event": 1}, "hours": [{"hour": "2025-09-05T09:00:00Z", **_HOUR_EXAMPLE}],
    },
)  # fmt: skip
_LETTER = {
    "id": integer(), "event_type": text(), "code": text("SQLSTATE."), "message": text(), "quarantined_at": moment(),
    "retries": integer(), "retried_at": or_null(moment()), "journal": or_null(identifier()),
}  # fmt: skip
_LETTER_EXAMPLE = {
    "id": 4, "event_type": "commits", "code": "TZ001", "message": "the database has no such event type",
    "quarantined_at": TIME_EXAMPLE, "retries": 0, "retried_at": None, "journal": UUID_EXAMPLE,
}  # fmt: skip
_EVENT = by_name(ANY, "As it would be sent; empty if that cannot be told.")
QUARANTINE: Final = Form(
    record({"data": several(record(_LETTER), "Newest first."), "next_cursor": or_null(text("Null on the last page."))}),
    {"data": [_LETTER_EXAMPLE], "next_cursor": None},
)
LETTER: Final = Form(record({**_LETTER, "event": _EVENT}), {**_LETTER_EXAMPLE, "event": {"repository": "totalizer"}})
CORRECTIONS: Final = Form(by_name(ANY, "Fields to replace; null takes one away."), {"repository": "totalizer"})
REPLAYED: Final = Form(
    record(
        {
            "id": integer(), "status": text("", "loaded", "duplicate", "conflict", "quarantined"),
            "message": or_null(text("Why it was refused again.")),
        }
    ),
    {"id": 4, "status": "loaded", "message": None},
)  # fmt: skip
DROPPED: Final = Form(
    record({"id": integer(), "status": text("", "dropped"), "event": _EVENT}),
    {"id": 4, "status": "dropped", "event": {"repository": "totalizer"}},
)

_USED = record(
    {
        "merchant_id": text(), "window": text("", *WINDOWS),
        "source": text("What the numbers are from.", "counters", "events"),
        "data": several(
            record({"start": moment(), "date": text("UTC."), "metric_type": text(), "value": integer()})
        ),
    }
)  # fmt: skip
_USED_EXAMPLE = {
    "merchant_id": "merchant_1", "window": "day", "source": "events",
    "data": [{"start": "2025-11-01T00:00:00Z", "date": "2025-11-01", "metric_type": "queries", "value": 1523}],
}  # fmt: skip
USED: Final = Form(_USED, _USED_EXAMPLE)
USED_BY_ALL: Final = Form(
    one_of_these(
        record(
            {
                "date": text("UTC."),
                "data": several(
                    record(
                        {"merchant_id": text(), "metric_type": text(), "value": integer(), "updated_at": moment()}
                    )
                ),
                "next_cursor": or_null(text("Null on the last page.")),
            }
        ),
        _USED,
    ),
    {
        "date": "2025-11-01", "next_cursor": None,
        "data": [
            {"merchant_id": "merchant_1", "metric_type": "queries", "value": 1523, "updated_at": TIME_EXAMPLE}
        ],
    },
)  # fmt: skip
USED_ASKED: Final = {"start_date": "2025-11-01"}

_NAMED = {"id": identifier(), "name": text(), "scopes": several(text("", *SCOPES)), "expires_at": or_null(moment())}
_NAMED_EXAMPLE = {"id": UUID_EXAMPLE, "name": "shop", "scopes": ["ingest"], "expires_at": None}
_SECRET = {"key": text("Shown this once.")}
KEYS: Final = Form(
    record(
        {
            "keys": several(
                record(
                    {
                        **_NAMED, "created_at": moment(), "last_used_at": or_null(moment()),
                        "revoked_at": or_null(moment()), "replaced_by": or_null(identifier()),
                    }
                ),
                "Oldest first.",
            )
        }
    ),
    {
        "keys": [
            {**_NAMED_EXAMPLE, "created_at": TIME_EXAMPLE, "last_used_at": None, "revoked_at": None,
            "replaced_by": None}
        ]
    },
)  # fmt: skip
NEW_KEY: Final = Form(
    record(
        {"name": text("What it is for.")},
        {
            "scopes": several(text("", *SCOPES), "ingest and query, if left out."),
            "expires_at": moment("Never, if left out."),
        },
    ),
    {"name": "shop", "scopes": ["ingest"]},
)
MADE_KEY: Final = Form(record({**_NAMED, **_SECRET}), {**_NAMED_EXAMPLE, "key": "tz_…"})
ROTATION: Final = Form(record({}, {"overlap_s": integer("Seconds that the old one goes on.")}), {"overlap_s": 3600})
ROTATED: Final = Form(
    record({**_NAMED, **_SECRET, "old_id": identifier(), "old_expires_at": moment()}),
    {**_NAMED_EXAMPLE, "key": "tz_…", "old_id": UUID_EXAMPLE, "old_expires_at": TIME_EXAMPLE},
)
KEY_ASKED: Final = {"key_id": UUID_EXAMPLE}
