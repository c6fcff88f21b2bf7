"""One delivery over HTTP: the batch in requests, halves of what is refused as a whole, the fate of every entry."""

from __future__ import annotations

import gzip
import hashlib
from collections import deque
from collections.abc import Callable, Sequence

from totalizer.edge.batch import Batch, RefusedEntry
from totalizer.edge.event_of import EVENT_TYPE, encode_event
from totalizer.edge.sinks.answer import Act, NoReply, Reply, Verdict, verdict
from totalizer.edge.sinks.sink import Delivery
from totalizer.errors import SinkRefused, SinkUnavailable

#: Bytes of events in one request; half of what the server takes.
REQUEST_BYTES_MAX = 4 << 20
#: Bytes from which a body is compressed; below it costs more than it saves.
GZIP_BYTES_MIN = 1024
#: Requests of one delivery in which what is refused as a whole is halved on; then each piece is refused as it is.
HALVING_REQUESTS_MAX = 256
#: Fast: entries of one batch look alike, and shrink to a tenth at any level.
_GZIP_LEVEL = 1
#: Bytes of the digest that tells requests of one batch apart.
_DIGEST_BYTES = 6


class Habits:
    """What a sink learns of its server, for all deliveries.

    Args:
        gzip: send compressed bodies.
        events_max: of one request.
    """

    def __init__(self, *, gzip: bool, events_max: int) -> None:
        self.gzip, self.events_max = gzip, events_max


#: Sends one request: (body, headers) → its answer. Raises NoReply.
Post = Callable[[bytes, dict[str, str]], Reply]


class Posting:
    """The delivery of one batch.

    Args:
        batch: of entries with ids.
        post: sends one request.
        habits: read, and changed by what the server says.
    """

    def __init__(self, batch: Batch, post: Post, habits: Habits) -> None:
        self._batch, self._post, self._habits = batch, post, habits
        self._events: dict[int, bytes] = {}
        self._accepted = 0
        self._refused: list[RefusedEntry] = []
        self._undelivered: list[int] = []
        self._problem = ""
        self._wait_s: float | None = None
        self._given_up: str | None = None
        self._requests = 0

    def run(self) -> Delivery:
        """Send everything once.

        Raises:
            SinkUnavailable, SinkRefused: as `Sink.deliver` says.
        """
        self._encode()
        pieces = deque(self._pieces(list(self._events)))
        while pieces:
            piece = pieces.popleft()
            pieces.extendleft(reversed(self._send(piece)))
            if self._problem:
                # What the server cannot take now, it cannot take in the next request either.
                self._undelivered += [index for rest in pieces for index in rest]
                break
        return self._result()

    def _encode(self) -> None:
        for index, entry in enumerate(self._batch.entries):
            try:
                self._events[index] = encode_event(entry)
            except ValueError as error:
                self._refused.append(RefusedEntry(index, "invalid_event", str(error)))

    def _pieces(self, indexes: Sequence[int]) -> list[list[int]]:
        """The indexes in runs that fit a request."""
        pieces: list[list[int]] = []
        size = 0
        for index in indexes:
            length = len(self._events[index])
            if not pieces or len(pieces[-1]) >= self._habits.events_max or size + length > REQUEST_BYTES_MAX:
                pieces.append([])
                size = 0
            pieces[-1].append(index)
            size += length
        return pieces

    def _send(self, piece: list[int]) -> list[list[int]]:
        """Send one piece; returns what is to be sent next in its place."""
        try:
            answer = self._ask(piece)
        except NoReply as error:
            self._later(piece, str(error))
            return []
        match answer.act:
            case Act.GO_ON:
                return self._settle(piece, answer)
            case Act.HALVE:
                return self._halves(piece, answer)
            case Act.GIVE_UP:
                self._given_up = answer.reason
                self._refuse(piece, answer)
            case _:
                self._later(piece, answer.reason)
        return []

    def _ask(self, piece: list[int]) -> Verdict:
        """The answer to a piece, whatever form of the request it takes to get one."""
        body = b'{"%s":[%s]}' % (EVENT_TYPE.encode(), b",".join(self._events[index] for index in piece))
        packed = self._habits.gzip and len(body) >= GZIP_BYTES_MIN
        status, answer = self._request(body, self._key(piece, body), len(piece), packed=packed)
        if packed and status in (400, 415):
            # Perhaps it only cannot unpack: an old server reads compressed bytes as bad JSON.
            status, answer = self._request(body, self._key(piece, body), len(piece), packed=False)
            self._habits.gzip = status not in (202, 422)
        if answer.act is Act.WITHOUT_KEY:
            # The key is spent on another body, such as this batch's before a part of it was taken. Ids protect still.
            _, answer = self._request(body, None, len(piece), packed=packed and self._habits.gzip)
        return answer

    def _request(self, body: bytes, key: str | None, count: int, *, packed: bool) -> tuple[int, Verdict]:
        headers = {} if key is None else {"Idempotency-Key": key}
        if packed:
            body, headers["Content-Encoding"] = gzip.compress(body, _GZIP_LEVEL, mtime=0), "gzip"
        self._requests += 1
        self._wait_s = None
        reply = self._post(body, headers)
        self._wait_s = reply.retry_after_s
        return reply.status, verdict(reply.status, reply.body, count)

    def _key(self, piece: list[int], body: bytes) -> str:
        """The batch's id; of a part of it, with a digest of the part, so that no two bodies have the same."""
        if len(piece) == len(self._batch.entries):
            return self._batch.batch_id
        return f"{self._batch.batch_id}-{hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()}"

    def _settle(self, piece: list[int], answer: Verdict) -> list[list[int]]:
        """Every event of the piece has a fate, or is sent again."""
        self._refused += [RefusedEntry(piece[item.index], item.code, item.message) for item in answer.refused]
        again = [piece[index] for index in answer.later]
        if answer.now:
            return self._pieces(again) if again else []
        self._accepted += len(piece) - len(answer.refused) - len(again)
        if again:
            self._later(again, answer.reason)
        return []

    def _halves(self, piece: list[int], answer: Verdict) -> list[list[int]]:
        """The halves of a piece that was refused as a whole, down to the entries at fault."""
        if len(piece) == 1 or self._requests >= HALVING_REQUESTS_MAX:
            self._refuse(piece, answer)
            return []
        middle = len(piece) // 2
        if answer.code == "batch_too_large":
            self._habits.events_max = max(1, min(self._habits.events_max, middle))
        return [piece[:middle], piece[middle:]]

    def _refuse(self, piece: list[int], answer: Verdict) -> None:
        self._refused += [RefusedEntry(index, answer.code, answer.reason) for index in piece]

    def _later(self, piece: list[int], problem: str) -> None:
        self._undelivered += piece
        self._problem = problem or "it does not say why"

    def _result(self) -> Delivery:
        refused = tuple(sorted(self._refused, key=lambda entry: entry.index))
        if self._undelivered:
            whole = len(self._undelivered) == len(self._batch.entries)
            raise SinkUnavailable(
                self._problem, retry_after_s=self._wait_s, refused=refused,
                undelivered=None if whole else tuple(sorted(self._undelivered)),
            )  # fmt: skip
        if self._given_up is not None and len(refused) == len(self._batch.entries):
            raise SinkRefused(self._given_up)
        return Delivery(self._accepted, refused)
