"""The live windows of one organisation, and the events that are on their way to the database."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from totalizer.journal import BEGINNING, Position, Record
from totalizer.live.ask import Ask
from totalizer.live.length import Length
from totalizer.live.piece import OnFailure, Piece, Place, Seen
from totalizer.live.ring import Ring
from totalizer.live.shape import Cells, Shape
from totalizer.live.stored import Offset
from totalizer.live.view import Told, View

#: Ids of its latest events of a type that are remembered for each organisation.
IDS_MAX = 20_000
#: Above this many pieces of one journal neighbours become one, so that a loader at rest costs no ever longer sums.
PIECES_MAX = 64


class Pane:
    """One window of one rollup of an organisation.

    Attributes:
        ring: its totals; None until it was read from the database.
        reading: the task that reads it.
        views: the questions about it that somebody asks.
        offsets: how far journals were loaded when it was read.
        asked_at, read_at: when it was last asked for, and read; monotonic seconds.
        cost_s: how long reading it took.
    """

    def __init__(self, shape: Shape, length: Length) -> None:
        self.shape, self.length = shape, length
        self.ring: Ring | None = None
        self.reading: asyncio.Task[None] | None = None
        self.views: dict[Ask, View] = {}
        self.offsets: dict[str, Offset] = {}
        self.asked_at = self.read_at = self.cost_s = 0.0

    @property
    def watched(self) -> bool:
        """True if somebody is told of its changes."""
        return any(view.listeners for view in self.views.values())

    def advance(self, now_s: int) -> None:
        """Bring totals and rows to the present."""
        if self.ring is None:
            return
        self.ring.advance(now_s)
        changed = self.ring.refresh()
        if changed:
            for view in self.views.values():
                view.update(self.ring, changed)

    def view(self, ask: Ask) -> View:
        """The view of a question; the pane must have been read."""
        assert self.ring is not None
        if ask not in self.views:
            # The others must not miss what this one takes as its beginning.
            changed = self.ring.refresh()
            for view in self.views.values():
                view.update(self.ring, changed)
            self.views[ask] = View(ask, self.shape)
            self.views[ask].begin(self.ring)
        return self.views[ask]


class Feed:
    """One organisation.

    Args:
        organization_id: its id.
        on_failure: told of what cannot be understood.

    Attributes:
        panes: its windows.
        since: from where on its pieces are complete, by journal.
        catching_up: held by who reads what is before that.
        holding: how many windows are being read; settled pieces stay until they are.
        failed: events that were not understood.
    """

    def __init__(self, organization_id: str, on_failure: OnFailure) -> None:
        self.organization_id = organization_id
        self.panes: dict[tuple[str, str], Pane] = {}
        self.since: dict[str, Position] = {}
        self.catching_up = asyncio.Lock()
        self.holding = self.failed = 0
        self._pieces: deque[Piece] = deque()
        self._seen = Seen(IDS_MAX)
        self._on_failure = on_failure

    @property
    def pending(self) -> int:
        """Events counted that are not in the database yet."""
        return sum(piece.events for piece in self._pieces if not piece.settled)

    @property
    def pending_bytes(self) -> int:
        """Bytes of these."""
        return sum(piece.bytes for piece in self._pieces)

    @property
    def bytes(self) -> int:
        """What it takes, roughly: lines are held as objects of their own."""
        rings = sum(pane.ring.bytes for pane in self.panes.values() if pane.ring is not None)
        return rings + 2 * self.pending_bytes

    def take(self, journal_id: str, records: list[Record], *, first: bool = False) -> None:
        """Count records of a journal.

        Args:
            journal_id: of the journal.
            records: some that follow one another, all of this organisation.
            first: True for records before those counted so far.
        """
        piece = Piece(journal_id, self._fail)
        for record in records:
            try:
                piece.add(record, self._seen)
            except ValueError as error:
                self._fail(journal_id, record.sequence, str(error))
        if not piece.lines:
            return
        if first:
            self._pieces.appendleft(piece)
        else:
            self._pieces.append(piece)
        for pane in self.panes.values():
            if pane.ring is not None:
                pane.ring.expect(piece.number, self._cells(pane, piece))
        if sum(not each.settled for each in self._pieces) > PIECES_MAX:
            self._join_pieces()

    def loaded(self, offsets: Mapping[str, Offset]) -> list[Piece]:
        """The pieces that are loaded and not settled."""
        return [
            piece
            for piece in self._pieces
            if not piece.settled and piece.journal_id in offsets and offsets[piece.journal_id].position >= piece.end
        ]

    def settle(self, piece: Piece, unstored: frozenset[Place]) -> None:
        """A piece is in the database, but for some of its events."""
        counted = piece.corrected or bool(unstored)
        piece.settle(unstored)
        for pane in self.panes.values():
            if pane.ring is not None:
                corrected = self._cells(pane, piece) if counted else None
                pane.ring.settle(piece.number, corrected)
        self.let_go()

    def let_go(self) -> None:
        """Forget settled pieces, unless a window that is being read may need them."""
        if not self.holding:
            self._pieces = deque(piece for piece in self._pieces if not piece.settled)

    def install(self, pane: Pane, ring: Ring, offsets: dict[str, Offset]) -> None:
        """Begin a window from what was read: the pieces that are not in it are added.

        Args:
            pane: which.
            ring: with what the database has.
            offsets: how far journals are loaded in that.
        """
        pane.offsets, pane.ring = offsets, ring
        for piece in self._pieces:
            cells = self._cells(pane, piece)
            if piece.settled:
                ring.settle(piece.number, cells)
            else:
                ring.expect(piece.number, cells)
        ring.refresh()
        for view in pane.views.values():
            view.begin_anew(ring)

    def told(self, as_of_ns: int, *, complete: bool) -> Told:
        """What is said beside the rows of its windows."""
        return Told(as_of_ns, complete, self.pending)

    def _cells(self, pane: Pane, piece: Piece) -> Cells:
        """What a piece adds to a window beyond what was read of it; counted once for all windows of a rollup."""
        offset = pane.offsets.get(piece.journal_id)
        rings = (each.ring for each in self.panes.values() if each.shape is pane.shape)
        since = min(ring.span[0] for ring in rings if ring is not None)
        return piece.cells(pane.shape, BEGINNING if offset is None else offset.position, since)

    def _fail(self, journal_id: str, sequence: int, reason: str) -> None:
        self.failed += 1
        self._on_failure(journal_id, sequence, reason)

    def _join_pieces(self) -> None:
        """Make one of every two neighbours of a journal."""
        kept: list[Piece] = []
        open_piece: dict[str, Piece] = {}
        for piece in self._pieces:
            before = open_piece.pop(piece.journal_id, None)
            if piece.settled or before is None or before.end > piece.start:
                kept.append(piece)
                if not piece.settled:
                    open_piece[piece.journal_id] = piece
                continue
            before.join(piece)
            for pane in self.panes.values():
                if pane.ring is not None:
                    pane.ring.join(before.number, piece.number)
        self._pieces = deque(kept)
