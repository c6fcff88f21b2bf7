"""Receipts, books and repeated requests: what a sender can find out about what it sent, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
import urllib3

from support import new_organization, wait_until
from totalizer.errors import Refusal
from totalizer.store.keys import create_key

HTTP = urllib3.PoolManager(retries=False, timeout=30)
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
BATCH, RECEIPTS, STATS, QUARANTINE = (
    f"/api/metrics/{name}" for name in ("batch", "receipts/", "stats", "quarantine")
)  # fmt: skip


def command(**fields: Any) -> dict[str, Any]:
    return {"user_id": USER, "command_name": "plan", "execution_time_ms": 5, "status": "success", **fields}


class Sender:
    """An organisation of its own, with a key that may do everything."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        with stack.running.connect(None) as connection:
            self.key = create_key(connection, stack.organization_id, "all", ("ingest", "query", "admin"))

    def ask(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        given = {"authorization": f"Bearer {key or self.key}", "content-type": "application/json", **headers}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        answer = HTTP.request(method, self.stack.url + path, body=data, headers=given)
        return answer.status, json.loads(answer.data)

    def send(self, *events: dict[str, Any], query: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        return self.ask("POST", BATCH + query, {"command_executions": list(events)}, **headers)

    def fates(self, receipt: str) -> dict[str, Any]:
        """What a receipt tells once it is done."""
        wait_until(lambda: self.ask("GET", RECEIPTS + receipt)[1].get("status") == "done", "loading")
        status, told = self.ask("GET", RECEIPTS + receipt)
        assert status == 200
        kinds = ("loaded", "duplicate", "conflict", "quarantined", "dropped", "lost")
        assert sum(told[kind] for kind in kinds) == told["accepted"], told
        return told

    def stored(self) -> int:
        query = "SELECT count(*) FROM events.command_executions WHERE organization_id = %s"
        [(count,)] = self.stack.sql(query, self.stack.organization_id)
        return int(count)


@pytest.fixture
def sender(stack: Any) -> Sender:
    return Sender(stack)


def test_a_receipt_tells_the_fate_of_every_event_by_its_place_in_the_request(sender: Sender) -> None:
    status, first = sender.send(command(id="a"), command(id="b"))
    assert status == 202
    assert (first["accepted"], first["rejected"], first["items"]) == (2, 0, [])
    sender.fates(first["receipt"])
    status, second = sender.send(
        command(id="new"), command(id="bad", execution_time_ms=-1), command(), command(id="a"),
        command(id="b", execution_time_ms=6), command(executed_at="2999-01-01T00:00:00Z"),
    )  # fmt: skip
    assert (status, second["accepted"], second["rejected"]) == (202, 4, 2)
    refused = [(item["index"], item["id"], item["status"], item["code"]) for item in second["items"]]
    assert refused == [(1, "bad", "rejected", "invalid_event"), (5, None, "rejected", "invalid_time")]
    told = sender.fates(second["receipt"])
    assert (told["accepted"], told["loaded"], told["duplicate"], told["conflict"]) == (4, 2, 1, 1)
    found = [(item["index"], item["id"], item["status"], item["event_type"]) for item in told["items"]]
    assert found == [(3, "a", "duplicate", "command_executions"), (4, "b", "conflict", "command_executions")]
    assert all(item["message"] for item in told["items"])


def test_a_single_event_has_a_receipt_too(sender: Sender) -> None:
    for loaded, duplicate in ((1, 0), (0, 1)):
        status, answer = sender.ask("POST", "/api/metrics/commands", command(id="one"))
        assert status == 202
        told = sender.fates(answer["receipt"])
        assert (told["loaded"], told["duplicate"]) == (loaded, duplicate)


def test_a_receipt_is_its_organisations_alone_and_cannot_be_made_up(sender: Sender, stack: Any) -> None:
    _, answer = sender.send(command())
    receipt = answer["receipt"]
    journal, sequence, accepted, at, seal = receipt.split("-")
    other = Sender(new_organization(stack.running))
    wrong = [
        f"{journal}-{int(sequence, 16) + 1:x}-{accepted}-{at}-{seal}", f"{journal}-{sequence}-{accepted}-0-{seal}",
        receipt[:-1], receipt + "0", receipt.upper(), "x", "%00", "-".join(["0"] * 5), "é",
    ]  # fmt: skip
    for text, asker in [*((text, sender) for text in wrong), (receipt, other)]:
        status, problem = asker.ask("GET", RECEIPTS + text)
        assert (status, problem["code"]) == (404, "not_found"), text
    assert sender.ask("GET", RECEIPTS + receipt)[0] == 200


def test_a_stream_has_a_receipt_for_each_block(sender: Sender) -> None:
    """Every event that is not stored is found by its line, whatever else was journalled meanwhile."""
    lines = [json.dumps(command(id=f"e{number}")).encode() for number in range(2500)]
    lines[7], lines[1200], lines[1201] = b"", b"{bad", lines[3]
    body = b"\n".join(lines)
    streamed = {"content-type": "application/x-ndjson"}
    status, answer = sender.ask("POST", "/api/metrics/commands", body, **streamed)
    assert (status, answer["accepted"], answer["rejected"], answer["lines"]) == (202, 2498, 1, 2500)
    blocks = answer["receipts"]
    assert (blocks[0]["first_line"], blocks[-1]["last_line"]) == (1, 2500)
    told = [(block["first_line"], sender.fates(block["receipt"])) for block in blocks]
    assert (sum(fates["loaded"] for _, fates in told), sender.stored()) == (2497, 2497)
    assert [
        (first + item["index"], item["status"], item["id"]) for first, fates in told for item in fates["items"]
    ] == [(1202, "duplicate", "e3")]
    assert sender.ask("POST", "/api/metrics/commands?atomic=true", body, **streamed)[1]["code"] == "bad_request"


def test_open_protocols_have_their_receipt_in_a_header_field(sender: Sender) -> None:
    event = {"specversion": "1.0", "type": "a.b", "source": "/s", "id": "1"}
    message = {"type": "track", "event": "E", "userId": "u", "messageId": "m"}
    for path, body, accepted in (
        ("/api/v1/events", [event, event, {**event, "data": 1}], 3), ("/v1/batch", {"batch": [message] * 2}, 2),
    ):  # fmt: skip
        answer = HTTP.request(
            "POST", sender.stack.url + path, body=json.dumps(body).encode(),
            headers={"authorization": f"Bearer {sender.key}", "content-type": "application/json"},
        )  # fmt: skip
        assert answer.status in (200, 204), answer.data
        fates = sender.fates(answer.headers["totalizer-receipt"])
        assert (fates["accepted"], fates["loaded"]) == (accepted, 1)
        assert fates["duplicate"] + fates["conflict"] == accepted - 1


def test_all_or_nothing(sender: Sender) -> None:
    status, problem = sender.send(command(id="good"), command(id="bad", status="odd"), query="?atomic=true")
    assert (status, problem["code"], problem["accepted"], problem["rejected"]) == (422, "invalid_event", 0, 2)
    assert [(item["index"], item["id"]) for item in problem["items"]] == [(1, "bad")]
    status, answer = sender.send(command(id="good"), command(id="better"), query="?atomic=true")
    assert (status, answer["accepted"]) == (202, 2)
    assert sender.fates(answer["receipt"])["loaded"] == 2
    assert sender.stored() == 2
    assert sender.send(command(), query="?atomic=perhaps")[1]["code"] == "bad_request"


KEY = {"idempotency-key": "batch-1"}


def test_a_request_sent_again_with_its_key_gets_the_same_answer_and_stores_nothing(sender: Sender) -> None:
    events = [command(), command(status="odd"), command(execution_time_ms=7)]
    answers = [sender.send(*events, **KEY) for _ in range(3)]
    assert answers[0][0] == 202
    assert answers[1:] == answers[:1] * 2
    assert sender.fates(answers[0][1]["receipt"])["loaded"] == 2
    assert sender.stored() == 2


def test_a_key_used_for_another_body_is_refused_and_is_free_for_another_organisation(
    sender: Sender, stack: Any
) -> None:
    assert sender.send(command(), **KEY)[0] == 202
    status, problem = sender.send(command(execution_time_ms=6), **KEY)
    assert (status, problem["code"]) == (422, Refusal.IDEMPOTENCY_CONFLICT.value)
    assert "idempotency" in problem["title"].lower(), "what the batching library looks for"
    assert Sender(new_organization(stack.running)).send(command(execution_time_ms=6), **KEY)[0] == 202
    status, problem = sender.send(command(), **{"idempotency-key": "x" * 256})
    assert (status, problem["code"]) == (400, "bad_request")
    assert sender.send(command(), **{"idempotency-key": "x" * 255})[0] == 202


def test_a_refused_request_may_be_mended_and_sent_with_the_same_key(sender: Sender) -> None:
    assert sender.send(command(status="odd"), **KEY)[0] == 422
    assert sender.send(command(), **KEY)[0] == 202


def test_the_books_of_an_organisation_balance(sender: Sender) -> None:
    _, answer = sender.send(command(id="a"), command(id="a"), command(status="odd"))
    sender.fates(answer["receipt"])
    assert sender.ask("POST", "/api/metrics/commands", command(status="odd"))[0] == 422
    assert sender.send(command(id="b"), command(status="odd"), query="?atomic=true")[0] == 422

    def books() -> dict[str, Any]:
        return sender.ask("GET", STATS)[1]

    wait_until(lambda: books()["rejected"] == 4, "counting what was refused")
    told = books()
    figures = ("sent", "accepted", "rejected", "loaded", "duplicate", "conflict", "quarantined", "dropped")
    assert [told[name] for name in figures] == [6, 2, 4, 1, 1, 0, 0, 0]
    assert told["rejected_by_code"] == {"atomic": 1, "invalid_event": 3}
    assert [sum(hour[name] for hour in told["hours"]) for name in figures] == [told[name] for name in figures]
    assert sender.ask("GET", STATS + "?hours=0")[1]["code"] == "invalid_query"
