"""From a line of a piece back to its record, and to its event's place in the request."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from totalizer.catalog import load_catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.event import BatchHeader, Section, encode_batch
from totalizer.load.copy_text import id_of
from totalizer.load.gather import NO_HOUR, NO_ORGANIZATION, Origins, gather
from totalizer.load.missing import gaps
from totalizer.store.loading import Offset

ORGANIZATION = "00000000-0000-4000-8000-000000000001"
COMMAND = {"user_id": ORGANIZATION, "command_name": "plan", "execution_time_ms": 5, "status": "success"}
COLLECTOR = Collector(load_catalog(), SYSTEM_CLOCK, batch_events_max=1000)
#: What one event of a request is like: (kind, named).
EVENTS = st.lists(st.tuples(st.sampled_from(["good", "good", "late", "wrong"]), st.booleans()), max_size=8)
LATE = "2999-01-01T00:00:00Z"


def events_of(request: int, kinds: list[tuple[str, bool]]) -> list[dict[str, object]]:
    """A request's events; their place is in what they say."""
    events = []
    for place, (kind, named) in enumerate(kinds):
        event = {**COMMAND, "error_message": f"{request} {place}"}
        event |= {"id": f"{request}-{place}"} if named else {}
        event |= {"executed_at": LATE} if kind == "late" else {"status": "odd"} if kind == "wrong" else {}
        events.append(event)
    return events


@given(st.lists(EVENTS, max_size=5))
def test_every_line_is_found_at_the_place_its_sender_gave_it(requests: list[list[tuple[str, bool]]]) -> None:
    payloads, said = [], []
    for request, kinds in enumerate(requests):
        if any(kind == "good" for kind, _ in kinds):
            body = msgspec.json.encode({"command_executions": events_of(request, kinds)})
            payloads.append(COLLECTOR.admit_batch(ORGANIZATION, body).payload)
            said.append(request)
    gathered = gather(payloads, 10**6)
    found = []
    for target, lines in gathered.lines.items():
        column = target.columns.index("error_message")
        for number, line in enumerate(lines):
            origin, place = gathered.origins[target].of(number)
            text = line.split(b"\t")[column].decode()
            assert text == f"{said[origin.record]} {place}"
            assert requests[said[origin.record]][place] == ("good", target.keyed)
            if target.keyed:
                assert id_of(line) == text.replace(" ", "-")
            found.append(text)
        rows = gathered.origins[target].rows()
        assert sum(rows.values()) == len(lines)
    good = [f"{r} {p}" for r, kinds in enumerate(requests) for p, (kind, _) in enumerate(kinds) if kind == "good"]
    assert sorted(found) == sorted(good)


def test_a_repeated_request_has_the_same_ids_whatever_else_is_refused_by_then() -> None:
    """At its first attempt the first event's time was refused, at its second it is believed."""
    bodies = [
        msgspec.json.encode({"command_executions": [{**COMMAND, "executed_at": time}, COMMAND, COMMAND]})
        for time in (LATE, "2025-09-05T10:00:00Z")
    ]
    first, second = (COLLECTOR.admit_batch(ORGANIZATION, body, b"request").payload for body in bodies)
    ids = [{line[65:101] for line in payload.splitlines()[1:]} for payload in (first, second)]
    assert (len(ids[0]), len(ids[1])) == (2, 3)
    assert ids[0] < ids[1]
    [(target, _)] = gather([first], 10).lines.items()
    assert target.keyed, "a time of its own does not hide a repeat"
    single = [COLLECTOR.admit_one(ORGANIZATION, "commands", msgspec.json.encode(COMMAND), b"r").event_id for _ in "ab"]
    assert single[0] == single[1]
    other = COLLECTOR.admit_batch(ORGANIZATION, bodies[1], b"another").payload
    assert ids[1].isdisjoint({line[65:101] for line in other.splitlines()[1:]})


def test_a_header_that_says_nonsense_is_counted_somewhere() -> None:
    section = Section("sales", ("a",), False, 1, 2)
    for header in (BatchHeader("nobody", "someday", (section,)), BatchHeader("", "2025-99-99T99:00", (section,))):
        [origins] = gather([encode_batch(header, b"x\n")], 10).origins.values()
        assert origins.rows() == {(NO_ORGANIZATION, NO_HOUR): 1}


def test_hours_are_those_of_receipt() -> None:
    now = datetime.now(UTC)
    payload = COLLECTOR.admit_batch(ORGANIZATION, msgspec.json.encode({"command_executions": [COMMAND]})).payload
    [origins] = gather([payload], 10).origins.values()
    [(_, hour)] = origins.rows()
    assert abs((datetime.fromisoformat(hour) - now).total_seconds()) < 3700
    assert hour.endswith(":00:00Z")


def test_an_origin_without_rows_is_none() -> None:
    assert Origins([]).rows() == {}


@given(st.integers(0, 50), st.lists(st.integers(1, 5), min_size=1, max_size=10))
def test_gaps_are_exactly_the_numbers_between(before: int, steps: list[int]) -> None:
    sequences, number = [], before
    for step in steps:
        number += step
        sequences.append(number)
    offset = Offset(1, 1, 0, before) if before else Offset(1, 0, 0, 0)
    missing = {n for first, last, _, _ in gaps(offset, sequences) for n in range(first, last + 1)}
    assert missing == set(range(before + 1, number + 1)) - set(sequences)
