"""Any events, marks, windows, zones, filters and groups: answers equal a count by hand."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from integration.query.model import Counted, Event, counted, random_windows, windows_in

FIRST = datetime(2025, 1, 20, tzinfo=UTC)
SPAN = timedelta(days=110)
TEAMS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", None)
STATUSES = ("success", "error", "timeout")
NAMES = ("plan", "build", "test", "")[:3]
ZONES = ("Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "UTC", "America/Sao_Paulo")
SHOWN = {"executions": "executions", "execution_time_ms_sum": "sum", "execution_time_ms_min": "min",
         "execution_time_ms_max": "max"}  # fmt: skip
QUERIES = 30


class World:
    """Two organisations' events, and what is known of one's."""

    def __init__(self, feed: Any, command: Any, rng: random.Random, zone: str) -> None:
        self.feed, self._command, self._rng = feed, command, rng
        self.organization, self._other = feed.organization("mine", zone), feed.organization("theirs")
        self.events: list[Event] = []

    def send(self, count: int, first: datetime = FIRST, span: timedelta = SPAN) -> None:
        rng, batch = self._rng, []
        for _ in range(count):
            # Some on edges of buckets and days, where mistakes are made.
            at = first + timedelta(seconds=rng.randrange(int(span.total_seconds())), microseconds=rng.randrange(10**6))
            if rng.random() < 0.2:
                at = at.replace(minute=rng.choice([0, 15, 30, 45]), second=0, microsecond=0)
            event = Event(at, rng.choice(NAMES), rng.choice(STATUSES), rng.choice(TEAMS), rng.randrange(1000))
            self.events.append(event)
            team = {"team_id": event.team} if event.team else {}
            batch.append(
                self._command(
                    executed_at=at.isoformat(), command_name=event.name, status=event.status,
                    execution_time_ms=event.took, **team,
                )
            )  # fmt: skip
        self.feed.send(self.organization, command_executions=batch)
        self.feed.send(self._other, command_executions=batch)
        self.feed.load()


@pytest.mark.parametrize("own_zone", ["Asia/Kathmandu", "America/Sao_Paulo"])
def test_answers_equal_a_count_by_hand(feed: Any, command: Any, ask: Any, own_zone: str) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    world = World(feed, command, rng, own_zone)
    world.send(900)
    feed.refresh()
    world.send(40)  # stays marked
    sources: set[str] = set()
    for number in range(QUERIES):
        if number == QUERIES // 2:
            feed.refresh()
        check_one(world, ask, rng, own_zone, sources)
    whole = ask(
        world.organization, start_date="2025-01-10T00:07:00Z", end_date="2025-06-17", aggregation_window="total"
    )
    assert whole["data"][0]["executions"] == len(world.events)
    sources |= set(whole["source"].split("+"))
    assert sources >= {"1mo", "1w", "1d", "1h", "15m", "events"}


def check_one(world: World, ask: Any, rng: random.Random, own_zone: str, sources: set[str]) -> None:
    """One random question."""
    body = random_windows(rng)
    zone_name = rng.choice([own_zone, own_zone, *ZONES])
    zone = ZoneInfo(zone_name)
    short = body.get("aggregation_window") in ("1m", "5m")
    start = FIRST + SPAN * rng.random()
    length = timedelta(hours=30) if short else SPAN * rng.random() + timedelta(minutes=1)
    if rng.random() < 0.4:
        start = start.replace(hour=0, minute=0, second=0, microsecond=0)
        length = timedelta(days=max(length.days, 1))
    end = start + length
    groups = rng.sample(["command_name", "status", "team_id"], rng.randrange(3))
    filters, accepts = random_filters(rng)
    compare = rng.random() < 0.3
    # Not more rows than an answer has.
    many = body.get("aggregation_window") in ("1m", "5m", "15m", "1h") and length > timedelta(days=8)
    fill = "none" if many or short else rng.choice(["none", "none", "zero", "null"])
    request = {
        **body, "start_date": start.isoformat(), "end_date": end.isoformat(), "group_by": groups, "filters": filters,
        "fill": fill, "limit": 10_000, "metrics": list(SHOWN), "time_zone": zone_name,
    }  # fmt: skip
    before = start - timedelta(days=30)
    if compare:
        request["compare"] = {"start_date": before.isoformat(), "end_date": start.isoformat()}
    answer = ask.post(world.organization, **request)
    sources |= set(answer["source"].split("+"))
    mine = [event for event in world.events if accepts(event)]
    members = {"command_name": "name", "status": "status", "team_id": "team"}

    def group(event: Event) -> tuple[Any, ...]:
        return tuple(getattr(event, members[name]) for name in groups)

    model = {"aggregation_window": "1d", **body}
    expected = counted(mine, model, zone, start, end, group)
    previous: Counted = {}
    if compare and body.get("aggregation_window") == "total":
        moved = counted(mine, model, zone, before, start, group)
        previous = {(start, *key[1:]): value for key, value in moved.items()}
    told = {
        (datetime.fromisoformat(row["window_start"]), *(row[name] for name in groups)): row for row in answer["data"]
    }
    assert len(told) == len(answer["data"]), request
    if fill != "none":
        kinds = {key[1:] for key in told} if groups else {()}
        windows = windows_in(model, zone, start, end)
        assert {key[0] for key in told} == (set(windows) if kinds else set()), request
        assert len(told) == len(windows) * len(kinds), request
    with_events = {key: row for key, row in told.items() if row["executions"]}
    shown = {key: {SHOWN[name]: row[name] for name in SHOWN} for key, row in with_events.items()}
    assert shown == expected, (request, answer["source"])
    for key, row in told.items():
        if key not in expected:
            assert row["executions"] == (0 if fill == "zero" else None), request
    if compare and body.get("aggregation_window") == "total":
        found = {key: row["previous"]["executions"] for key, row in told.items() if row["previous"]["executions"]}
        assert found == {key: value["executions"] for key, value in previous.items()}, request
    assert answer["exact"]
    assert answer["complete"]
    check_pages(world, ask, rng, request, answer)


def random_filters(rng: random.Random) -> tuple[dict[str, Any], Any]:
    """Conditions, and the same in Python."""
    kind = rng.randrange(6)
    if kind == 0:
        wanted = rng.sample(NAMES, 2)
        return {"command_name": wanted}, lambda event: event.name in wanted
    if kind == 1:
        return {"status": {"not": ["error"]}}, lambda event: event.status != "error"
    if kind == 2:
        return {"team_id": [TEAMS[0], None]}, lambda event: event.team in (TEAMS[0], None)
    if kind == 3:
        return {"team_id": {"not": TEAMS[1]}, "status": "success"}, (
            lambda event: event.team != TEAMS[1] and event.status == "success"
        )
    return {}, lambda _: True


def check_pages(world: World, ask: Any, rng: random.Random, request: dict[str, Any], whole: dict[str, Any]) -> None:
    """The same answer, page by page, either way round."""
    rows = whole["data"]
    if not 1 < len(rows) < 400 or rng.random() < 0.5:
        return
    limit = max(len(rows) // rng.randrange(2, 6), 1)
    order = rng.choice([["window"], ["-window"], ["-executions"], ["execution_time_ms_sum", "-window"]])
    pages: list[Any] = []
    cursor = None
    while True:
        page = ask.post(world.organization, **{**request, "limit": limit, "cursor": cursor, "order": order})
        pages += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["data"]) == limit
    text = [sorted(map(str, each)) for each in (pages, rows)]
    assert text[0] == text[1], (request, order)
    if order == ["window"]:
        assert pages == rows
    if order == ["-window"]:
        starts = [datetime.fromisoformat(row["window_start"]) for row in pages]
        assert starts == sorted(starts, reverse=True)
    if order == ["-executions"]:
        numbers = [row["executions"] for row in pages if row["executions"] is not None]
        assert numbers == sorted(numbers, reverse=True)
