"""Events that the database refused, over HTTP: seen, mended, tried again and dropped by their organisation alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from integration.test_receipts import QUARANTINE, Sender, command
from support import new_organization
from totalizer.store.keys import create_key


class Strict(Sender):
    """A sender whose slow commands the database refuses, until it is lifted."""

    def __init__(self, stack: Any) -> None:
        super().__init__(stack)
        self._constraint = f"quick_{stack.organization_id.replace('-', '')}"
        self._alter(
            f"ADD CONSTRAINT {self._constraint} CHECK (organization_id <> '{stack.organization_id}' "
            "OR execution_time_ms < 1000) NOT VALID"
        )

    def lift(self) -> None:
        self._alter(f"DROP CONSTRAINT IF EXISTS {self._constraint}")

    def _alter(self, what: str) -> None:
        with self.stack.running.connect(None) as connection:
            connection.execute(f"ALTER TABLE events.command_executions {what}")

    def refuse(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Send events, and what the receipt says of those in quarantine, with the receipt."""
        _, answer = self.send(*events)
        items = self.fates(answer["receipt"])["items"]
        return [{**item, "receipt": answer["receipt"]} for item in items if item["status"] == "quarantined"]

    def replay(self, item: dict[str, Any], body: Any = None) -> tuple[int, dict[str, Any]]:
        return self.ask("POST", f"{QUARANTINE}/{item['quarantine_id']}/replay", body)

    def figures(self, item: dict[str, Any]) -> dict[str, int]:
        """The figures of the item's receipt that are not 0."""
        told = self.fates(item["receipt"])
        return {name: count for name, count in told.items() if isinstance(count, int) and count and name != "accepted"}


@pytest.fixture
def strict(stack: Any) -> Iterator[Strict]:
    strict = Strict(stack)
    yield strict
    strict.lift()


def slow(**fields: Any) -> dict[str, Any]:
    return command(execution_time_ms=5000, **fields)


def test_what_is_refused_is_listed_and_shown_as_it_was_sent(strict: Strict) -> None:
    sent = slow(
        id="mine", source="s", context={"a": [1, None]}, executed_at="2025-09-05T10:00:00Z", error_message="t\tb"
    )
    items = strict.refuse(command(), sent, slow(id="other"))
    assert [(item["index"], item["id"], item["code"]) for item in items] == [
        (1, "mine", "23514"),
        (2, "other", "23514"),
    ]
    status, page = strict.ask("GET", f"{QUARANTINE}?limit=1")
    assert (status, [row["id"] for row in page["data"]]) == (200, [items[1]["quarantine_id"]])
    _, last = strict.ask("GET", f"{QUARANTINE}?limit=1&cursor={page['next_cursor']}")
    assert ([row["id"] for row in last["data"]], last["next_cursor"]) == ([items[0]["quarantine_id"]], None)
    assert strict.ask("GET", f"{QUARANTINE}?event_type=commits")[1] == {"data": [], "next_cursor": None}
    status, shown = strict.ask("GET", f"{QUARANTINE}/{items[0]['quarantine_id']}")
    assert status == 200
    assert shown["event"] == {**sent, "executed_at": "2025-09-05T10:00:00.000000Z"}
    assert "quick_" in shown["message"]


def test_what_is_mended_is_stored_under_its_id_once(strict: Strict) -> None:
    [named, nameless] = strict.refuse(slow(id="mine"), slow())
    assert strict.replay(named) == (
        200, {"id": named["quarantine_id"], "status": "quarantined", "message": strict.replay(named)[1]["message"]}
    )  # fmt: skip
    status, problem = strict.replay(named, {"status": "odd"})
    assert (status, problem["code"]) == (422, "invalid_event")
    for wrong in ({"id": "x"}, {"speed": 1}, {"execution_time_ms": None}):
        assert strict.replay(named, wrong)[0] == 422
    assert strict.replay(named, b"[1]")[1]["code"] == "bad_json"
    for item in (named, nameless):
        status, answer = strict.replay(item, {"execution_time_ms": 5})
        assert (status, answer["status"]) == (200, "loaded")
        assert strict.replay(item, {"execution_time_ms": 5})[0] == 404
    assert strict.stored() == 2
    assert strict.figures(named) == {"loaded": 2}
    _, answer = strict.send(command(id="mine"))
    assert strict.fates(answer["receipt"])["duplicate"] == 1, "its id is known by now"
    fixed = [one["after"] for one in strict.ask("GET", "/api/audit?action=dead_letter.fix")[1]["data"]]
    assert fixed == [
        {"id": one["quarantine_id"], "status": "loaded", "fields": ["execution_time_ms"]} for one in (nameless, named)
    ]


def test_what_was_stored_meanwhile_is_found(strict: Strict) -> None:
    [one] = strict.refuse(slow(id="mine"))
    strict.lift()
    strict.fates(strict.send(slow(id="mine"))[1]["receipt"])
    assert strict.replay(one)[1]["status"] == "duplicate"
    assert strict.figures(one) == {"duplicate": 1}


def test_what_is_dropped_is_told_once_more_and_counted(strict: Strict, stack: Any) -> None:
    [one] = strict.refuse(slow(id="mine"))
    status, dropped = strict.ask("DELETE", f"{QUARANTINE}/{one['quarantine_id']}")
    assert (status, dropped["status"], dropped["event"]["id"]) == (200, "dropped", "mine")
    assert strict.ask("DELETE", f"{QUARANTINE}/{one['quarantine_id']}")[0] == 404
    assert strict.figures(one) == {"dropped": 1}
    [dropping] = strict.ask("GET", "/api/audit?action=dead_letter.drop")[1]["data"]
    assert (dropping["actor"]["kind"], dropping["before"]) == ("api_key", {"ids": [one["quarantine_id"]]})
    told = strict.ask("GET", "/api/metrics/stats")[1]
    assert (told["accepted"], told["dropped"], told["quarantined"]) == (1, 1, 0)


def test_another_organisation_and_a_key_without_the_right_touch_nothing(strict: Strict, stack: Any) -> None:
    [one] = strict.refuse(slow(id="mine"))
    other = Sender(new_organization(stack.running))
    path = f"{QUARANTINE}/{one['quarantine_id']}"
    asked = [("GET", path), ("POST", f"{path}/replay"), ("DELETE", path)]
    for method, where in asked:
        assert other.ask(method, where)[0] == 404
    assert other.ask("POST", f"{path}/replay", {"execution_time_ms": 5})[0] == 404
    assert other.ask("GET", QUARANTINE)[1]["data"] == []
    with stack.running.connect(None) as connection:
        reader = create_key(connection, stack.organization_id, "reader", ("quarantine",))
    for method, where in asked:
        assert strict.ask(method, where, key=reader)[0] == (200 if method == "GET" else 403)
        assert strict.ask(method, where, key=stack.key)[0] == 403
    assert strict.figures(one) == {"quarantined": 1}
    assert strict.ask("GET", f"{QUARANTINE}/{10**30}")[0] == 404
