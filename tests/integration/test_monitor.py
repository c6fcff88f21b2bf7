"""Monitors over a real database: several at once, one that comes back, and history that waited."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from totalizer.alerts.book import Book
from totalizer.alerts.channels import Grouped
from totalizer.alerts.monitor import Monitor
from totalizer.clock import SYSTEM_CLOCK
from totalizer.edge.daemon.channels import Alert
from totalizer.edge.folder import Folders
from totalizer.health.check import STATUSES
from totalizer.health.config import AlertDefaults, HealthConfig, Rule
from totalizer.health.gather import KEPT_S, Gatherer, Places
from totalizer.metrics import MEASURES
from totalizer.metrics.table import ALERTS, HEALTH_STATUS, HEALTH_VALUE
from totalizer.store.roles import Role


class Ears:
    """Keeps what it is told."""

    name, least = "ears", "info"

    def __init__(self) -> None:
        self.heard: list[Alert] = []

    def send(self, alert: Alert) -> bool:
        self.heard.append(alert)
        return True

    @property
    def words(self) -> list[str]:
        return [one.message.removeprefix("resolved: ").split(":")[0] for one in self.heard]


class Ahead:
    """A clock that goes on by more than answers are kept at every look."""

    def __init__(self) -> None:
        self.by = 0.0

    def now_ns(self) -> int:
        return SYSTEM_CLOCK.now_ns()

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self.by

    def sleep(self, seconds: float) -> None:
        SYSTEM_CLOCK.sleep(seconds)


RULES = {"ledger": Rule("ledger"), "database": Rule("database"), "redis": Rule("redis")}
NOWHERE = "host=127.0.0.1 port=1"


class Machine:
    """One machine with a monitor."""

    def __init__(self, database: Any, folder: Path, host: str, redis_url: str | None = None) -> None:
        self.database, self.folder, self.host, self.redis_url = database, folder, host, redis_url
        self.ears, self.away = Ears(), False
        self.begin()

    def begin(self) -> None:
        """As after a restart."""
        self.clock = Ahead()
        places = Places(
            lambda: NOWHERE if self.away else self.database.dsn(Role.REFRESHER), self.redis_url, self.folder,
            self.folder / "journal", Folders(self.folder / "aggregated"), 1 << 30,
        )  # fmt: skip
        self.gatherer = Gatherer(places, clock=self.clock)
        self.book = Book(places.dsn, self.host, places.folder, self.clock)
        config = HealthConfig(rules=RULES, alerts=AlertDefaults())
        self.monitor = Monitor(
            self.gatherer, config, [Grouped("default", self.ears)], self.book, interval_s=1, file_s=1e9,
            clock=self.clock,
        )  # fmt: skip

    def look(self) -> None:
        self.clock.by += KEPT_S + 1
        self.monitor.look()

    def leave(self) -> None:
        """The database, from this machine's view: connections break, and new ones are refused."""
        self.away = True
        self.book.close()
        self.gatherer._probe.close()

    def end(self) -> None:
        self.book.close()
        self.gatherer.close()


@pytest.fixture
def machine(database: Any, tmp_path: Path) -> Any:
    made: list[Machine] = []

    def make(host: str, **more: Any) -> Machine:
        (tmp_path / host).mkdir()
        made.append(Machine(database, tmp_path / host, host, **more))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def spoil(database: Any) -> Callable[[int], None]:
    """Lets the ledger be off by so much."""
    administrator = database.connect()

    def spoil(by: int) -> None:
        administrator.execute("DELETE FROM totalizer.load_ledger")
        administrator.execute(
            "INSERT INTO totalizer.load_ledger (organization_id, event_type, loaded, duplicate, conflict, "
            "dead_lettered, accepted) VALUES (gen_random_uuid(), 'commits', 1, 0, 0, 0, %s)",
            [1 + by],
        )

    return spoil


def rows(database: Any, query: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = database.connect().execute(query).fetchall()
    return found


STANDING = "SELECT host, key FROM totalizer.alerts ORDER BY 1, 2"
HISTORY = "SELECT host, key, kind FROM totalizer.alert_history ORDER BY at, kind"


def test_what_is_wrong_with_the_installation_is_told_by_one_and_of_each_machine_by_itself(
    machine: Any, database: Any, spoil: Any
) -> None:
    one, other = machine("one"), machine("other", redis_url="redis://127.0.0.1:1/0")
    spoil(1)
    for _ in range(3):
        one.look()
        other.look()
    assert (one.ears.words, other.ears.words) == (["ledger"], ["redis"])
    assert rows(database, STANDING) == [("one", "ledger"), ("other", "redis@other")]


def test_when_the_one_who_tells_ends_another_takes_over(machine: Any, database: Any, spoil: Any) -> None:
    one, other = machine("one"), machine("other")
    one.look()
    other.look()
    one.end()
    spoil(1)
    other.look()
    assert other.ears.words == ["ledger"]
    spoil(0)
    other.look()
    assert other.ears.words == ["ledger", "ledger"]
    assert [kind for _, _, kind in rows(database, HISTORY)] == ["fired", "resolved"]


def test_what_happened_while_the_database_was_away_is_recorded_when_it_is_back_whoever_restarts(
    machine: Any, database: Any
) -> None:
    one = machine("one")
    one.look()
    one.leave()
    one.look()
    assert one.ears.words == ["database"]
    one.end()
    one.begin()
    one.look()
    assert one.ears.words == ["database"], "told again after a restart"
    assert rows(database, HISTORY) == []
    one.away = False
    one.look()
    one.look()
    assert one.ears.words == ["database", "database"]
    assert rows(database, HISTORY) == [("one", "database@one", "fired"), ("one", "database@one", "resolved")]
    assert rows(database, STANDING) == []


def test_a_silence_holds_while_the_database_is_away(machine: Any, database: Any) -> None:
    one = machine("one")
    database.connect(Role.REFRESHER).execute(
        "INSERT INTO totalizer.alert_silences (rule, until, made_by) VALUES ('*', now() + interval '1 hour', 'a test')"
    )
    one.look()
    one.leave()
    one.look()
    one.end()
    one.begin()
    one.look()
    assert one.ears.heard == []
    assert set(one.monitor.alerts.standing()) == {"database@one"}


def test_the_record_names_what_to_do(machine: Any, database: Any, spoil: Any) -> None:
    one = machine("one")
    spoil(3)
    one.look()
    [(severity, message, remedy)] = rows(database, "SELECT severity, message, remedy FROM totalizer.alerts")
    assert severity == "critical"
    assert message.startswith("ledger: 3 acknowledged events")
    assert "totalizer ledger" in remedy


def test_what_checks_find_is_measured(machine: Any, spoil: Any) -> None:
    one = machine("one")
    spoil(3)
    one.look()
    assert measured("ledger") == (STATUSES.index("critical"), 3)
    assert measured("database")[0] == STATUSES.index("ok")
    assert MEASURES.value(ALERTS, "critical") == 1
    one.leave()
    one.look()
    status, value = measured("ledger")
    assert (status, isnan(value)) == (STATUSES.index("unknown"), True)
    assert measured("database")[0] == STATUSES.index("critical")


def measured(check: str) -> tuple[float, float]:
    """Status and figure of a check, as this process tells `/metrics`."""
    return MEASURES.value(HEALTH_STATUS, check), MEASURES.value(HEALTH_VALUE, check)
