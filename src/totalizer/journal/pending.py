"""What was handed to the journal and is not durable yet: groups, their bounds, and the bell that wakes the writer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from totalizer.errors import JournalFailed, JournalFull
from totalizer.journal.format import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES

#: Bytes of one group, unless a single record is longer: about 2 ms of writing on a disk of 2 GB/s.
GROUP_BYTES_MAX = 4 << 20
#: Bytes that may wait in memory for the disk, unless a single record is longer.
PENDING_BYTES_MAX = 64 << 20


class Group:
    """Records that become durable together, in one write and one sync.

    Attributes:
        payloads: in order.
        tokens: of the appends that are answered by `on_commit`.
        gate: held until the group is answered, if threads wait for it; they let each other through one by
            one.
        size: bytes in the segment, once no more records join.
        error: why it is not durable, once answered.
    """

    __slots__ = ("error", "gate", "payloads", "size", "tokens")

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.tokens: list[object] = []
        self.gate: threading.Lock | None = None
        self.size = 0
        self.error: JournalFailed | None = None


class Pending:
    """Filled from any thread, emptied by the writer. Nothing here touches a disk.

    Args:
        group_bytes_max: bytes of one group, unless a single record is longer.
        record_bytes_max: longest payload, bytes.
        room: bytes that may still be written before the quota is reached.
    """

    def __init__(self, group_bytes_max: int, record_bytes_max: int, room: int) -> None:
        self._group_bytes_max, self._record_bytes_max = group_bytes_max, record_bytes_max
        self._lock = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asleep = False
        self._groups: deque[Group] = deque()
        # The group that records join, and how many more bytes may without asking `_begin_group`: less than 0, and so
        # less than any record, while there is none. Nothing else is counted for a record; the group's size is what
        # it was granted less what is left.
        self._open: Group | None = None
        self._left, self._granted = -1, 0
        self._add_payload: Callable[[bytes], None] = _nowhere
        self._add_token: Callable[[object], None] = _nowhere
        self._settled = 0
        self._room = room
        self._unanswered = 0
        self._refusal: str | None = None
        self._closed = False
        #: True if an append was refused for the quota since `set_room`.
        self.short_of_room = False

    @property
    def size(self) -> int:
        """Bytes accepted and not answered yet."""
        with self._lock:
            return self._size()

    def put(self, payload: bytes, token: object) -> None:
        """Accept one record, to be answered by token. Raises as `_begin_group`."""
        length = len(payload) + RECORD_HEADER_BYTES
        with self._lock:
            left = self._left - length
            if left < 0:
                left = self._begin_group(length)
            self._left = left
            self._add_payload(payload)
            self._add_token(token)

    def put_and_hold(self, payload: bytes) -> Group:
        """Accept one record, to be answered through its group's gate. Raises as `_begin_group`."""
        length = len(payload) + RECORD_HEADER_BYTES
        with self._lock:
            left = self._left - length
            if left < 0:
                left = self._begin_group(length)
            self._left = left
            self._add_payload(payload)
            group = self._open
            assert group is not None
            if group.gate is None:
                group.gate = threading.Lock()
                group.gate.acquire()
        return group

    def take(self, timeout_s: float) -> Group | None:
        """The oldest group, once there is one; None after `timeout_s` seconds (-1: never) or if told to close."""
        with self._lock:
            if self._groups:
                return self._pop()
            if self._closed:
                return None
            self._asleep = True
        self._bell.acquire(timeout=timeout_s)
        with self._lock:
            if self._asleep:
                self._asleep = False
            else:
                # Rung after the time ran out: the bell must be silent before the next sleep.
                self._bell.acquire(blocking=False)
            return self._pop() if self._groups else None

    def done(self, group: Group) -> None:
        """A group has become durable: what it takes of the quota is on the disk now."""
        with self._lock:
            self._settled -= group.size
            self._unanswered -= 1
            self._room -= group.size
            self._bound()

    def spend(self, length: int) -> None:
        """`length` bytes of the quota went to something else than records."""
        with self._lock:
            self._room -= length
            self._bound()

    def set_room(self, room: int) -> bool:
        """Say how many bytes may still be written; returns if an append was refused since it was said last."""
        with self._lock:
            self._room = room
            self._bound()
            short, self.short_of_room = self.short_of_room, False
        return short

    def refuse(self, reason: str) -> list[Group]:
        """Accept nothing from now on; gives the groups accepted before and not taken yet."""
        with self._lock:
            self._refusal = self._refusal if self._closed else reason
            self._end_group()
            groups, self._groups = list(self._groups), deque()
            self._settled = self._unanswered = 0
        return groups

    def accept_again(self) -> None:
        """The disk is back. Has no effect after `close`."""
        with self._lock:
            if not self._closed:
                self._refusal = None

    def close(self) -> None:
        """Accept nothing any more and wake the writer to finish what there is."""
        with self._lock:
            self._closed = True
            self._end_group()
            self._refusal = "the journal is closed"
            if self._asleep:
                self._ring()

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    @property
    def refusal(self) -> str | None:
        """Why nothing is accepted at present, None if records are."""
        return self._refusal

    def _begin_group(self, length: int) -> int:
        """A new group, for a record of `length` bytes that cannot join the open one or finds none.

        Returns:
            How many bytes may join it after that record.

        Raises:
            ValueError: the record can never be accepted.
            JournalFailed: closed, or the disk refuses at present.
            JournalFull: the quota or PENDING_BYTES_MAX is reached.
        """
        if length - RECORD_HEADER_BYTES > self._record_bytes_max:
            raise ValueError(
                f"a payload of {length - RECORD_HEADER_BYTES} bytes; at most {self._record_bytes_max} fit here"
            )
        if self._refusal is not None:
            raise JournalFailed(self._refusal)
        size = self._size()
        if size and size + length > PENDING_BYTES_MAX:
            raise JournalFull(f"{size} bytes wait for the disk, {PENDING_BYTES_MAX} may; try again")
        left = self._room - size - self._headers(1)
        if length > left:
            self.short_of_room = True
            if self._asleep:
                self._ring()
            raise JournalFull(
                f"a record of {length} bytes does not fit the {max(left, 0)} bytes left of the journal's quota; "
                "try again when it has been drained"
            )
        self._end_group()
        group = self._open = Group()
        self._add_payload, self._add_token = group.payloads.append, group.tokens.append
        self._groups.append(group)
        self._unanswered += 1
        self._left = self._granted = 0
        self._bound()
        # A record longer than a group may be has one to itself.
        self._granted = max(self._granted, length)
        # The writer sleeps only while there is no group, so no other record need look whether it does.
        if self._asleep:
            self._ring()
        return self._granted - length

    def _end_group(self) -> None:
        """No more records join the open group, if there is one."""
        group, self._open = self._open, None
        if group is not None:
            group.size = self._granted - self._left
            self._settled += group.size
            self._left, self._granted = -1, 0
            self._add_payload = self._add_token = _nowhere

    def _size(self) -> int:
        return self._settled + (self._granted - self._left if self._open is not None else 0)

    def _headers(self, more: int) -> int:
        """Bytes of segments that may have to be begun: one a group, and one so that the rest can be discarded."""
        return (self._unanswered + more + 1) * SEGMENT_HEADER_BYTES

    def _bound(self) -> None:
        """Grant the open group anew what it may hold; that may be less than it holds, then no more records join."""
        if self._open is not None:
            held = self._granted - self._left
            size_max = min(self._room - self._headers(0), PENDING_BYTES_MAX)
            self._granted = min(size_max - self._settled, self._group_bytes_max)
            self._left = self._granted - held

    def _pop(self) -> Group:
        group = self._groups.popleft()
        if group is self._open:
            self._end_group()
        return group

    def _ring(self) -> None:
        self._asleep = False
        self._bell.release()


def _nowhere(item: object) -> None:
    """Where records would go while no group is open; none comes so far."""
    raise AssertionError(f"no group is open for {item!r}")
