"""One question about one live window, answered again and again: rows, and frames of what has changed.

Everybody who asks the same is told by the same frames, encoded once. Frames are numbered, and the latest are kept, so
that who comes back gets just those it missed.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from totalizer.clock import utc_text
from totalizer.live.ask import Ask
from totalizer.live.ring import Ring
from totalizer.live.shape import OTHER, Group, Shape, State

#: Frames kept for who comes back, and their bytes.
FRAMES_KEPT, FRAMES_BYTES_MAX = 200, 1 << 20

#: Values of the dimensions an answer is divided by.
Key = tuple[Any, ...]
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Frame(NamedTuple):
    """What subscribers are sent.

    Attributes:
        kind: `snapshot`, `delta`, or `gone`: the window is no longer kept.
        number: of the state it leads to.
        cursor: stands for that state; who has it gets what follows it.
        body: members of a JSON object, without its braces.
    """

    kind: str
    number: int
    cursor: str
    body: bytes


#: Takes a frame at once, and waits for nothing.
Listener = Callable[[Frame], None]


class Told(NamedTuple):
    """What is said of a window beside its rows.

    Attributes:
        as_of_ns: when.
        complete: False if something acknowledged may be missing.
        pending: events that are counted and not in the database yet.
    """

    as_of_ns: int
    complete: bool
    pending: int


class View:
    """One question about one window.

    Args:
        ask: the question.
        shape: of the window.

    Attributes:
        listeners: who is told.
        left_at: when the last of them left; monotonic seconds.
        framed_at: when the last frame was made.
    """

    def __init__(self, ask: Ask, shape: Shape) -> None:
        self.ask, self._shape = ask, shape
        self.listeners: set[Listener] = set()
        self.left_at = self.framed_at = float("-inf")
        self._group_at = [shape.rollup.dimensions.index(name) for name in ask.group_by]
        self._filters = [(shape.rollup.dimensions.index(name), values) for name, values in ask.filters]
        self._measures = [measure for measure in shape.measures if measure.name in ask.measures]
        self._rows: dict[Key, dict[str, Any]] = {}
        self._members: dict[Key, set[Group]] = {}
        self._other: dict[str, Any] | None = None
        self._removed: set[Key] = set()
        self._changed: set[Key] = set()
        self._complete, self._other_changed = True, False
        # A state of another process, or of this view's former life, is none of this one's.
        self._life, self._number = secrets.token_hex(4), 0
        self._frames: deque[Frame] = deque()
        self._frame_bytes = 0

    def update(self, ring: Ring, groups: set[Group]) -> None:
        """Take over the totals of groups that have changed."""
        keys = set()
        for group in groups:
            if group == OTHER:
                self._take_other(ring)
                continue
            if any(group[at] not in values for at, values in self._filters):
                continue
            key = tuple([group[at] for at in self._group_at])
            members = self._members.setdefault(key, set())
            if group in ring.totals:
                members.add(group)
            else:
                members.discard(group)
            keys.add(key)
        if OTHER in groups and not self._divided:
            keys.add(())
        for key in keys:
            self._renew(key, ring)

    def begin(self, ring: Ring) -> None:
        """Take the present rows over; nobody has been told anything yet."""
        self.begin_anew(ring)
        self._changed.clear()
        self._other_changed = False

    def begin_anew(self, ring: Ring) -> None:
        """Another ring has taken the place of the one before."""
        groups = {group for members in self._members.values() for group in members} | set(ring.totals) | {OTHER}
        self.update(ring, groups)

    def answer(self, ring: Ring, told: Told) -> dict[str, Any]:
        """The present rows and what is said of them."""
        rows = [self._rows[key] for key in sorted(self._rows, key=_order)]
        return {"data": rows, **self._about(ring, told)}

    def frame(self, ring: Ring, told: Told) -> Frame | None:
        """What has changed since the last frame, now sent to the listeners; None if nothing has."""
        if not self._changed and not self._removed and not self._other_changed and told.complete == self._complete:
            return None
        self._complete, self._other_changed = told.complete, False
        self._number += 1
        content = {
            "data": [self._rows[key] for key in sorted(self._changed, key=_order) if key in self._rows],
            "removed": [dict(zip(self.ask.group_by, key, strict=True)) for key in sorted(self._removed, key=_order)],
            **self._about(ring, told),
        }
        self._changed.clear()
        self._removed.clear()
        frame = self._make("delta", content)
        self._keep(frame)
        for listener in list(self.listeners):
            listener(frame)
        return frame

    def since(self, cursor: str | None, ring: Ring, told: Told) -> list[Frame]:
        """What brings somebody up to the last frame: those that follow a state, or the whole if it is not known."""
        life, _, number = (cursor or "").partition("-")
        if life == self._life and number.isascii() and number.isdigit() and len(number) < 19:
            following = [frame for frame in self._frames if frame.number > int(number)]
            if int(number) == self._number or (following and following[0].number == int(number) + 1):
                return following
        return [self._make("snapshot", self.answer(ring, told))]

    @property
    def _divided(self) -> bool:
        return bool(self._group_at or self._filters)

    def _take_other(self, ring: Ring) -> None:
        state = ring.totals.get(OTHER)
        other = None if state is None else self._shown(state)
        self._other_changed |= other != self._other and self._divided
        self._other = other

    def _renew(self, key: Key, ring: Ring) -> None:
        total: State | None = None
        members: list[Group] = list(self._members.get(key, ()))
        if not self._divided and OTHER in ring.totals:
            members.append(OTHER)
        for group in members:
            if total is None:
                total = list(ring.totals[group])
            else:
                self._shape.merge(total, ring.totals[group])
        if total is None:
            self._members.pop(key, None)
            if self._rows.pop(key, None) is not None:
                self._changed.discard(key)
                self._removed.add(key)
            return
        row = {**dict(zip(self.ask.group_by, key, strict=True)), **self._shown(total)}
        if self._rows.get(key) != row:
            self._rows[key] = row
            self._changed.add(key)
            self._removed.discard(key)

    def _shown(self, state: State) -> dict[str, Any]:
        return {measure.name: self._shape.shown(measure, state) for measure in self._measures}

    def _about(self, ring: Ring, told: Told) -> dict[str, Any]:
        start, end = ring.span
        about: dict[str, Any] = {
            "window": self.ask.window,
            "from": _moment(start),
            "to": _moment(end),
            "as_of": utc_text(told.as_of_ns),
            # What is known only as part of `other` may belong to a filter's or a group's rows.
            "exact": self._other is None or not self._divided,
            "complete": told.complete,
            "pending": told.pending,
            "source": "live",
        }
        if self._other is not None and self._divided:
            about["other"] = self._other
        return about

    def _make(self, kind: str, content: dict[str, Any]) -> Frame:
        cursor = f"{self._life}-{self._number}"
        body = _encode({"type": kind, "cursor": cursor, **content})[1:-1]
        return Frame(kind, self._number, cursor, body)

    def _keep(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._frame_bytes += len(frame.body)
        while len(self._frames) > FRAMES_KEPT or self._frame_bytes > FRAMES_BYTES_MAX:
            self._frame_bytes -= len(self._frames.popleft().body)


#: The last frame of a view whose window had to make room.
GONE = Frame("gone", 0, "", _encode({"type": "gone"})[1:-1])


def _moment(second: int) -> str:
    return f"{utc_text(second * 1_000_000_000)[:19]}Z"


def _order(key: Key) -> list[tuple[bool, str]]:
    """Sorts as the query service does: missing values last."""
    return [(value is None, "" if value is None else str(value)) for value in key]
