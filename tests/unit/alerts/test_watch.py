"""Rules held against reports: for how long, once, more urgently, silenced, over, and whose business it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from totalizer.alerts.channels import Grouped
from totalizer.alerts.ruled import RuledAlerts
from totalizer.alerts.watch import Watch
from totalizer.edge.daemon.alerts import STATE_FILE
from totalizer.edge.daemon.channels import Alert
from totalizer.health.config import AlertDefaults, Rule
from totalizer.health.report import judge
from unit.health.parts import AWAY, database, facts


class HandClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ns(self) -> int:
        return int((1_700_000_000 + self.seconds) * 1e9)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Ears:
    """Keeps what it is told."""

    def __init__(self, name: str, least: str = "info") -> None:
        self.name, self.least, self.deaf = name, least, False
        self.heard: list[Alert] = []

    def send(self, alert: Alert) -> bool:
        if not self.deaf:
            self.heard.append(alert)
        return not self.deaf

    @property
    def words(self) -> list[tuple[str, str]]:
        return [(one.severity, one.message.split(":")[0]) for one in self.heard]


RULES = {
    "ledger": Rule("ledger", for_s=10),
    "memory": Rule("memory"),
    "redis": Rule("redis", escalate_s=30, channels=("default", "pager")),
    "database": Rule("database"),
    "loud": Rule("quarantine", severity="critical", channels=("pager",)),
}
BAD_LEDGER = {"database": database(without_fate=1)}
NO_REDIS = {"redis": "cannot be reached"}


class Scene:
    """A monitor's inside, with ears."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.silenced = HandClock(), set[str]()
        self.default, self.critical, self.pager = Ears("one"), Ears("two", "critical"), Ears("three")
        self.folder = folder
        self.begin()

    def begin(self) -> None:
        """As after a restart."""
        channels = [
            Grouped("default", self.default), Grouped("critical", self.critical), Grouped("pager", self.pager),
        ]  # fmt: skip
        self.alerts = RuledAlerts(
            RULES, AlertDefaults(repeat_s=3600, escalate_s=0), channels, self.folder / STATE_FILE, 5.0, self.clock,
            self.silenced.__contains__,
        )  # fmt: skip
        self.watch = Watch(RULES, self.alerts, "here", self.clock)

    def look(self, times: int = 1, leads: bool | None = True, **changed: Any) -> None:
        """So many looks, five seconds from one to the next."""
        for _ in range(times):
            self.watch(judge(facts(**changed)), leads=leads)
            self.clock.sleep(5)

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(each.rule, each.kind) for each in self.alerts.waiting]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_nothing_is_said_while_all_is_well(scene: Scene) -> None:
    scene.look(3)
    assert scene.default.heard == []


def test_it_must_have_been_so_for_a_while_and_is_said_once(scene: Scene) -> None:
    scene.look(2, **BAD_LEDGER)
    assert scene.default.heard == []
    scene.look(20, **BAD_LEDGER)
    assert scene.default.words == [("critical", "ledger")]
    assert scene.critical.words == [("critical", "ledger")]
    assert scene.default.heard[0].details["what to do"].startswith("`totalizer ledger`")


def test_what_passes_within_that_time_is_never_said(scene: Scene) -> None:
    for _ in range(5):
        scene.look(2, **BAD_LEDGER)
        scene.look()
    assert scene.default.heard == []


def test_when_it_is_over_those_who_were_told_hear_so(scene: Scene) -> None:
    scene.look(1, **NO_REDIS)
    scene.look(3)
    assert scene.default.words == [("warning", "redis"), ("info", "resolved")]
    assert scene.critical.heard == []
    assert scene.kinds == [("redis", "fired"), ("redis", "resolved")]


def test_a_warning_that_stands_becomes_critical_once(scene: Scene) -> None:
    scene.look(12, **NO_REDIS)
    assert scene.default.words == [("warning", "redis"), ("critical", "redis")]
    assert scene.kinds == [("redis", "fired"), ("redis", "escalated")]


def test_it_is_said_again_after_the_repeat_time(scene: Scene) -> None:
    scene.look(4, **BAD_LEDGER)
    scene.clock.sleep(3600)
    scene.look(4, **BAD_LEDGER)
    assert scene.kinds == [("ledger", "fired"), ("ledger", "repeated")]
    assert scene.default.words == [("critical", "ledger")] * 2


def test_a_rule_goes_to_its_own_channels_with_its_own_severity(scene: Scene) -> None:
    scene.look(1, database=database(letters_hour=1))
    assert scene.pager.words == [("critical", "loud")]
    assert scene.default.heard == scene.critical.heard == []


def test_silenced_it_stands_and_is_told_when_that_ends(scene: Scene) -> None:
    scene.silenced.add("redis")
    scene.look(3, **NO_REDIS)
    assert scene.default.heard == []
    assert [(each.kind, each.silenced) for each in scene.alerts.waiting] == [("fired", True)]
    scene.silenced.clear()
    scene.look(1, **NO_REDIS)
    assert scene.default.words == [("warning", "redis")]


def test_silenced_and_over_nobody_hears_of_it(scene: Scene) -> None:
    scene.silenced.add("redis")
    scene.look(3, **NO_REDIS)
    scene.look(1)
    scene.silenced.clear()
    scene.look(3)
    assert scene.default.heard == []


def test_a_channel_that_does_not_take_it_is_tried_at_each_look(scene: Scene) -> None:
    scene.default.deaf = True
    scene.look(2, **NO_REDIS)
    scene.default.deaf = False
    scene.look(2, **NO_REDIS)
    assert scene.default.words == [("warning", "redis")]


def test_what_cannot_be_known_is_neither_wrong_nor_over(scene: Scene) -> None:
    """The database goes away while the ledger differs: the alert stands until somebody can tell."""
    scene.look(4, **BAD_LEDGER)
    scene.look(5, leads=None, database=AWAY)
    assert scene.default.words == [("critical", "ledger"), ("critical", "database")]
    scene.look(1, **BAD_LEDGER)
    assert scene.default.words[2:] == [("info", "resolved")]
    scene.look(1)
    assert scene.default.words[3:] == [("info", "resolved")]
    assert scene.default.heard[3].message.startswith("resolved: ledger")


def test_a_restart_forgets_nothing_and_says_nothing_twice(scene: Scene) -> None:
    scene.look(4, **BAD_LEDGER)
    scene.begin()
    scene.look(3, leads=None, database=AWAY)
    scene.begin()
    scene.look(1, **BAD_LEDGER)
    assert scene.default.words == [("critical", "ledger"), ("critical", "database"), ("info", "resolved")]
    scene.look(1)
    assert scene.default.words[-1] == ("info", "resolved")


def test_of_several_monitors_one_tells_of_the_installation_and_each_of_its_machine(scene: Scene) -> None:
    scene.look(4, leads=False, **BAD_LEDGER, **NO_REDIS)
    assert scene.default.words == [("warning", "redis")]
    assert set(scene.alerts.standing()) == {"redis@here"}


def test_who_leads_no_more_leaves_the_alerts_to_the_other(scene: Scene) -> None:
    scene.look(4, **BAD_LEDGER)
    scene.look(2, leads=False)
    assert scene.alerts.standing() == {}
    assert scene.default.words == [("critical", "ledger")]
