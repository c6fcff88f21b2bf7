"""Which alerts go out, to whom, and when."""

from __future__ import annotations

import json

import pytest

from totalizer.edge.daemon.alerts import STATE_FILE, AlertRules, Alerts
from totalizer.edge.daemon.channels import Alert, LogChannel
from totalizer.edge.daemon.log import Log
from totalizer.edge.folder import Folders
from unit.edge.daemon.parts import HOUR_MS, HandClock

MINUTE_MS = 60_000


class ListChannel:
    """Keeps what it is sent; refuses while `broken`."""

    def __init__(self, name: str = "list", least: str = "info") -> None:
        self.name, self.least = name, least
        self.sent: list[Alert] = []
        self.broken = False

    def send(self, alert: Alert) -> bool:
        if self.broken:
            return False
        self.sent.append(alert)
        return True

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(alert.severity, alert.message) for alert in self.sent]


class RaisingChannel(ListChannel):
    """A channel of somebody else's, with a fault."""

    def send(self, alert: Alert) -> bool:
        raise RuntimeError("oh")


@pytest.fixture
def channel() -> ListChannel:
    return ListChannel()


def make(folders: Folders, clock: HandClock, *channels: ListChannel) -> Alerts:
    rules = AlertRules(repeat_ms=HOUR_MS, escalation_checks=3)
    return Alerts(LogChannel(Log(None, "info")), channels, folders.health / STATE_FILE, rules, clock, Log(None, "info"))


SLOW = Alert("warning", "slow", {"ms": 700}, key="processing_time")
DOWN = Alert("critical", "down", key="success_rate")


def test_no_repeat_within_the_time(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    alerts = make(folders, clock, channel)
    assert alerts.send(DOWN)
    clock.forward(HOUR_MS - 1)
    assert alerts.send(DOWN), "it was taken"
    assert channel.told == [("critical", "down")]
    clock.forward(1)
    assert alerts.send(DOWN)
    assert channel.told == [("critical", "down")] * 2


def test_another_message_or_a_worse_severity_is_another_alert(
    folders: Folders, clock: HandClock, channel: ListChannel
) -> None:
    alerts = make(folders, clock, channel)
    for alert in (Alert("warning", "a"), Alert("warning", "b"), Alert("critical", "a"), Alert("warning", "a")):
        assert alerts.send(alert)
    assert channel.told == [("warning", "a"), ("warning", "b"), ("critical", "a")]


def test_a_clock_set_back_does_not_silence(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    alerts = make(folders, clock, channel)
    alerts.send(DOWN)
    clock.set_back(1000 * HOUR_MS)
    alerts.send(DOWN)
    assert len(channel.sent) == 2


def test_what_is_told_survives_a_restart(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    make(folders, clock, channel).observe([SLOW])
    again = make(folders, clock, channel)
    again.observe([SLOW])
    again.observe([SLOW])
    # The third check in a row, though by another process.
    assert channel.told == [("warning", "slow"), ("critical", "slow")]
    make(folders, clock, channel).observe([])
    assert channel.told[2:] == [("info", "resolved: slow")]


def test_what_stands_becomes_critical_and_reaches_all(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    #   check     1        2      3         4 … 63        64
    #   to all    warning  –      critical  –             critical (an hour later)
    #   pager     –        –      critical  –             critical
    pager = ListChannel("pager", "critical")
    alerts = make(folders, clock, channel, pager)
    for _ in range(63):
        alerts.observe([SLOW])
        clock.forward(MINUTE_MS)
    assert channel.told == [("warning", "slow"), ("critical", "slow"), ("critical", "slow")]
    assert pager.told == [("critical", "slow")] * 2
    assert "3 health checks" in channel.sent[1].details["escalated"]
    alerts.observe([])
    assert channel.told[3:] == pager.told[2:] == [("info", "resolved: slow")]
    alerts.observe([])
    assert len(channel.sent) == 4


def test_a_pager_hears_nothing_of_the_end_of_what_it_was_not_told(
    folders: Folders, clock: HandClock, channel: ListChannel
) -> None:
    pager = ListChannel("pager", "critical")
    alerts = make(folders, clock, channel, pager)
    alerts.observe([SLOW])
    alerts.observe([])
    assert channel.told == [("warning", "slow"), ("info", "resolved: slow")]
    assert pager.told == []


def test_what_went_and_came_again_begins_anew(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    alerts = make(folders, clock, channel)
    for found in ([SLOW], [SLOW], [], [SLOW], [SLOW]):
        alerts.observe(found)
    assert channel.told == [("warning", "slow"), ("info", "resolved: slow"), ("warning", "slow")]


def test_what_was_sent_by_hand_is_not_resolved_by_a_check(
    folders: Folders, clock: HandClock, channel: ListChannel
) -> None:
    alerts = make(folders, clock, channel)
    alerts.send(DOWN)
    alerts.observe([])
    assert channel.told == [("critical", "down")]


def test_a_channel_that_failed_gets_it_at_the_next_check_and_the_others_not_again(
    folders: Folders, clock: HandClock, channel: ListChannel
) -> None:
    other = ListChannel("other")
    other.broken = True
    alerts = make(folders, clock, RaisingChannel("raising"), other, channel)
    assert alerts.send(DOWN)
    assert (len(channel.sent), len(other.sent)) == (1, 0)
    other.broken = False
    assert alerts.send(DOWN)
    assert (len(channel.sent), len(other.sent)) == (1, 1)


def test_true_only_if_somebody_was_told(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    channel.broken = True
    assert not make(folders, clock, channel).send(DOWN)
    assert make(folders, clock).send(Alert("info", "to the log")), "there is the log alone, and it has it"


def test_the_state_tells_no_secret_and_is_private(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    make(folders, clock, channel).send(DOWN)
    path = folders.health / STATE_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_bytes())["success_rate"]["takenBy"] == ["list"]


@pytest.mark.parametrize("content", [b"nonsense", b"[]", b'{"a": 1}', b"\xff"])
def test_a_damaged_state_silences_nothing(
    folders: Folders, clock: HandClock, channel: ListChannel, content: bytes
) -> None:
    (folders.health / STATE_FILE).write_bytes(content)
    assert make(folders, clock, channel).send(DOWN)
    assert channel.told == [("critical", "down")]
    json.loads((folders.health / STATE_FILE).read_bytes())


def test_a_state_that_cannot_be_kept_silences_nothing(folders: Folders, clock: HandClock, channel: ListChannel) -> None:
    for path in (folders.health, folders.health.parent / "elsewhere"):
        if path.exists():
            path.rmdir()
    assert make(folders, clock, channel).send(DOWN)
    assert channel.told == [("critical", "down")]


def test_a_check_that_changes_nothing_writes_nothing(folders: Folders, clock: HandClock) -> None:
    alerts, path = make(folders, clock), folders.health / STATE_FILE
    alerts.observe([])
    written = path.stat().st_ino
    alerts.observe([])
    assert path.stat().st_ino == written
    alerts.observe([SLOW])
    assert path.stat().st_ino != written
    assert list(json.loads(path.read_bytes())) == ["processing_time"]


def test_what_is_remembered_is_bounded(
    folders: Folders, clock: HandClock, channel: ListChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totalizer.edge.daemon.alerts.REMEMBERED_MAX", 5)
    alerts = make(folders, clock, channel)
    alerts.observe([SLOW])
    for number in range(20):
        clock.forward(1)
        alerts.send(Alert("info", str(number)))
    kept = json.loads((folders.health / STATE_FILE).read_bytes())
    assert sorted(kept) == ["16", "17", "18", "19", "processing_time"]


@pytest.mark.parametrize("severity", ["", "error", "CRITICAL", None])
def test_an_unknown_severity(severity: str) -> None:
    with pytest.raises(ValueError, match="must be one of info, warning, critical"):
        Alert(severity, "x")


def test_an_alert_out_of_a_mapping() -> None:
    assert Alert.of({"severity": "info", "message": "m", "details": {"a": 1}}) == Alert("info", "m", {"a": 1})
    with pytest.raises(TypeError):
        Alert.of({"severity": "info"})
