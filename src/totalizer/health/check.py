"""What a check is, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple

from totalizer.health.facts import DatabaseFacts, Facts

OK, UNKNOWN, WARNING, CRITICAL = "ok", "unknown", "warning", "critical"
#: From the best to the worst.
STATUSES = (OK, UNKNOWN, WARNING, CRITICAL)


class Levels(NamedTuple):
    """From which value on a check warns, and from which it is critical; None for never.

    What is the worse the less there is, as room on a disk, has the greater number first.
    """

    warning: float | None = None
    critical: float | None = None

    @property
    def less_is_worse(self) -> bool:
        """True if low values are bad."""
        return self.warning is not None and self.critical is not None and self.critical < self.warning

    def status(self, value: float) -> str:
        """Where a value lies."""
        for status, level in ((CRITICAL, self.critical), (WARNING, self.warning)):
            if level is not None and (value < level if self.less_is_worse else value > level):
                return status
        return OK


class Judgement(NamedTuple):
    """What a check finds.

    Attributes:
        status: one of STATUSES.
        value: the figure it looked at, in the check's unit; None if there is none.
        message: a sentence with the figure. It names no organisation, no address and no folder.
    """

    status: str
    value: float | None
    message: str


Judge = Callable[[Facts, Levels], Judgement]


def of_database(judge: Callable[[DatabaseFacts, Levels], Judgement]) -> Judge:
    """A check of what the database tells: without its answer, nothing is known."""

    @wraps(judge)
    def judged(facts: Facts, levels: Levels) -> Judgement:
        found = facts.database.facts
        return unknown(facts) if found is None else judge(found, levels)

    return judged


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong.

    Attributes:
        name: what it is called everywhere.
        title: what it looks at.
        judge: holds the levels against the facts.
        levels: as shipped.
        unit: of value and levels.
        remedy: what to do when it finds something.
        local: True if it is about this machine, False if about the whole installation.
    """

    name: str
    title: str
    judge: Judge
    levels: Levels
    unit: str
    remedy: str
    local: bool


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        name: of the check.
        status: ok, unknown, warning or critical.
        message: a sentence.
        value: the figure; None if there is none.
        unit: of value and levels.
        warning, critical: the levels; None for never.
        remedy: what to do; "" while all is well.
        local: True if it is about this machine.
    """

    name: str
    status: str
    message: str
    value: float | None
    unit: str
    warning: float | None
    critical: float | None
    remedy: str
    local: bool

    @property
    def bad(self) -> bool:
        """True if something is wrong."""
        return self.status in (WARNING, CRITICAL)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        value = None if self.value is None else round(self.value, 3)
        members = {
            "name": self.name, "status": self.status, "message": self.message, "value": value, "unit": self.unit,
            "warning": self.warning, "critical": self.critical, "remedy": self.remedy or None,
        }  # fmt: skip
        return {name: member for name, member in members.items() if member is not None}


def run(check: Check, facts: Facts, levels: Levels) -> CheckResult:
    """The result of one check."""
    found = check.judge(facts, levels)
    remedy = check.remedy if found.status in (WARNING, CRITICAL) else ""
    return CheckResult(
        check.name, found.status, found.message, found.value, check.unit, levels.warning, levels.critical, remedy,
        check.local,
    )  # fmt: skip


def unknown(facts: Facts) -> Judgement:
    """The judgement of a check that needs the database and has none."""
    return Judgement(UNKNOWN, None, f"not known: the database {facts.database.problem}")
