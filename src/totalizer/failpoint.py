"""Places where a process can be made to die, to stop or to meet a disk that refuses: how crashes are tried out.

They are off unless the environment variable TOTALIZER_FAILPOINTS names some, for example
`journal.group.synced=kill:3;load.piece.committed=stop`: at the third hit of the one and the first of the other. Whoever
passes such a place asks `failpoint.ARMED` and nothing more while they are off; none lies on the way of a single event.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from enum import Enum
from itertools import count
from typing import NamedTuple

from totalizer.errors import ConfigurationError

VARIABLE = "TOTALIZER_FAILPOINTS"


class Failpoint(Enum):
    """Every place there is, by what has just been done, or is about to be."""

    GROUP_WRITTEN = "journal.group.written"
    GROUP_SYNCED = "journal.group.synced"
    GROUP_PUBLISHED = "journal.group.published"
    GROUP_ANSWERED = "journal.group.answered"
    SEGMENT_RESERVED = "journal.segment.reserved"
    SEGMENT_DRAFTED = "journal.segment.drafted"
    SEGMENT_RENAMED = "journal.segment.renamed"
    SEGMENT_BEGUN = "journal.segment.begun"
    SEGMENT_CUT = "journal.segment.cut"
    SEGMENT_SEALED = "journal.segment.sealed"
    SEGMENT_ENDED = "journal.segment.ended"
    RECOVERY_CLEARED = "journal.recovery.cleared"
    RECOVERY_NOTED = "journal.recovery.noted"
    RECOVERY_SORTED = "journal.recovery.sorted"
    RECOVERY_SCANNED = "journal.recovery.scanned"
    RECOVERY_CUT = "journal.recovery.cut"
    RECOVERY_SYNCED = "journal.recovery.synced"
    RECOVERY_IDENTIFIED = "journal.recovery.identified"
    RECOVERY_EMPTIED = "journal.recovery.emptied"
    RECOVERY_PUBLISHED = "journal.recovery.published"
    SEGMENT_DISCARDED = "journal.discard.unlinked"
    DISCARD_SYNCED = "journal.discard.synced"
    JOURNAL_FOUND = "load.journal.found"
    JOURNAL_TAKEN_OVER = "load.journal.taken_over"
    PIECE_READ = "load.piece.read"
    PIECE_GATHERED = "load.piece.gathered"
    PIECE_FENCED = "load.piece.fenced"
    BEFORE_COPY = "load.section.before_copy"
    SECTION_COPIED = "load.section.copied"
    BEFORE_CAREFUL = "load.section.before_careful"
    SECTION_DIVIDED = "load.section.divided"
    LINE_BURIED = "load.line.buried"
    PIECE_STORED = "load.piece.stored"
    BEFORE_COMMIT = "load.piece.before_commit"
    PIECE_COMMITTED = "load.piece.committed"
    BEFORE_DISCARD = "load.piece.before_discard"
    PIECE_DISCARDED = "load.piece.discarded"
    SHARD_LOCKED = "rollup.shard.locked"
    MARKS_TAKEN = "rollup.marks.taken"
    LEVEL_DELETED = "rollup.level.deleted"
    LEVEL_INSERTED = "rollup.level.inserted"
    SHARD_COMMITTED = "rollup.shard.committed"
    FLOOR_RAISED = "retention.floor.raised"
    EVENTS_REMOVED = "retention.events.removed"
    PARTITION_COUNTED = "retention.partition.counted"
    PARTITION_DROPPED = "retention.partition.dropped"
    IDS_FORGOTTEN = "retention.ids.forgotten"
    ROLLUP_ROWS_REMOVED = "retention.rollup.removed"
    LATE_REMOVED = "retention.late.removed"
    BEFORE_LATE = "late.section.begun"
    LATE_TAKEN = "late.events.taken"
    LATE_MERGED = "late.level.merged"
    LATE_NOTED = "late.events.noted"
    LATE_APPLIED = "late.events.applied"
    LEVEL_REPAIRED = "repair.level.computed"


class Action(Enum):
    """What happens there."""

    #: SIGKILL to the process itself.
    KILL = "kill"
    #: OSError, EIO.
    RAISE = "raise"
    #: SIGSTOP to the process itself, until somebody sends SIGCONT.
    STOP = "stop"


#: Where no call of the disk has just been made that could have been refused instead.
CANNOT_RAISE = frozenset({Failpoint.GROUP_PUBLISHED, Failpoint.GROUP_ANSWERED, Failpoint.SEGMENT_ENDED})


class Plan(NamedTuple):
    """What to do at a place, at which hit, and the hits so far."""

    action: Action
    nth: int
    hits: Iterator[int]


#: False while nothing is to happen anywhere.
ARMED = False
_plans: dict[Failpoint, Plan] = {}


def arm(text: str) -> None:
    """Do what a text says from now on, and nothing else.

    Args:
        text: `place=action` or `place=action:n` for the n-th hit (from 1, the first if not given), separated by
            semicolons; "" for nothing.

    Raises:
        ConfigurationError: it names a place or an action that there is not, or one that cannot be there.
    """
    global ARMED
    plans = dict(_parsed(entry.strip()) for entry in text.split(";") if entry.strip())
    _plans.clear()
    _plans.update(plans)
    ARMED = bool(plans)


def hit(point: Failpoint) -> None:
    """A place is passed. Called only while ARMED.

    Raises:
        OSError: EIO, where that is planned.
    """
    plan = _plans.get(point)
    if plan is None or next(plan.hits) != plan.nth:
        return
    if plan.action is Action.RAISE:
        raise OSError(errno.EIO, f"failpoint {point.value}")
    if plan.action is Action.KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    # To this thread: the whole process stops, and this thread not one step later.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _parsed(entry: str) -> tuple[Failpoint, Plan]:
    name, _, what = entry.partition("=")
    word, _, number = what.partition(":")
    try:
        point = Failpoint(name.strip())
    except ValueError:
        known = ", ".join(each.value for each in Failpoint)
        raise ConfigurationError(f"{VARIABLE}: there is no place {name.strip()!r}; there are {known}") from None
    try:
        action = Action(word.strip())
    except ValueError:
        known = ", ".join(each.value for each in Action)
        raise ConfigurationError(f"{VARIABLE}: {entry!r} asks for {word.strip()!r}; it can be {known}") from None
    if action is Action.RAISE and point in CANNOT_RAISE:
        raise ConfigurationError(f"{VARIABLE}: {entry!r}: nothing can be refused there; it can be kill or stop")
    if number and not (number.isdecimal() and int(number) > 0):
        raise ConfigurationError(f"{VARIABLE}: {entry!r}: {number!r} is no number of a hit; 1 or more")
    return point, Plan(action, int(number or 1), count(1))


arm(os.environ.get(VARIABLE, ""))
