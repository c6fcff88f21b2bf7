"""Whatever comes late or twice, and whoever is killed: days, weeks and months hold all that was acknowledged."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from totalizer import failpoint
from totalizer.catalog.retention import complete
from totalizer.failpoint import Failpoint
from totalizer.load.late_drop import drop_late
from totalizer.rollup.late import apply_late
from totalizer.rollup.refresh import refresh
from totalizer.rollup.retention import cleanup_old_data
from totalizer.rollup.verify import verify
from totalizer.store import late, retention
from totalizer.store.late import LateEvent, Selection
from totalizer.store.roles import Role

BEGIN = date(2026, 3, 20)
ZONES = {"berlin": "Europe/Berlin", "kathmandu": "Asia/Kathmandu", "york": "America/New_York"}
#: Places where a run of retention or of late events can be killed.
PLACES = [point.value for point in Failpoint if point.value.split(".")[0] in ("retention", "late")]


class Life:
    """A database, and what must be in it."""

    def __init__(self, feed: Any, command: Any, rng: random.Random) -> None:
        self.feed, self.command, self.rng = feed, command, rng
        self.writer = feed.database.connect(Role.WRITER)
        self.today = BEGIN
        self.organizations = {feed.organization(name, zone): ZoneInfo(zone) for name, zone in ZONES.items()}
        self.sent: dict[tuple[str, str], tuple[datetime, int]] = {}
        self.counted: set[tuple[str, str]] = set()
        self.kills = 0

    def send(self) -> None:
        """Some new events of all ages, and some that were sent before."""
        organization = self.rng.choice(list(self.organizations))
        events = []
        for _ in range(self.rng.randrange(1, 12)):
            known = [key for key in self.sent if key[0] == organization]
            if known and self.rng.random() < 0.3:
                key = self.rng.choice(known)
            else:
                key = organization, str(uuid.UUID(int=self.rng.getrandbits(128)))
                age = self.rng.choice([0.5, 2, 6, 12, 30, 70]) * self.rng.random()
                noon = datetime(self.today.year, self.today.month, self.today.day, 12, tzinfo=UTC)
                self.sent[key] = noon - timedelta(days=age), self.rng.randrange(1000)
            moment, took = self.sent[key]
            events.append(self.command(id=key[1], executed_at=moment.isoformat(), execution_time_ms=took))
        self.feed.send(organization, command_executions=events)

    def load(self) -> None:
        self.feed.load()
        held = {(event.organization_id, event.event_id) for event in self.held()}
        self.counted |= self.sent.keys() - held

    def held(self) -> list[LateEvent]:
        return late.list_late(self.feed.reader, Selection(("held",)), 10_000)

    def refresh(self) -> None:
        self.maybe_killed(lambda: refresh(self.feed.reader))

    def clean(self) -> None:
        self.maybe_killed(lambda: cleanup_old_data(self.feed.reader, today=self.today))

    def apply(self) -> None:
        self.decide()
        self.maybe_killed(lambda: apply_late(self.feed.reader, "somebody"))

    def sleep(self) -> None:
        self.today += timedelta(days=self.rng.randrange(1, 5))

    def set(self) -> None:
        name = self.rng.choice([None, *ZONES])
        figures = complete(self.rng.choice([2, 4, 9]), base=self.rng.choice([11, 14]), hour=20)
        retention.set_retention(self.feed.administrator, "command_executions", name, figures)

    def check(self) -> None:
        wrong = [balance for balance in verify(self.feed.reader) if not balance.exact]
        assert wrong == []

    def maybe_killed(self, work: Any) -> None:
        """Do something, or a part of it."""
        chance = self.rng.random()
        if chance < 0.5:
            failpoint.arm(f"{self.rng.choice(PLACES)}=raise:{self.rng.randrange(1, 4)}")
        try:
            work()
        except OSError:
            self.kills += 1
        finally:
            failpoint.arm("")

    def decide(self) -> None:
        """Of those that are held, the ones that were counted before do not count: a person knows."""
        again, new = [], []
        for event in self.held():
            key = event.organization_id, event.event_id
            (again if key in self.counted else new).append(event.id)
            self.counted.add(key)
        late.release(self.feed.reader, new)
        file = self.feed.spool.parent / f"dropped {uuid.uuid4()}"
        assert sum(drop_late(self.writer, again, file)) == len(again)

    def totals(self) -> dict[str, Counter[tuple[str, date]]]:
        """Events by local day, week and month, as they must be."""
        found: dict[str, Counter[tuple[str, date]]] = {"1d": Counter(), "1w": Counter(), "1mo": Counter()}
        for (organization, _), (moment, _) in self.sent.items():
            day = moment.astimezone(self.organizations[organization]).date()
            found["1d"][organization, day] += 1
            found["1w"][organization, day - timedelta(days=day.weekday())] += 1
            found["1mo"][organization, day.replace(day=1)] += 1
        return found

    def stored(self) -> dict[str, Counter[tuple[str, date]]]:
        """The same, as the rollups have it."""
        return {
            grain: Counter(
                {
                    (organization, day): count
                    for organization, day, count in self.feed.rows(
                        f"SELECT organization_id::text, {key}, sum(executions)::int "
                        f"FROM analytics.command_usage_{grain} GROUP BY 1, 2"
                    )
                }
            )
            for grain, key in (("1d", "day"), ("1w", "week"), ("1mo", "month"))
        }


@pytest.mark.parametrize("number", range(3))
def test_all_that_was_acknowledged_is_in_days_weeks_and_months(feed: Any, command: Any, number: int) -> None:
    seed = random.randrange(10**9)
    print("seed", seed, number)
    rng = random.Random(seed)
    life = Life(feed, command, rng)
    retention.set_retention(feed.administrator, "command_executions", None, complete(5, base=12, hour=20))
    steps = [life.send, life.send, life.load, life.load, life.refresh, life.clean, life.apply, life.sleep, life.set]
    for _ in range(70):
        rng.choice([*steps, life.check])()
        if rng.random() < 0.1:
            feed.loader.close()  # a loader that begins anew knows no floors
    life.load()
    for _ in range(2):
        refresh(feed.reader)
        cleanup_old_data(feed.reader, today=life.today)
    life.decide()
    apply_late(feed.reader)
    assert life.stored() == life.totals()
    life.check()
    ledger = feed.one("SELECT sum(accepted - loaded - duplicate - dropped)::int FROM totalizer.ledger")
    assert ledger == 0


def test_every_grain_that_is_kept_agrees_with_the_days(feed: Any, command: Any) -> None:
    """Above their floors quarter hours and hours hold what the days hold, late events included."""
    rng = random.Random(7)
    life = Life(feed, command, rng)
    retention.set_retention(feed.administrator, "command_executions", None, complete(5, base=12, hour=20))
    for _ in range(25):
        life.send()
        life.load()
        refresh(feed.reader)
        life.sleep()
        cleanup_old_data(feed.reader, today=life.today)
        life.decide()
        apply_late(feed.reader)
        life.check()
    assert life.stored() == life.totals()
    floors = {each.event_type: each for each in retention.list_floors(feed.reader)}["command_executions"]
    assert floors.base_floor is not None
    assert floors.hour_floor is not None
    for grain, floor in (("15m", floors.base_floor), ("1h", floors.hour_floor)):
        expected = sum(moment >= floor for moment, _ in life.sent.values())
        [[kept]] = feed.rows(
            f"SELECT sum(executions)::int FROM analytics.command_usage_{grain} WHERE bucket >= %s", floor
        )
        assert kept == expected, grain


def test_a_killed_backend_leaves_no_wrong_number(feed: Any, command: Any, database: Any) -> None:
    """The same with the connection gone, as when PostgreSQL or the network dies."""
    life = Life(feed, command, random.Random(11))
    retention.set_retention(feed.administrator, "command_executions", None, complete(5, base=12, hour=20))
    for _ in range(12):
        life.send()
    life.load()
    refresh(feed.reader)
    other = database.connect(None)
    [[pid]] = feed.rows("SELECT pg_backend_pid()")
    other.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(psycopg.OperationalError):
        cleanup_old_data(feed.reader, today=life.today)
    feed.reader = database.connect(Role.REFRESHER)
    assert cleanup_old_data(feed.reader, today=life.today)["status"] == "done"
    life.check()
