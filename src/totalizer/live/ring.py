"""One live window of one rollup of one organisation: what is stored, what is on its way there, and the totals of both.

stored   cells read from the database, and what was added to it since
pending  the cells of each piece of journal that is not loaded yet
totals   of the slots within the window, a state a group; worked out again for the groups that were touched
"""

from __future__ import annotations

from collections.abc import Iterable

from totalizer.live.length import Length
from totalizer.live.shape import OTHER, Cells, Group, Shape, State

#: Bytes of one cell beside its numbers, and of one number: what Python 3.11 takes, rounded up.
CELL_BYTES, NUMBER_BYTES = 300, 40


class Ring:
    """A live window.

    Args:
        shape: what it keeps.
        length: how long it is.
        groups_max: groups it keeps apart.
        now_s: seconds since 1970.

    Attributes:
        totals: state of each group that has events in the window; of OTHER those of groups beyond `groups_max`.
        last: number of its last slot.
    """

    def __init__(self, shape: Shape, length: Length, groups_max: int, now_s: int) -> None:
        self.shape, self.length, self.last = shape, length, length.last(now_s)
        self.totals: dict[Group, State] = {}
        self._groups_max = groups_max
        self._stored: Cells = {}
        # Group → piece → slot → state.
        self._pending: dict[Group, dict[int, dict[int, State]]] = {}
        self._groups_of: dict[int, set[Group]] = {}
        # Slot → the groups with cells in it, so that what enters or leaves the window is found at once.
        self._of_slot: dict[int, set[Group]] = {}
        self._known: set[Group] = set()
        self._touched: set[Group] = set()
        self._cells = 0

    @property
    def bytes(self) -> int:
        """What it takes, roughly."""
        return self._cells * (CELL_BYTES + NUMBER_BYTES * len(self.shape.parts))

    @property
    def span(self) -> tuple[int, int]:
        """From, to (excluded), seconds since 1970."""
        return self.length.span(self.last)

    def store(self, cells: Iterable[tuple[Group, int, State]]) -> None:
        """Add what the database has: (group, slot, state)."""
        for group, slot, state in cells:
            self._add(self._stored, group, slot, state)

    def expect(self, piece: int, cells: Cells) -> None:
        """Count a piece of journal that is not loaded yet.

        Args:
            piece: its number, for `settle`.
            cells: by group and second.
        """
        own: Cells = {}
        self._add_seconds(own, cells)
        self._groups_of[piece] = set(own)
        for group, slots in own.items():
            self._pending.setdefault(group, {})[piece] = slots

    def settle(self, piece: int, corrected: Cells | None = None) -> None:
        """A piece is in the database now.

        Args:
            piece: its number; one that was never counted is added all the same, if `corrected` is given.
            corrected: what of it was stored, by group and second; None: all that was counted.
        """
        counted = self._take(piece)
        if corrected is not None:
            self._touched.update(counted)
            self._cells -= sum(map(len, counted.values()))
            self._add_seconds(self._stored, corrected)
            return
        for group, slots in counted.items():
            self._merge_slots(self._stored.setdefault(group, {}), slots)

    def join(self, piece: int, following: int) -> None:
        """Count two pieces as one from now on, by the number of the first."""
        groups = self._groups_of.setdefault(piece, set())
        for group, slots in self._take(following).items():
            self._merge_slots(self._pending.setdefault(group, {}).setdefault(piece, {}), slots)
            groups.add(group)

    def advance(self, now_s: int) -> None:
        """Let the time pass: slots leave the window at one end and enter it at the other."""
        last = self.length.last(now_s)
        if last <= self.last:
            return
        before, self.last = self.last, last
        first = last - self.length.slots + 1
        for slot in [slot for slot in self._of_slot if slot < first or before < slot <= last]:
            self._touched |= self._of_slot[slot]
            if slot < first:
                self._forget(slot)

    def refresh(self) -> set[Group]:
        """Work the totals of touched groups out again; returns which they are."""
        touched, self._touched = self._touched, set()
        for group in touched:
            total = self._total(group)
            if total is None:
                self.totals.pop(group, None)
            else:
                self.totals[group] = total
        return touched

    def _total(self, group: Group) -> State | None:
        first, last = self.last - self.length.slots + 1, self.last
        total: State | None = None
        everything = self._slots(group)
        for slots in everything:
            for slot, state in slots.items():
                if not first <= slot <= last:
                    continue
                if total is None:
                    total = list(state)
                else:
                    self.shape.merge(total, state)
        if not any(everything):
            self._known.discard(group)
        return total

    def _slots(self, group: Group) -> list[dict[int, State]]:
        stored, pending = self._stored.get(group), self._pending.get(group)
        return [*([stored] if stored else ()), *(pending.values() if pending else ())]

    def _take(self, piece: int) -> Cells:
        """Take a piece out of what is pending."""
        taken: Cells = {}
        for group in self._groups_of.pop(piece, ()):
            pieces = self._pending.get(group)
            if pieces is None or piece not in pieces:
                continue
            taken[group] = pieces.pop(piece)
            if not pieces:
                del self._pending[group]
        return taken

    def _merge_slots(self, into: dict[int, State], slots: dict[int, State]) -> None:
        for slot, state in slots.items():
            if slot in into:
                self.shape.merge(into[slot], state)
                self._cells -= 1
            else:
                into[slot] = state

    def _add_seconds(self, into: Cells, cells: Cells) -> None:
        slot_s, first = self.length.slot_s, self.last - self.length.slots + 1
        for group, seconds in cells.items():
            for second, state in seconds.items():
                if second // slot_s >= first:
                    self._add(into, group, second // slot_s, list(state))

    def _add(self, into: Cells, group: Group, slot: int, state: State) -> None:
        """Takes the state over."""
        if group not in self._known:
            if group != OTHER and len(self._known) >= self._groups_max + (OTHER in self._known):
                group = OTHER
            self._known.add(group)
        slots = into.setdefault(group, {})
        if slot in slots:
            self.shape.merge(slots[slot], state)
        else:
            slots[slot] = state
            self._cells += 1
            self._of_slot.setdefault(slot, set()).add(group)
        self._touched.add(group)

    def _forget(self, slot: int) -> None:
        for group in self._of_slot.pop(slot):
            for slots in self._slots(group):
                if slots.pop(slot, None) is not None:
                    self._cells -= 1
            if not self._stored.get(group, True):
                del self._stored[group]
