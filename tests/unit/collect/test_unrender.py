"""An event rendered, read back and sent again is the same event."""

from __future__ import annotations

import msgspec
import pytest

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.collect.unrender import mended, sent_form
from totalizer.errors import Refused
from totalizer.event import decode_batch
from totalizer.load.copy_text import values_of

ORGANIZATION = "00000000-0000-4000-8000-000000000001"
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
EVENTS = {
    "command_executions": {
        "id": "a\tb", "source": "s\\x", "user_id": USER, "command_name": "plan", "execution_time_ms": 5,
        "status": "success", "executed_at": "2025-09-05T10:00:00.500000Z", "context": {"a\n": [1, 2.5, None, "\\N"]},
    },
    "commits": {
        "id": USER, "commit_hash": "abcd", "repository": "r", "author": "ä", "is_merge": False, "files_changed": 1,
        "lines_added": 2, "lines_removed": 3, "committed_at": "2025-09-05T10:00:00.000000Z",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
def test_there_and_back_again(catalog: Catalog, name: str) -> None:
    event, event_type = EVENTS[name], catalog.event_types[name]
    collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=10)
    payload = collector.admit_one(ORGANIZATION, event_type.route, msgspec.json.encode(event)).payload
    [block] = decode_batch(payload)[1]
    values = values_of(event_type.columns, block)
    assert values is not None
    assert sent_form(event_type, values) == event


def test_values_of_another_type_stay_texts(catalog: Catalog) -> None:
    form = sent_form(catalog.event_types["commits"], {"files_changed": "many", "is_merge": "perhaps", "gone": "x"})
    assert form == {"files_changed": "many", "is_merge": "perhaps"}


def test_corrections_replace_and_null_takes_away(catalog: Catalog) -> None:
    event_type = catalog.event_types["command_executions"]
    event = {"id": "a", "status": "odd", "error_message": "x"}
    assert mended(event_type, event, {"status": "success", "error_message": None}) == {"id": "a", "status": "success"}
    for wrong in ({"id": "b"}, {"source": "s"}, {"speed": 1}):
        with pytest.raises(Refused):
            mended(event_type, event, wrong)
